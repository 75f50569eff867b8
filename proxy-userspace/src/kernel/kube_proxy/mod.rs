//! kube-proxy on this node: whether one runs, and what one has left.
//!
//! | part | |
//! |---|---|
//! | [`live`] | a process, or ports that are answered |
//! | [`chains`] | which of iptables' chains and rules are its own; no I/O |
//! | [`legacy`] | the same in the kernel's older iptables |
//! | [`sets`] | its ip sets |

pub mod chains;
pub mod legacy;
pub mod live;
pub mod sets;

use super::nft::{self, Ruleset};
use crate::model::Estate;

/// An error of looking for kube-proxy's remains, or of removing them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nft.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// ip sets.
    #[error(transparent)]
    Sets(#[from] sets::Error),
    /// iptables-legacy.
    #[error(transparent)]
    Legacy(#[from] legacy::Error),
}

/// What kube-proxy has left beside IPVS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Remains {
    /// Its chains, as `ip nat KUBE-SERVICES`.
    pub chains: Vec<String>,
    /// Its ip sets.
    pub sets: Vec<String>,
    /// Tables of the kernel's older iptables that have chains of it, as `ip nat`.
    pub legacy: Vec<String>,
    /// Chains of its `iptables` mode are there, or the table of its `nftables` mode: what they
    /// translate never reaches IPVS.
    pub other_mode: Option<String>,
}

impl Remains {
    /// Says whether there is anything of the `ipvs` mode.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty() && self.legacy.is_empty()
    }

    /// Says whether they are those of a kube-proxy that has served, and nobody has cleared away yet:
    /// single chains may have been left on purpose.
    pub fn tell_of_service(&self) -> bool {
        !self.sets.is_empty()
            || self.chains.iter().any(|chain| chain.ends_with(" KUBE-SERVICES"))
            || self.legacy.iter().any(|table| table.ends_with(" nat"))
    }

    /// Looks for them.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn find(ruleset: &Ruleset) -> Result<Self, Error> {
        let found = ruleset.chains().await?;
        let tables = ruleset.foreign_tables().await?;
        let names = |chain: &&nft::FoundChain| chains::is_of_ipvs_mode(&chain.table, &chain.name);
        Ok(Self {
            chains: found.iter().filter(names).map(ToString::to_string).collect(),
            sets: sets::Sets::open()?.names().await?,
            legacy: legacy::tables(),
            other_mode: chains::other_mode(&found, &tables),
        })
    }

    /// Returns how they are told to an operator.
    pub fn summary(&self) -> String {
        let count = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        let parts = [
            count(self.chains.len(), "chains"),
            count(self.legacy.len(), "tables of iptables-legacy"),
            count(self.sets.len(), "ip sets"),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Returns what kube-proxy's ip sets say is its own.
///
/// # Errors
///
/// The kernel did not say.
pub async fn estate() -> Result<Estate, Error> {
    Ok(sets::Sets::open()?.estate().await?)
}

/// Removes kube-proxy's chains, all at one moment, and then its ip sets. Returns what stays, a
/// sentence each: what others use, or connections need.
///
/// # Errors
///
/// The first refusal; everything may be tried again.
pub async fn clear_away(ruleset: &Ruleset) -> Result<Vec<String>, Error> {
    let mut kept = Vec::new();
    let found = ruleset.chains().await?;
    if found.iter().any(|chain| chains::is_of_ipvs_mode(&chain.table, &chain.name)) {
        let removal = chains::Removal::of(&found, &ruleset.jumps("KUBE-").await?);
        nft::remove_chains(&removal.rules, &removal.chains).await?;
        kept.extend(removal.kept);
    }
    kept.extend(legacy::clear_away()?);
    kept.extend(sets::Sets::open()?.clear_away().await?);
    Ok(kept)
}
