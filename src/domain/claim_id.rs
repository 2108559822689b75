//! The ids of claims.

use std::fmt;
use std::str::FromStr;

use crate::domain::cursor::Epoch;
use crate::domain::partition::{PARTITIONS_MAX, Partition};

/// The id of a claim. Its text form is `epoch.partition.number`. The number increases with each claim of a partition, so a
/// worker can use it as a fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimId {
    pub epoch: Epoch,
    pub partition: Partition,
    pub number: i64,
}

/// A text is not the id of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of a claim, like 1.7.1042")]
pub struct ParseClaimIdError;

impl FromStr for ClaimId {
    type Err = ParseClaimIdError;

    fn from_str(text: &str) -> Result<Self, ParseClaimIdError> {
        let mut parts = text.split('.');
        let mut number = || -> Option<i64> {
            let digits = parts.next()?;
            // A number has one spelling, so that a claim has one URL.
            let is_plain =
                digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            digits.parse().ok().filter(|_| is_plain)
        };
        let (epoch, partition, number) = (number(), number(), number());
        let id = Self {
            epoch: epoch.and_then(|epoch| Epoch::try_from(epoch).ok()).ok_or(ParseClaimIdError)?,
            partition: partition.and_then(|partition| Partition::try_from(partition).ok()).ok_or(ParseClaimIdError)?,
            number: number.ok_or(ParseClaimIdError)?,
        };
        let is_valid = id.epoch > 0 && id.number > 0 && u16::try_from(id.partition).is_ok_and(|n| n < PARTITIONS_MAX);
        if is_valid && parts.next().is_none() { Ok(id) } else { Err(ParseClaimIdError) }
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.epoch, self.partition, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_parsed_and_printed_unchanged() {
        for text in ["1.7.1042", "218390293.0.1", "1.255.9007199254740991"] {
            assert_eq!(text.parse::<ClaimId>().expect("an id").to_string(), text);
        }
        for text in [
            "",
            "1.7",
            "1.7.1042.1",
            "0.7.1",
            "1.7.0",
            "1.256.1",
            "01.7.1",
            "1.7.-1",
            "1.7.+1",
            "a.b.c",
            "1..1",
            "1.7.1 ",
        ] {
            assert_eq!(text.parse::<ClaimId>(), Err(ParseClaimIdError), "{text}");
        }
    }
}
