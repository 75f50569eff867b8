//! The client: one `nft` process per call.

use std::collections::BTreeSet;

use nftables::{
    helper::{self, NftablesError},
    schema::{NfCmd, NfListObject, NfObject, Nftables, Table as NftTable},
    types::NfFamily,
};

use super::{
    elements,
    error::{Error, Operation},
    observe::{self, Observed, Reading},
    ruleset,
};
use crate::model::{Element, RuleOptions};

/// The table `inet passlane` of the network namespace that the calling thread is in.
#[derive(Clone, Copy, Debug)]
pub struct Table(());

impl Table {
    /// Looks for a usable `nft` in `PATH`.
    ///
    /// Fails with [`Error::NftMissing`] or [`Error::NoJson`], and when nft may not be used.
    pub async fn open() -> Result<Self, Error> {
        list(Operation::Probe, ["list", "tables"]).await?;
        Ok(Self(()))
    }

    /// Reads the table, and compares its rules with those of these options; `None` when there is
    /// none.
    pub async fn observe(&self, options: &RuleOptions) -> Result<Option<Observed>, Error> {
        let operation = Operation::Observe;
        let arguments = ["list", "table", "inet", ruleset::TABLE];
        match list(operation, arguments).await {
            Ok(json) => Ok(Some(match serde_json::from_str::<Nftables<'_>>(&json) {
                Ok(listing) => observe::observe(&listing, options),
                // Someone put rules there that the schema does not know: not ours any more.
                Err(_) => Observed { elements: BTreeSet::new(), current: false },
            })),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the table with whatever rules it has; `None` when there is none.
    pub async fn read(&self) -> Result<Option<Reading>, Error> {
        let operation = Operation::Observe;
        let arguments = ["list", "table", "inet", ruleset::TABLE];
        match list(operation, arguments).await {
            Ok(json) => serde_json::from_str::<Nftables<'_>>(&json)
                .map(|listing| Some(observe::read(&listing)))
                .map_err(|cause| Error::Unreadable { operation, cause }),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the table, or creates it, with exactly these rules and elements. One transaction: packets see
    /// the old rules or the new ones. Counters restart.
    pub async fn install(
        &self,
        options: &RuleOptions,
        elements: &BTreeSet<Element>,
    ) -> Result<(), Error> {
        // The first command makes the second succeed when there is no table yet.
        let mut commands = vec![NfCmd::Add(table()), NfCmd::Delete(table()), NfCmd::Add(table())];
        commands.extend(ruleset::objects(options).into_iter().map(NfCmd::Add));
        commands.extend(additions(elements));
        apply(Operation::Install, commands).await
    }

    /// Removes and adds elements in one transaction. What is in both is there afterwards. Adding
    /// the present and removing the absent succeed, but for ranges and what has a value: these are
    /// removed only where they are.
    pub async fn change(
        &self,
        added: &BTreeSet<Element>,
        removed: &BTreeSet<Element>,
    ) -> Result<(), Error> {
        // nft refuses to remove the absent: add it first. It refuses as well to put a range into
        // the place of one that was added in the same transaction: those have to be there.
        let ranges =
            |element: &&Element| matches!(element, Element::PodCidr(_) | Element::ServiceCidr(_));
        let first = removed.iter().filter(|element| !ranges(element)).copied().collect();
        let removals = elements::to_nft(removed).into_iter().map(NfListObject::Element);
        let mut commands: Vec<_> = additions(&first).chain(removals.map(NfCmd::Delete)).collect();
        commands.extend(additions(added));
        if commands.is_empty() {
            return Ok(());
        }
        apply(Operation::Change, commands).await
    }

    /// Removes the table; succeeds when there is none.
    pub async fn remove(&self) -> Result<(), Error> {
        apply(Operation::Remove, vec![NfCmd::Add(table()), NfCmd::Delete(table())]).await
    }
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(NftTable {
        family: NfFamily::INet,
        name: ruleset::TABLE.into(),
        handle: None,
    })
}

fn additions(elements: &BTreeSet<Element>) -> impl Iterator<Item = NfCmd<'static>> + use<> {
    elements::to_nft(elements).into_iter().map(NfListObject::Element).map(NfCmd::Add)
}

pub(super) async fn apply(operation: Operation, commands: Vec<NfCmd<'_>>) -> Result<(), Error> {
    let objects: Vec<_> = commands.into_iter().map(NfObject::CmdObject).collect();
    let ruleset = Nftables { objects: objects.into() };
    helper::apply_ruleset_async(&ruleset).await.map_err(|error| Error::of(operation, error))
}

pub(super) async fn list<const N: usize>(
    operation: Operation,
    arguments: [&str; N],
) -> Result<String, Error> {
    let result: Result<String, NftablesError> =
        helper::get_current_ruleset_raw_async(helper::DEFAULT_NFT, arguments).await;
    result.map_err(|error| Error::of(operation, error))
}
