//! Ranges of names in the byte order, in which an index has them.

use crate::domain::access::Pattern;
use crate::domain::name::NAME_CHARS_MAX;

/// The names from `from` on and before `end`, in the byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRange {
    pub from: String,
    pub end: String,
}

impl NameRange {
    /// Returns the range of all names.
    pub fn all() -> Self {
        // Longer than every name that has the last character only.
        Self { from: String::new(), end: char::MAX.to_string().repeat(NAME_CHARS_MAX + 1) }
    }

    /// Returns the range of the names that begin with a prefix.
    pub fn of_prefix(prefix: &str) -> Self {
        // UTF-8 has the byte order of its characters. The last character has no next one.
        let mut end = prefix.trim_end_matches(char::MAX).to_owned();
        match end.pop() {
            Some(last) => {
                end.extend(next_char(last));
                Self { from: prefix.to_owned(), end }
            }
            None => Self { from: prefix.to_owned(), ..Self::all() },
        }
    }

    /// Returns the range of the one name.
    pub fn of_name(name: &str) -> Self {
        // Names have no control characters, so no other name is in between.
        Self { from: name.to_owned(), end: format!("{name}\u{1}") }
    }

    /// Returns the ranges of the names that patterns match, in order and without overlaps.
    pub fn of_patterns(patterns: &[Pattern]) -> Vec<Self> {
        let of_pattern = |pattern: &Pattern| {
            if pattern.is_prefix() { Self::of_prefix(pattern.text()) } else { Self::of_name(pattern.text()) }
        };
        let mut ranges: Vec<_> = patterns.iter().map(of_pattern).collect();
        ranges.sort_unstable_by(|one, other| one.from.cmp(&other.from));
        let mut merged: Vec<Self> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.from <= last.end => last.end = range.end.max(std::mem::take(&mut last.end)),
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Returns the names of the range that are not before `name`; `None` if there is none.
    pub fn starting_at(&self, name: &str) -> Option<Self> {
        let from = if name > self.from.as_str() { name } else { &self.from };
        (from < self.end.as_str()).then(|| Self { from: from.to_owned(), end: self.end.clone() })
    }
}

/// Returns the character after a character; `None` after the last one.
fn next_char(character: char) -> Option<char> {
    (character..=char::MAX).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, end: &str) -> NameRange {
        NameRange { from: from.to_owned(), end: end.to_owned() }
    }

    fn of_patterns(patterns: &[&str]) -> Vec<NameRange> {
        let patterns: Vec<Pattern> = patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
        NameRange::of_patterns(&patterns)
    }

    fn has(range: &NameRange, name: &str) -> bool {
        range.from.as_str() <= name && name < range.end.as_str()
    }

    #[test]
    fn a_range_has_exactly_the_names_that_begin_with_its_prefix() {
        let last = char::MAX.to_string();
        let with_last = format!("a{last}");
        for prefix in ["a", "ab", "z~", "é", "日本", "\u{d7ff}", &last, &with_last] {
            let range = NameRange::of_prefix(prefix);
            for suffix in ["", "!", "b", "\u{ffff}", &last.repeat(100)] {
                assert!(has(&range, &format!("{prefix}{suffix}")), "{prefix:?} {suffix:?}");
            }
            for other in ["Z", "aa", "b", "ac", "z", "z\u{7f}", "ê", "日本語", "日木", "\u{e000}", "a\u{10fffe}"]
            {
                assert_eq!(has(&range, other), other.starts_with(prefix), "{prefix:?} {other:?}");
            }
        }
        assert_eq!(NameRange::of_prefix("\u{d7ff}").end, "\u{e000}");
        assert_eq!(NameRange::of_prefix(""), NameRange::all());
        assert!(has(&NameRange::all(), &last.repeat(NAME_CHARS_MAX)));
        assert!(has(&NameRange::of_name("Order"), "Order") && !has(&NameRange::of_name("Order"), "Order "));
    }

    #[test]
    fn the_ranges_of_patterns_are_in_order_and_do_not_overlap() {
        assert_eq!(
            of_patterns(&["Order*", "Cart", "OrderLine", "Ord*"]),
            [range("Cart", "Cart\u{1}"), range("Ord", "Ore")]
        );
        assert_eq!(of_patterns(&["A*", "B*", "*", "Z"]), [NameRange::all()]);
        assert_eq!(of_patterns(&["B", "A", "A"]), [range("A", "A\u{1}"), range("B", "B\u{1}")]);
        assert!(of_patterns(&[]).is_empty());
    }

    #[test]
    fn a_range_starts_at_a_name_that_is_in_it() {
        let orders = range("Order", "Ordes");
        assert_eq!(orders.starting_at("Cart"), Some(orders.clone()));
        assert_eq!(orders.starting_at("OrderLine"), Some(range("OrderLine", "Ordes")));
        assert_eq!(orders.starting_at("Ordes"), None);
    }
}
