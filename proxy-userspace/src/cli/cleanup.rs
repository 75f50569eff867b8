//! `passlane cleanup`: removes what the ledger says is ours, and nothing else.

mod leaving;

use std::{collections::BTreeSet, fmt::Display};

use clap::Args;

use super::{Failure, output};
use crate::{
    agent,
    chain::chain,
    config::Paths,
    kernel::{
        bpf::{self, PinDirectory},
        ipvs::{self, Client, Command, sync::Removal},
        link::Links,
        nft,
        route::Routes,
        sysctl::{self, Key},
        tc::TrafficControl,
    },
    ledger::{Ledger, Owned, Record},
    model::Frontend,
    source::snapshot_file,
    status::{self, Lock, Report},
};

/// The flags of `passlane cleanup`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    paths: Paths,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave virtual servers, destinations and VIPs, so that a kube-proxy goes on with all
    /// connections
    #[arg(long)]
    leave_forwarding: bool,
}

/// What is being cleaned up.
struct Cleanup {
    ledger: Ledger,
    links: Links,
    left: usize,
}

/// Removes everything that is ours. The fast path goes first, so that flows fall to IPVS while it
/// still serves them; then IPVS, then what it stood on.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    agent::privileges::check()?;
    let owned = Owned::read(&flags.paths.state_dir)?;
    if flags.dry_run {
        let mut lines = list(&owned, flags.leave_forwarding);
        if let Some(path) = snapshot_file::saved_in(&flags.paths.snapshot_dir) {
            lines.push_str(&format!("snapshot {}\n", path.display()));
        }
        return Ok(output::text(&lines)?);
    }
    let lock = Lock::take(&flags.paths.state_dir).map_err(|error| match error {
        status::Error::Running(_) => Failure::Running,
        error => error.into(),
    })?;
    let (left, all_gone) = super::block_on(async {
        let ledger = Ledger::open(&flags.paths.state_dir)?;
        let links = Links::open().map_err(crate::kernel::node::Error::from)?;
        let mut cleanup = Cleanup { ledger, links, left: 0 };
        if flags.leave_forwarding {
            cleanup.leave(&owned).await?;
            return Ok((cleanup.left, cleanup.ledger.owned().is_empty()));
        }
        cleanup.fast_path(&owned).await?;
        cleanup.sync_daemons(&owned).await?;
        cleanup.virtual_servers(&owned).await?;
        cleanup.vips(&owned).await?;
        cleanup.addresses(&owned).await?;
        cleanup.nat_table(&owned).await?;
        cleanup.devices(&owned).await?;
        cleanup.sysctls(&owned)?;
        cleanup.ipvs_timeouts(&owned).await?;
        Ok((cleanup.left, true))
    })?;
    if left > 0 {
        return Err(Failure::Leftover(left));
    }
    snapshot_file::remove(&flags.paths.snapshot_dir).map_err(Failure::Snapshot)?;
    if all_gone {
        Report::remove(&flags.paths.state_dir)?;
    }
    drop(lock);
    Ok(())
}

/// Returns the objects that would be removed, a line each.
fn list(owned: &Owned, leave_forwarding: bool) -> String {
    let mut lines = Vec::new();
    lines.extend(owned.pins.iter().map(|path| format!("pins {}", path.display())));
    lines.extend(owned.clsacts.iter().map(|name| format!("clsact qdisc of {name}")));
    if leave_forwarding {
        return lines.into_iter().map(|line| line + "\n").collect();
    }
    lines.extend(owned.sync_daemons.iter().map(|(interface, id)| {
        format!("ipvs sync daemon in state backup on {interface} with id {id}")
    }));
    lines.extend(
        owned
            .virtual_servers
            .iter()
            .map(|(frontend, service)| format!("virtual server {frontend} of {service}")),
    );
    lines.extend(owned.nat_table.then(|| "nft table inet passlane".to_owned()));
    lines.extend(
        owned.addresses.iter().map(|(name, addrs)| format!("{} addresses on {name}", addrs.len())),
    );
    lines.extend(owned.devices.iter().map(|name| format!("device {name}")));
    lines.extend(
        owned
            .sysctls
            .iter()
            .map(|(key, change)| format!("sysctl {key} (back to {})", change.previous)),
    );
    lines.extend(owned.ipvs_timeouts.map(|_| "ipvs timeouts".to_owned()));
    lines.into_iter().map(|line| line + "\n").collect()
}

impl Cleanup {
    /// Strikes an object out of the ledger when it is gone, and says so when it is not.
    fn settle(
        &mut self,
        object: impl Display,
        result: Result<(), impl std::error::Error + 'static>,
        record: Record,
    ) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(self.ledger.record([record])?),
            Err(error) => {
                eprintln!("passlane: {object} stays: {}", chain(&error));
                self.left += 1;
                Ok(())
            }
        }
    }

    async fn fast_path(&mut self, owned: &Owned) -> Result<(), Failure> {
        for directory in &owned.pins {
            let pins = PinDirectory::at(directory);
            self.filters(owned).await?;
            let record = Record::Pins { directory: directory.clone(), owned: false };
            self.settle(format!("pins {}", directory.display()), pins.remove_pins(), record)?;
        }
        Ok(())
    }

    /// Takes our clsact filters off, and the clsact qdiscs that we made when nobody else uses
    /// them.
    async fn filters(&mut self, owned: &Owned) -> Result<(), Failure> {
        let traffic = TrafficControl::open().map_err(crate::kernel::node::Error::from)?;
        let present = self.links.interfaces().await.map_err(crate::kernel::node::Error::from)?;
        for interface in &present {
            let filters = traffic.filters(interface.index).await.unwrap_or_default();
            if filters.iter().any(bpf::is_our_filter) {
                bpf::detach_filters(&interface.name);
            }
            if !owned.clsacts.contains(&interface.name) {
                continue;
            }
            let record = Record::Clsact { interface: interface.name.clone(), owned: false };
            let result = if filters.iter().all(bpf::is_our_filter) {
                traffic.remove_clsact(interface.index).await
            } else {
                Ok(())
            };
            self.settle(format!("clsact qdisc of {}", interface.name), result, record)?;
        }
        let present: BTreeSet<&str> = present.iter().map(|each| each.name.as_str()).collect();
        let gone = owned.clsacts.iter().filter(|name| !present.contains(name.as_str()));
        let records = gone.map(|name| Record::Clsact { interface: name.clone(), owned: false });
        Ok(self.ledger.record(records.collect::<Vec<_>>())?)
    }

    /// Stops our sync daemon, unless somebody put another one in its place.
    async fn sync_daemons(&mut self, owned: &Owned) -> Result<(), Failure> {
        for (interface, id) in &owned.sync_daemons {
            let removal = match Client::open().await {
                Ok(client) => client.remove_backup(interface, *id).await,
                // It went with the module.
                Err(ipvs::Error::IpvsMissing) => Ok(Removal::Absent),
                Err(error) => Err(error),
            };
            if let Ok(Removal::Foreign(other)) = &removal {
                eprintln!("passlane: the {other} is not ours: it stays");
            }
            let record = Record::SyncDaemon { interface: interface.clone(), id: *id, owned: false };
            self.settle(format!("ipvs sync daemon on {interface}"), removal.map(drop), record)?;
        }
        Ok(())
    }

    async fn virtual_servers(&mut self, owned: &Owned) -> Result<(), Failure> {
        let frontends: Vec<Frontend> = owned.virtual_servers.keys().copied().collect();
        if frontends.is_empty() {
            return Ok(());
        }
        let client = Client::open().await?;
        let commands = frontends.iter().map(|key| Command::RemoveVirtualServer(*key)).collect();
        for (frontend, result) in frontends.iter().zip(client.batch(commands).await) {
            let record = Record::VirtualServer { frontend: *frontend, service: None };
            self.settle(format!("virtual server {frontend}"), result, record)?;
        }
        Ok(())
    }

    /// Removes our routes from devices that were there before us; those of ours go as a whole.
    async fn vips(&mut self, owned: &Owned) -> Result<(), Failure> {
        let routes = Routes::open().map_err(crate::kernel::node::Error::from)?;
        for interface in self.links.interfaces().await.map_err(crate::kernel::node::Error::from)? {
            if owned.devices.contains(&interface.name) {
                continue;
            }
            let vips =
                routes.vips(interface.index).await.map_err(crate::kernel::node::Error::from)?;
            let vips: Vec<_> = vips.into_iter().collect();
            if let Err(error) = routes.remove_vips(interface.index, &vips).await {
                eprintln!("passlane: routes on {} stay: {error}", interface.name);
                self.left += 1;
            }
        }
        Ok(())
    }

    /// Removes our addresses, and leaves those of others where they are.
    async fn addresses(&mut self, owned: &Owned) -> Result<(), Failure> {
        for (device, addrs) in &owned.addresses {
            let addrs: Vec<_> = addrs.iter().copied().collect();
            let result = match self.links.index_of(device).await {
                Ok(Some(index)) => self.links.remove_addresses(index, &addrs).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            let record = Record::Addresses { device: device.clone(), addrs, owned: false };
            self.settle(format!("addresses on {device}"), result, record)?;
        }
        Ok(())
    }

    async fn nat_table(&mut self, owned: &Owned) -> Result<(), Failure> {
        if !owned.nat_table {
            return Ok(());
        }
        let result = match nft::Table::open().await {
            Ok(table) => table.remove().await,
            Err(error) => Err(error),
        };
        self.settle("nft table inet passlane", result, Record::NatTable { owned: false })
    }

    async fn devices(&mut self, owned: &Owned) -> Result<(), Failure> {
        for name in &owned.devices {
            let result = self.links.remove_dummy(name).await;
            let record = Record::Device { name: name.clone(), owned: false };
            self.settle(format!("device {name}"), result, record)?;
        }
        Ok(())
    }

    /// Restores the timeouts of IPVS, unless someone changed them since.
    async fn ipvs_timeouts(&mut self, owned: &Owned) -> Result<(), Failure> {
        let Some(change) = owned.ipvs_timeouts else { return Ok(()) };
        let result = match Client::open().await {
            Ok(client) => match client.timeouts().await {
                Ok(now) if now == change.written => client.set_timeouts(&change.previous).await,
                Ok(_) => {
                    eprintln!("passlane: ipvs timeouts are others by now, not ours: they stay");
                    Ok(())
                }
                Err(error) => Err(error),
            },
            // Without IPVS there are no timeouts any more.
            Err(ipvs::Error::IpvsMissing) => Ok(()),
            Err(error) => Err(error),
        };
        self.settle("ipvs timeouts", result, Record::IpvsTimeouts { change: None })
    }

    /// Restores settings, but not those that someone changed since: that is theirs now.
    fn sysctls(&mut self, owned: &Owned) -> Result<(), Failure> {
        for (name, change) in &owned.sysctls {
            let key = Key::dotted(name);
            let result = match sysctl::read(&key) {
                Ok(value) if value == change.written => sysctl::write(&key, &change.previous),
                Ok(value) => {
                    eprintln!("passlane: sysctl {name} is {value} by now, not ours: it stays");
                    Ok(())
                }
                Err(sysctl::Error::Absent { .. }) => Ok(()),
                Err(error) => Err(error),
            };
            let record = Record::Sysctl { key: name.clone(), change: None };
            self.settle(format!("sysctl {name}"), result, record)?;
        }
        Ok(())
    }
}
