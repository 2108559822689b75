//! The host of a request: `Host`, or the authority of a request target that is a URL (RFC 9112, section 3.2.2).
//!
//! A web page can change the address of its own name to the address of the service, for example to loopback (DNS
//! rebinding). The browser of a user then sends the requests of the page to the service, and shows the responses to the
//! page. These requests name the host of the page. So a service without API keys accepts only hosts that no page can
//! have: IP addresses, `localhost`, and the names that the operator lists. With API keys, such a page has no key.
//!
//! Every route of every address has the same check, which takes precedence over authentication.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::Version;

use crate::app::Settings;
use crate::http::extract::headers::single;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// The header of the host.
const HOST: &str = "Host";
/// The length of the longest name (RFC 3986, section 3.2.2).
const NAME_BYTES_MAX: usize = 255;

/// A host (RFC 3986, section 3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host<'h> {
    /// An IP address.
    Address,
    /// A name, without a dot at its end.
    Name(&'h str),
}

/// Fails if a request names no host or several, or a host that the service does not serve.
pub fn check_host(settings: &Settings, request: &Request) -> ApiResult<()> {
    let in_header = host_in_header(request)?;
    let host = match request.uri().authority() {
        Some(authority) => {
            let host = Host::parse(authority.host());
            let fault = || ApiError::invalid(FieldError::path("path", "is a URL with a host that is not valid"));
            Some(host.ok_or_else(fault)?)
        }
        None => in_header,
    };
    match host {
        Some(Host::Name(name)) if !settings.needs_keys && !is_served(name, &settings.hosts) => {
            Err(ApiError::host_refused(name))
        }
        _ => Ok(()),
    }
}

/// Returns the host in the header. HTTP/1.0 does not require the header.
fn host_in_header(request: &Request) -> ApiResult<Option<Host<'_>>> {
    let invalid = |detail| ApiError::invalid(FieldError::header(HOST, detail));
    match single(request.headers(), HOST)? {
        Some(value) => {
            let host = value.to_str().ok().and_then(Host::parse);
            Ok(Some(host.ok_or_else(|| invalid("must be a host name or an IP address, and perhaps a port"))?))
        }
        None if request.version() < Version::HTTP_11 => Ok(None),
        None => Err(invalid("is required")),
    }
}

/// Returns whether a service without API keys serves a name.
fn is_served(name: &str, listed: &[String]) -> bool {
    name.eq_ignore_ascii_case("localhost") || listed.iter().any(|host| name.eq_ignore_ascii_case(host))
}

impl<'h> Host<'h> {
    /// Parses a host and perhaps a port: `uri-host [ ":" port ]` of RFC 9110, section 7.2.
    fn parse(text: &'h str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            // A link-local address may name an interface (RFC 6874).
            let (address, interface) = address.split_once('%').unwrap_or((address, ""));
            address.parse::<Ipv6Addr>().ok()?;
            let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return (is_port && is_name(interface)).then_some(Self::Address);
        }
        let (name, port) = text.split_once(':').unwrap_or((text, ""));
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_valid = !name.is_empty() && name.len() <= NAME_BYTES_MAX && is_name(name) && is_port(port);
        let is_address = name.parse::<Ipv4Addr>().is_ok();
        is_valid.then_some(if is_address { Self::Address } else { Self::Name(name) })
    }
}

/// Returns whether a text is a port, which may be empty.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether a text has the characters of a name: `reg-name` of RFC 3986.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().flatten().filter(|digit| digit.is_ascii_hexdigit()).count() == 2
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_other_form_than_that_of_its_family() {
        for text in ["127.0.0.1", "10.0.0.7:8080", "127.0.0.1.", "[::1]", "[::1]:8080", "[::1]:", "[fe80::1%25eth0]:80"]
        {
            assert_eq!(Host::parse(text), Some(Host::Address), "{text}");
        }
        // Browsers write an address in decimals, so other forms of numbers are names.
        for name in ["2130706433", "0x7f.1", "127.1", "127.0.0.01", "1.2.3.4.5", "127.0.0.1.example"] {
            assert_eq!(Host::parse(name), Some(Host::Name(name)), "{name}");
        }
    }

    #[test]
    fn the_port_and_the_dot_at_the_end_are_not_part_of_a_name() {
        for text in ["annals", "annals:80", "annals:", "annals.", "annals.:80"] {
            assert_eq!(Host::parse(text), Some(Host::Name("annals")), "{text}");
        }
        assert_eq!(Host::parse("a%C3%A4-_~!b"), Some(Host::Name("a%C3%A4-_~!b")));
        assert_eq!(Host::parse(&"x".repeat(255)), Some(Host::Name(&"x".repeat(255))));
    }

    #[test]
    fn a_text_that_is_no_host_is_refused() {
        let long = "x".repeat(256);
        for text in [
            "",
            ".",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "http://a",
            "a:b",
            "a:80:80",
            "::1",
            "[]",
            "[::1",
            "::1]",
            "[a]",
            "[127.0.0.1]",
            "[::1]80",
            "[::1]:x",
            "[::1%e h]",
            "%",
            "%4",
            "%zz",
            "\"a\"",
            "a\\b",
            "ä",
            &long,
        ] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_compared_as_a_whole_and_without_case() {
        let listed = ["annals.example".to_owned()];
        for name in ["localhost", "LocalHost", "annals.example", "ANNALS.example"] {
            assert!(is_served(name, &listed), "{name}");
        }
        for name in ["app.localhost", "localhost.example", "example", "b.annals.example", "annals.example.org"] {
            assert!(!is_served(name, &listed), "{name}");
        }
    }
}
