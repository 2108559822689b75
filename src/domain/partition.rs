//! The division of the streams into partitions, for workers that process the log side by side.
//!
//! A stream belongs to one partition, so the order within each stream is the same as in the log.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// The largest number of partitions.
pub const PARTITIONS_MAX: u16 = 256;
/// The number of a partition: 0 to 255.
pub type Partition = i16;

/// Returns whether streams can be divided into this number of partitions: a power of two up to [`PARTITIONS_MAX`].
pub fn is_number_of_partitions(partitions: u16) -> bool {
    partitions.is_power_of_two() && partitions <= PARTITIONS_MAX
}

/// Returns the bucket of a stream, 0 to 255: the first byte of SHA-256 of `<type>/<id>`. The number of partitions is a power
/// of two up to 256, so the partition of a stream is its bucket modulo that number.
pub fn bucket(aggregate_type: &str, aggregate_id: &str) -> u8 {
    let mut hash = Sha256::new();
    hash.update(aggregate_type.as_bytes());
    hash.update(b"/");
    hash.update(aggregate_id.as_bytes());
    hash.finalize()[0]
}

/// One of a number of partitions. Its text form is `i/n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOf {
    partition: u16,
    /// A power of two.
    partitions: u16,
}

/// A text is not one of a number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a partition and their number, like 3/16: the number is a power of two up to {PARTITIONS_MAX}")]
pub struct ParsePartitionError;

impl PartitionOf {
    /// Returns the number of the partition, from 0.
    pub fn partition(self) -> u16 {
        self.partition
    }

    /// Returns the number of all partitions.
    pub fn partitions(self) -> u16 {
        self.partitions
    }

    /// Returns whether a stream belongs to the partition.
    pub fn has(self, aggregate_type: &str, aggregate_id: &str) -> bool {
        self.partitions == 1 || u16::from(bucket(aggregate_type, aggregate_id)) % self.partitions == self.partition
    }
}

impl FromStr for PartitionOf {
    type Err = ParsePartitionError;

    fn from_str(text: &str) -> Result<Self, ParsePartitionError> {
        let number = |digits: &str| -> Option<u16> {
            let is_plain =
                digits == "0" || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| is_plain)
        };
        let (partition, partitions) = text.split_once('/').ok_or(ParsePartitionError)?;
        let (partition, partitions) = number(partition).zip(number(partitions)).ok_or(ParsePartitionError)?;
        let is_valid = is_number_of_partitions(partitions) && partition < partitions;
        if is_valid { Ok(Self { partition, partitions }) } else { Err(ParsePartitionError) }
    }
}

impl fmt::Display for PartitionOf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.partition, self.partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_of_a_stream_is_the_first_byte_of_a_hash() {
        // printf 'Order/42' | sha256sum
        assert_eq!(bucket("Order", "42"), 0x51);
    }

    #[test]
    fn a_stream_belongs_to_one_of_the_partitions() {
        for partitions in [1, 2, 16, 256] {
            let of = |n: u16| format!("{n}/{partitions}").parse::<PartitionOf>().expect("a partition");
            let having: Vec<u16> = (0..partitions).filter(|n| of(*n).has("Order", "42")).collect();
            assert_eq!(having, [0x51 % partitions]);
        }
    }

    #[test]
    fn a_partition_is_parsed_and_printed_unchanged() {
        for text in ["0/1", "1/2", "15/16", "255/256"] {
            assert_eq!(text.parse::<PartitionOf>().expect("a partition").to_string(), text);
        }
        for text in ["", "0", "0/0", "1/1", "0/3", "2/2", "0/512", "-1/2", "+1/2", "01/2", "0/02", "0/2/4", "a/b"] {
            assert_eq!(text.parse::<PartitionOf>(), Err(ParsePartitionError), "{text}");
        }
    }
}
