//! What people write to pick some of many: a Service, an address.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// A Service, or one port of it: `NAMESPACE/NAME[:PORT]`. Without a namespace, of any.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ServiceFilter(String);

impl FromStr for ServiceFilter {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl ServiceFilter {
    /// Says whether a Service port, as the ledger names it, is meant.
    pub(super) fn matches(&self, service: Option<&str>) -> bool {
        let Some(service) = service else { return false };
        let (_, without_namespace) = service.split_once('/').unwrap_or(("", service));
        [service, without_namespace].into_iter().any(|name| {
            name.strip_prefix(self.0.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    }
}

/// An address, or one port of it: `ADDRESS[:PORT]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AddressFilter {
    addr: IpAddr,
    port: Option<u16>,
}

/// Text that is no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("write ADDRESS or ADDRESS:PORT, such as 10.1.1.11, 10.1.1.11:8080 or [fd00::11]:8080")]
pub(super) struct NoAddress;

impl FromStr for AddressFilter {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if let Ok(addr) = text.parse() {
            return Ok(Self { addr, port: None });
        }
        let socket: SocketAddr = text.parse().map_err(|_| NoAddress)?;
        Ok(Self { addr: socket.ip(), port: Some(socket.port()) })
    }
}

impl AddressFilter {
    /// Says whether the socket is meant.
    pub(super) fn matches(self, socket: SocketAddr) -> bool {
        self.addr == socket.ip() && self.port.is_none_or(|port| port == socket.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_picked_by_name_with_or_without_namespace_and_port() {
        let matches = |filter: &str, service: &str| {
            filter.parse::<ServiceFilter>().unwrap().matches(Some(service))
        };
        for filter in ["shop/web", "web", "shop/web:http", "web:http"] {
            assert!(matches(filter, "shop/web:http"), "{filter}");
        }
        for filter in ["shop/we", "web:htt", "shop", "other/web", "http"] {
            assert!(!matches(filter, "shop/web:http"), "{filter}");
        }
        assert!(matches("shop/web", "shop/web"));
        assert!(!"web".parse::<ServiceFilter>().unwrap().matches(None));
    }

    #[test]
    fn an_address_is_picked_with_or_without_its_port() {
        let socket = "[fd00::11]:8080".parse().unwrap();
        for filter in ["fd00::11", "[fd00::11]:8080"] {
            assert!(filter.parse::<AddressFilter>().unwrap().matches(socket), "{filter}");
        }
        for filter in ["fd00::12", "[fd00::11]:80", "10.0.0.1"] {
            assert!(!filter.parse::<AddressFilter>().unwrap().matches(socket), "{filter}");
        }
        assert!("web".parse::<AddressFilter>().is_err());
    }
}
