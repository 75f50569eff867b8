//! `passlane cleanup --leave-forwarding`: what goes before a kube-proxy takes the node back, and
//! what has to stay for its connections.
//!
//! kube-proxy takes every virtual server in IPVS and every address of its device for its own, so both
//! stay, and VIPs that were routes become addresses. Translations of connections are in conntrack.
//! New ones have to be masqueraded and source ranges kept before kube-proxy's first pass as well: a
//! part of our nft table stays for that, unless kube-proxy has its own rules already.

use super::Cleanup;
use crate::{
    chain::chain,
    cli::Failure,
    kernel::{kube_proxy, nft, node, route::Routes},
    ledger::{Owned, Record},
    model::{Element, RuleOptions},
};

/// The chain by which kube-proxy masquerades.
const POSTROUTING: &str = "KUBE-POSTROUTING";
const LOOPBACK: &str = "lo";

impl Cleanup {
    /// Lets go of everything that carries connections, in the order in which it may be interrupted.
    pub(super) async fn leave(&mut self, owned: &Owned) -> Result<(), Failure> {
        self.fast_path(owned).await?;
        self.sync_daemons(owned).await?;
        self.vips_become_addresses().await?;
        self.leave_nat_table(owned).await?;
        if self.left > 0 {
            return Ok(());
        }
        let records = owned
            .virtual_servers
            .keys()
            .map(|frontend| Record::VirtualServer { frontend: *frontend, service: None });
        let mut records: Vec<Record> = records.collect();
        records.extend(owned.addresses.iter().map(|(device, addrs)| Record::Addresses {
            device: device.clone(),
            addrs: addrs.iter().copied().collect(),
            owned: false,
        }));
        let devices = owned.devices.iter();
        records.extend(devices.map(|name| Record::Device { name: name.clone(), owned: false }));
        let sysctls = owned.sysctls.keys();
        records.extend(sysctls.map(|key| Record::Sysctl { key: key.clone(), change: None }));
        records.push(Record::IpvsTimeouts { change: None });
        self.ledger.record(records)?;
        if !owned.sysctls.is_empty() {
            let keys: Vec<&str> = owned.sysctls.keys().map(String::as_str).collect();
            eprintln!("passlane: connections need these settings, which stay: {}", keys.join(", "));
        }
        Ok(())
    }

    /// An address first, then the route away: the VIP is local at every moment.
    async fn vips_become_addresses(&mut self) -> Result<(), Failure> {
        let routes = Routes::open().map_err(node::Error::from)?;
        for interface in self.links.interfaces().await.map_err(node::Error::from)? {
            let vips = routes.vips(interface.index).await.map_err(node::Error::from)?;
            let vips: Vec<_> = vips.into_iter().collect();
            if vips.is_empty() {
                continue;
            }
            // What stands in on the loopback device is on the other one as well.
            if interface.name != LOOPBACK
                && let Err(error) = self.links.put_addresses(interface.index, &vips).await
            {
                self.stay(format!("VIPs on {} stay routes", interface.name), &error);
                continue;
            }
            if let Err(error) = routes.remove_vips(interface.index, &vips).await {
                self.stay(format!("routes on {} stay", interface.name), &error);
            }
        }
        Ok(())
    }

    fn stay(&mut self, what: String, error: &(dyn std::error::Error + 'static)) {
        eprintln!("passlane: {what}: {}", chain(error));
        self.left += 1;
    }

    async fn leave_nat_table(&mut self, owned: &Owned) -> Result<(), Failure> {
        if !owned.nat_table {
            return Ok(());
        }
        if kube_proxy_masquerades().await {
            return self.nat_table(owned).await;
        }
        match cut_down().await {
            Ok(()) => eprintln!(
                "passlane: nft table inet {} stays, cut down to masquerading and source ranges: \
                 run passlane cleanup once more when kube-proxy has started",
                nft::TABLE
            ),
            Err(error) => self.stay(format!("nft table inet {} stays whole", nft::TABLE), &error),
        }
        Ok(())
    }
}

async fn kube_proxy_masquerades() -> bool {
    let chains = match nft::Ruleset::open() {
        Ok(ruleset) => ruleset.chains().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    chains.iter().any(|chain| chain.table == "nat" && chain.name == POSTROUTING)
        || kube_proxy::legacy::tables().iter().any(|table| table.ends_with(" nat"))
}

/// Replaces the table in one transaction.
async fn cut_down() -> Result<(), nft::Error> {
    let table = nft::Table::open().await?;
    let Some(held) = table.read().await? else { return Ok(()) };
    let rules = RuleOptions { reject_unassigned: false, ..held.rules };
    table.install(&rules, &held.elements.into_iter().filter(is_needed).collect()).await
}

/// Says whether new connections would be masqueraded or admitted differently without an element.
fn is_needed(element: &Element) -> bool {
    match element {
        Element::Vip(_)
        | Element::ClusterIp(_)
        | Element::Masquerade(_)
        | Element::Hairpin(_)
        | Element::PodCidr(_)
        | Element::Ranged(_)
        | Element::RangedHost(_)
        | Element::Source(..)
        | Element::InterimSource(..) => true,
        Element::Reject(_)
        | Element::Drop(_)
        | Element::Inside(..)
        | Element::Shadow(_)
        | Element::ServiceCidr(_) => false,
    }
}
