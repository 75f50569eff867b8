//! Serves node ports at loopback addresses where they are asked for, and nowhere else.

use tracing::warn;

use super::facts;
use crate::{
    chain::chain,
    config::Settings,
    kernel::{
        bpf::{self, Localhost, PinDirectory},
        cgroup, namespace,
        node::Node,
    },
    ledger::{Ledger, Record},
};

/// Why node ports are not served at loopback addresses.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("read the cookie of the network namespace (Linux 5.14)")]
    Namespace(#[source] std::io::Error),
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    #[error(transparent)]
    Ledger(#[from] crate::ledger::Error),
}

/// Attaches what serves them, or takes off what an earlier agent left. Returns what stands in the
/// way: everything else is served all the same.
pub(super) fn load(settings: &Settings, node: &mut Node, ledger: &mut Ledger) -> Option<String> {
    if !facts::wants_localhost(settings) {
        let pins = PinDirectory::at(&settings.paths.bpffs);
        if let Err(error) = pins.remove_localhost() {
            warn!(event = "localhost_stays", %error, "node ports are still served on loopback");
        }
        return None;
    }
    match attach(settings, ledger) {
        Ok(localhost) => {
            node.localhost = Some(localhost);
            None
        }
        Err(error) => {
            let text =
                format!("node ports on loopback addresses are not served: {}", chain(&error));
            warn!(event = "localhost_off", "{text}");
            Some(text)
        }
    }
}

fn attach(settings: &Settings, ledger: &mut Ledger) -> Result<Localhost, Error> {
    let cgroup = cgroup::open_root()?;
    let namespace = namespace::cookie().map_err(Error::Namespace)?;
    let directory = settings.paths.bpffs.clone();
    ledger.record([Record::Pins { directory: directory.clone(), owned: true }])?;
    Ok(Localhost::attach(&directory, &cgroup, namespace)?)
}
