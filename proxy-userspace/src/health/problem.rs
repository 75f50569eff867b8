//! Health checks that cannot be answered.

use std::net::SocketAddr;

use rustix::io::Errno;

use crate::model::ServiceName;

/// Why a health check is not answered as somebody asked for. No problem is final.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Problem {
    /// Two Services ask for one port; the first by namespace and name has it.
    #[error(
        "Service {loser}: spec.healthCheckNodePort {port} is that of Service {winner} too, which \
         has it; create one of them anew, so that it gets another port"
    )]
    PortTaken {
        /// The port, host order.
        port: u16,
        /// Who has it.
        winner: ServiceName,
        /// Who does not.
        loser: ServiceName,
    },
    /// The port cannot be opened.
    #[error(
        "Service {service}: spec.healthCheckNodePort {port}: listen on {addr}: {cause}{}; trying \
         again", cure(*.cause, *.addr)
    )]
    ServiceNotListening {
        /// Whose port.
        service: ServiceName,
        /// The port, host order.
        port: u16,
        /// Where.
        addr: SocketAddr,
        /// Why not.
        cause: Cause,
    },
    /// `/metrics` cannot be answered.
    #[error("/metrics: listen on {addr}: {cause}{}; trying again", cure(*.cause, *.addr))]
    MetricsNotListening {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        cause: Cause,
    },
    /// The node's own health checks cannot be answered.
    #[error("health checks of the node: listen on {addr}: {cause}{}; trying again", cure(*.cause, *.addr))]
    NodeNotListening {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        cause: Cause,
    },
}

/// An error number, in the order of its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub Errno);

impl Ord for Cause {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.raw_os_error().cmp(&other.0.raw_os_error())
    }
}

impl PartialOrd for Cause {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn cure(cause: Cause, addr: SocketAddr) -> String {
    match cause.0 {
        Errno::ADDRINUSE => {
            format!(" (see who has it: `ss -ltnp 'sport = :{}'`)", addr.port())
        }
        Errno::ADDRNOTAVAIL => " (no interface has the address)".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_opened_is_named_with_its_service_its_cause_and_its_cure() {
        let service = ServiceName { namespace: "shop".into(), name: "web".into() };
        let addr = "[::]:32000".parse().unwrap();
        let cause = Cause(Errno::ADDRINUSE);
        assert_eq!(
            Problem::ServiceNotListening { service, port: 32000, addr, cause }.to_string(),
            "Service shop/web: spec.healthCheckNodePort 32000: listen on [::]:32000: Address \
             already in use (os error 98) (see who has it: `ss -ltnp 'sport = :32000'`); trying \
             again"
        );
    }
}
