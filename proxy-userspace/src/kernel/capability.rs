//! What this process may do beyond an ordinary one, and giving up what it has no use for.
//!
//! Capabilities belong to threads: a thread has those of the one that started it. So this is for a
//! process that has one thread yet.

use std::{fmt, io};

use rustix::{
    io::Errno,
    thread::{
        self, CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
        clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_no_new_privs,
    },
};

/// A capability that may be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capability {
    /// To make maps, and load and look at programs.
    Bpf,
    /// To configure the network: IPVS, nft, links, routes, conntrack; to attach programs.
    NetAdmin,
    /// To load programs that the verifier trusts with pointers.
    Perfmon,
    /// To listen at ports below 1024.
    NetBindService,
    /// To open raw sockets, as programs of the older iptables do.
    NetRaw,
    /// To read files of other users.
    DacReadSearch,
}

impl Capability {
    fn bit(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetRaw => "CAP_NET_RAW",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
        })
    }
}

/// The kernel did not take a set of capabilities.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of this process")]
pub struct Error {
    operation: &'static str,
    source: io::Error,
}

fn failed(operation: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error { operation, source: errno.into() }
}

/// Returns those of these capabilities that this thread does not have.
///
/// # Errors
///
/// [`Error`] when the kernel does not tell.
pub fn missing(wanted: &[Capability]) -> Result<Vec<Capability>, Error> {
    let held = own()?.effective;
    Ok(wanted.iter().copied().filter(|each| !held.contains(each.bit())).collect())
}

/// Gives up all capabilities but these, for this thread and for whatever it starts: threads, and
/// programs such as `nft`. Those that it does not have it does not get.
///
/// # Errors
///
/// [`Error`]; what was given up until then stays so.
pub fn keep_only(wanted: &[Capability]) -> Result<(), Error> {
    let sets = own()?;
    let kept = wanted.iter().fold(CapabilitySet::empty(), |kept, each| kept | each.bit());
    // Nothing that is started can get back what is given up here, whatever file it is.
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        shrink_bounding_set(kept)?;
    }
    let kept = kept & sets.permitted;
    clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    let within_bounds = |bit: &CapabilitySet| capability_is_in_bounding_set(*bit) == Ok(true);
    let inheritable: CapabilitySet = kept.iter().filter(within_bounds).collect();
    set(CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    // A program that root starts has what it may have by that alone; one of another user has not.
    for bit in inheritable.iter() {
        configure_capability_in_ambient_set(bit, true)
            .map_err(failed("set the ambient capabilities"))?;
    }
    Ok(())
}

/// Runs something without the capabilities that lift permissions of files.
///
/// # Errors
///
/// [`Error`]; they stay given up when the kernel does not give them back.
pub fn without_file_privileges<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    let before = own()?;
    let lifting = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE;
    set(CapabilitySets { effective: before.effective - lifting, ..before })?;
    let done = work();
    set(before)?;
    Ok(done)
}

fn own() -> Result<CapabilitySets, Error> {
    thread::capabilities(None).map_err(failed("read the capabilities"))
}

fn set(sets: CapabilitySets) -> Result<(), Error> {
    thread::set_capabilities(None, sets).map_err(failed("set the capabilities"))
}

/// Removes everything else from what any program started from here may ever have.
fn shrink_bounding_set(kept: CapabilitySet) -> Result<(), Error> {
    for number in 0..u64::BITS {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(bit) {
            Ok(true) if !kept.contains(bit) => remove_capability_from_bounding_set(bit)
                .map_err(failed("shrink the capability bounding set"))?,
            Ok(_) => {}
            // Beyond the last one that this kernel knows.
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sets of this thread, as /proc has them.
    fn line(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    /// On a thread of its own, which ends with what it did to itself.
    fn apart(work: impl FnOnce() + Send + 'static) {
        std::thread::spawn(work).join().unwrap();
    }

    #[test]
    fn what_is_given_up_is_gone_from_every_set_and_what_is_kept_was_there() {
        apart(|| {
            let before = line("CapPrm");
            keep_only(&[Capability::NetAdmin, Capability::Bpf]).unwrap();
            let wanted = (CapabilitySet::NET_ADMIN | CapabilitySet::BPF).bits();
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(line(set), before & wanted, "{set}");
            }
            if before & CapabilitySet::SETPCAP.bits() != 0 {
                assert_eq!(line("CapBnd") & !wanted, 0);
            }
            assert_eq!(missing(&[Capability::Perfmon]).unwrap(), [Capability::Perfmon]);
        });
    }

    #[test]
    fn a_program_that_is_started_has_no_more_than_what_was_kept() {
        apart(|| {
            let before = line("CapPrm");
            keep_only(&[Capability::NetAdmin]).unwrap();
            let output = std::process::Command::new("cat").arg("/proc/self/status").output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
            let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
            assert_eq!(effective, before & CapabilitySet::NET_ADMIN.bits());
        });
    }

    #[test]
    fn file_privileges_come_back() {
        apart(|| {
            let before = line("CapEff");
            let within = without_file_privileges(|| line("CapEff")).unwrap();
            let lifting = (CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE).bits();
            assert_eq!(within, before & !lifting);
            assert_eq!(line("CapEff"), before);
        });
    }
}
