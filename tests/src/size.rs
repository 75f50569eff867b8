//! The size of made-up clusters, as benches take it.

use std::{fmt, str::FromStr};

/// How many Services, and endpoints of each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Services.
    pub services: u32,
    /// Endpoints of each, in one slice.
    pub endpoints: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.services, self.endpoints)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text}: write a size as SERVICESxENDPOINTS, such as 1000x4");
        let (services, endpoints) = text.split_once('x').ok_or_else(wrong)?;
        let number = |text: &str, most| {
            text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(wrong)
        };
        // NodePorts, cluster IPs and slices have room for so many.
        Ok(Self { services: number(services, 55_000)?, endpoints: number(endpoints, 100)? })
    }
}
