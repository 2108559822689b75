//! The client that a resource is counted for.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

tokio::task_local! {
    static CLIENT: ClientId;
}

/// A client that shares the resources of a process with others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientId {
    /// The service itself: its background tasks. It has no share, because its work is bounded.
    Service,
    /// An API key, by its id.
    Key(Arc<str>),
    /// An address, if the service requires no keys.
    Address(IpAddr),
}

impl ClientId {
    /// Returns the client at an address. One client usually has a whole IPv6 network of 64 bits (RFC 6177), so only
    /// these bits count.
    pub fn at_address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            address @ IpAddr::V4(_) => address,
        })
    }

    /// Returns the client that the current task works for; the service, if it works for no request.
    pub fn current() -> Self {
        CLIENT.try_with(Clone::clone).unwrap_or(Self::Service)
    }

    /// Runs a future for this client. What the future acquires counts for the client.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CLIENT.scope(self, future).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let client = |address: &str| ClientId::at_address(address.parse().expect("an address"));
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::2"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_task_works_for_the_service_unless_it_is_in_the_scope_of_a_client() {
        assert_eq!(ClientId::current(), ClientId::Service);
        let key = ClientId::Key("a".into());
        assert_eq!(key.clone().scope(async { ClientId::current() }).await, key);
    }
}
