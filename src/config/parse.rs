//! Parsers for the values of settings.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Returns the value of a setting. An empty one counts as not set. A line break at the end comes from the file of a
/// secret and is not a part of the value.
pub fn non_empty(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(|value| value.trim_end_matches(['\r', '\n'])).filter(|value| !value.is_empty())
}

/// Parses a duration longer than 0s.
pub fn duration(value: &str) -> Result<Duration, String> {
    let duration = duration_or_zero(value)?;
    if duration.is_zero() { Err("must be longer than 0s".to_owned()) } else { Ok(duration) }
}

/// Parses a duration.
pub fn duration_or_zero(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value).map_err(|_| "must be a length of time like 500ms, 30s, 2m or 365d".to_owned())
}

/// Parses the address of a server: an IP address or a host name, and a port. If a name has several addresses, an IPv4
/// address is preferred.
pub fn address(value: &str) -> Result<SocketAddr, String> {
    let value = value.trim_end_matches(['\r', '\n']);
    if let Ok(address) = value.parse() {
        return Ok(address);
    }
    let example = "write a host and a port, like 127.0.0.1:8080, localhost:8080, [::1]:8080 or 0.0.0.0:8080";
    let has_host = value.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty());
    let found: Vec<SocketAddr> = match value.to_socket_addrs() {
        Ok(found) if has_host => found.collect(),
        Err(error) if has_host && error.kind() != std::io::ErrorKind::InvalidInput => {
            return Err(format!("the host cannot be resolved ({error}): {example}"));
        }
        _ => return Err(example.to_owned()),
    };
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| format!("the host has no address: {example}"))
}

/// Returns a parser of whole numbers in a range.
pub fn whole_number<N>(range: RangeInclusive<N>) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static
where
    N: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |value: &str| {
        let number = value.parse::<N>().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}
