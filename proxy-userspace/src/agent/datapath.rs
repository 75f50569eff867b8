//! Brings the fast path up, or says why it stays down. Never a reason not to start.

use proxy_common::abi::capacity;
use tracing::{info, warn};

use super::{Agent, sysctls};
use crate::{
    chain::chain,
    config::Settings,
    kernel::{
        bpf::{Datapath, Error, LoadOptions, Maps, PinDirectory, detach_filters},
        capability::{self, Capability},
        link, memory,
        node::Node,
    },
    ledger::{Ledger, Record},
    model::FastPath,
    status::FastPathReport,
};

/// The clients of one interface may cause no more new entries in a second than this part of the
/// flow map: it then takes longer than the hard lease to push out the entries of all others.
const INSTALL_SHARE: u32 = 8;
/// The flow maps of both families take no more than this part of the memory.
const MEMORY_SHARE: u64 = 200;
/// Bytes of an entry in both families together, as the kernel allocates them.
const ENTRY_BYTES: u64 = 176 + 224;

impl Agent {
    /// Makes the filter that of what the maps hold. Until it is, a packet may go the slow way that
    /// need not, or be looked up in vain.
    pub(super) fn refilter(&mut self) {
        let Some(datapath) = &mut self.node.datapath else { return };
        let observed = &self.observed;
        let frontends = observed.frontends.keys().map(|each| (each.addr, each.port, each.protocol));
        let backends = observed.backends.keys().map(|each| (each.addr, each.port, each.protocol));
        if let Err(error) = datapath.maps.filter.rebuild(frontends.chain(backends)) {
            let error = chain(&error);
            warn!(event = "filter_failed", error, "packets of Services may be slow");
        }
        self.audit.refiltered();
    }
}

/// Returns how many flow entries suit a node of so many bytes of memory: a power of two, so that a
/// little more or less memory asks for the same map, and at most [`capacity::FLOWS`]: who wants more
/// says so.
fn entries_for(memory: u64) -> u32 {
    let fitting = (memory / MEMORY_SHARE / ENTRY_BYTES).max(1);
    let entries = 1_u64 << fitting.ilog2();
    (entries as u32).clamp(capacity::LEAST_FLOWS, capacity::FLOWS)
}

/// Says whether there shall be no fast path anywhere: a rule may ask for it on some interface only.
pub(super) fn is_off(settings: &Settings) -> bool {
    let modes = settings.interface_modes.iter().map(|rule| rule.mode);
    modes.chain([settings.fast_path]).all(|mode| mode == FastPath::Off)
}

/// Loads the datapath into the node as far as it can be, and ends what nobody would keep up to date:
/// programs of another version, and all of them when there shall be none.
pub(super) async fn load(
    settings: &Settings,
    node: &mut Node,
    ledger: &mut Ledger,
) -> FastPathReport {
    let report = |mode: &str, reason: String| FastPathReport {
        mode: mode.into(),
        reason,
        ..FastPathReport::default()
    };
    if is_off(settings) {
        end(settings, node, ledger, End::All).await;
        return report("off", "--fast-path off".into());
    }
    end(settings, node, ledger, End::OtherVersions).await;
    let mut only_observe = false;
    let mut reason = match settings.fast_path {
        FastPath::Auto => String::new(),
        mode => format!("--fast-path {}", mode.word()),
    };
    if let Err(error) = sysctls::apply_for_fast_path(ledger, settings) {
        warn!(event = "fast_path_observe", %error, "the fast path only observes");
        only_observe = true;
        reason = error.to_string();
    }
    let opened = match lacking() {
        Some(why) => Err(why),
        None => open(settings, ledger).map_err(|error| chain(&error)),
    };
    match opened {
        Ok(datapath) => {
            node.datapath = Some(datapath);
            let observe = only_observe || settings.fast_path == FastPath::Observe;
            let report = report(if observe { "observe" } else { "on" }, reason);
            FastPathReport { only_observe, ..report }
        }
        Err(text) => {
            warn!(event = "fast_path_off", error = text, "the slow path does everything");
            // What an earlier agent left would go on by what nobody keeps up to date.
            end(settings, node, ledger, End::All).await;
            report("off", text)
        }
    }
}

/// Returns what is missing for want of privileges, with the cure.
pub(super) fn lacking() -> Option<String> {
    let missing = match capability::missing(&[Capability::Bpf, Capability::Perfmon]) {
        Ok(missing) => missing,
        Err(error) => return Some(chain(&error)),
    };
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    (!missing.is_empty()).then(|| {
        let missing = missing.join(" and ");
        format!("{missing} missing: run as root, or give it to the container or the unit")
    })
}

/// What an earlier agent left, and shall end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    OtherVersions,
    All,
}

/// Ends programs of ours that are still attached. Their flows go on by the slow path.
async fn end(settings: &Settings, node: &Node, ledger: &Ledger, what: End) {
    let directory = &settings.paths.bpffs;
    if !ledger.owned().pins.contains(directory) {
        return;
    }
    let pins = PinDirectory::at(directory);
    let found = pins.remove_other_versions().and_then(|found| match what {
        End::OtherVersions => Ok(found),
        End::All => pins.remove_fast_path().map(|()| true),
    });
    match found {
        Ok(false) => {}
        // Links ended with their pins. Filters of clsact are found by their place.
        Ok(true) => match node.links.interfaces().await {
            Ok(present) => present.iter().for_each(|interface| detach_filters(&interface.name)),
            Err(error) => warn!(event = "end_failed", %error, "interfaces cannot be read"),
        },
        Err(error) => warn!(event = "end_failed", %error, "programs of an earlier agent go on"),
    }
}

fn open(settings: &Settings, ledger: &mut Ledger) -> Result<Datapath, Error> {
    let flow_entries = settings.flow_entries.unwrap_or_else(|| entries_for(memory::total()));
    let options = LoadOptions {
        bpffs: settings.paths.bpffs.clone(),
        flow_entries,
        ipv6: !super::facts::no_ipv6(),
        install_rate: settings.install_rate.unwrap_or(flow_entries / INSTALL_SHARE),
        soft_lease: settings.soft_lease,
        hard_lease: settings.hard_lease,
        log: settings.log_datapath,
    };
    let directory = settings.paths.bpffs.clone();
    let ours = ledger.owned().pins.contains(&directory);
    let record = Record::Pins { directory: directory.clone(), owned: true };
    if !ours && PinDirectory::at(&directory).versioned().exists() {
        // Maps that fit may be kept all the same; they become ours with the record.
        info!(event = "pins_found", path = %directory.display(), "pins without a record are there");
    }
    let loaded = match Datapath::load(&options) {
        Err(Error::PinMismatch(mismatch)) if ours => {
            // Ours, of other sizes: flow entries are a cache, the rest is written anew.
            info!(event = "pins_replaced", %mismatch, "pinned maps are made anew");
            remove_pins(&directory)?;
            Datapath::load(&options)
        }
        result => result,
    }?;
    if let Err(error) = ledger.record([record]) {
        warn!(event = "ledger_failed", %error, "cleanup will not know of the pins");
    }
    Ok(loaded)
}

/// Removes our pins and with them the TCX links; clsact filters stay with their interface, so they
/// are taken off first.
fn remove_pins(directory: &std::path::Path) -> Result<(), Error> {
    let pins = PinDirectory::at(directory);
    let interfaces = Maps::open(&pins).and_then(|maps| maps.interfaces()).unwrap_or_default();
    for name in interfaces.into_iter().filter_map(|(index, _)| link::name(index)) {
        detach_filters(&name);
    }
    pins.remove_pins().map_err(|source| Error::PinDirectory { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_maps_take_a_small_part_of_the_memory() {
        const GIB: u64 = 1 << 30;
        assert_eq!(entries_for(0), 1 << 10);
        assert_eq!(entries_for(2 * GIB), 1 << 14);
        assert_eq!(entries_for(8 * GIB), 1 << 16);
        assert_eq!(entries_for(24 * GIB), 1 << 18);
        assert_eq!(entries_for(4096 * GIB), 1 << 18);
    }
}
