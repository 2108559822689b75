//! The format of times: RFC 3339 in UTC with six digits.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};

/// Formats a time as RFC 3339 in UTC with six digits. Such texts sort by time.
pub fn format_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Appends a time in the same format. A page has many times, so this is faster than `format_time`, which would take
/// longer than the rest of the page.
pub fn write_time(out: &mut Vec<u8>, at: DateTime<Utc>) {
    let Ok(year @ 0..=9999) = u32::try_from(at.year()) else {
        return out.extend_from_slice(format_time(at).as_bytes());
    };
    // chrono represents a leap second as more than 999,999 microseconds.
    let micros = at.nanosecond() / 1_000;
    if micros > 999_999 {
        return out.extend_from_slice(format_time(at).as_bytes());
    }
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (number, last) in
        [(year, 3), (at.month(), 6), (at.day(), 9), (at.hour(), 12), (at.minute(), 15), (at.second(), 18), (micros, 25)]
    {
        let (mut number, mut digit) = (number, last);
        while number > 0 {
            text[digit] += (number % 10) as u8;
            number /= 10;
            digit = digit.wrapping_sub(1);
        }
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_chrono_writes_it() {
        let times = [
            "2026-11-23T05:56:44.527251Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "2016-12-31T23:59:60.5Z",
            "+12026-01-02T03:04:05.000006Z",
            "-0001-01-02T03:04:05Z",
        ];
        for text in times {
            let at: DateTime<Utc> = text.parse().expect("a time");
            let mut out = Vec::new();
            write_time(&mut out, at);
            assert_eq!(String::from_utf8(out), Ok(format_time(at)), "{text}");
        }
    }
}
