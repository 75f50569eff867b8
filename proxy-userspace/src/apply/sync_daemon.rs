//! The sync daemon of IPVS that takes the connections we make: started under a record, and stopped
//! when it is ours.

use crate::{
    kernel::ipvs::{
        self, Client,
        sync::{Backup, Removal},
    },
    ledger::{self, Ledger, Record},
};

/// The daemon or its record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// Its record.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Makes sure that a backup daemon of this interface and id runs. One of ours with another interface
/// or id is stopped before; one of somebody else stays, and is what is returned. One of somebody else
/// with the same interface and id serves as well, and does not become ours.
///
/// # Errors
///
/// The kernel refuses, or the ledger cannot be written.
pub async fn put(
    ledger: &mut Ledger,
    client: &Client,
    interface: &str,
    id: u8,
) -> Result<Backup, Failure> {
    let wanted = (interface.to_owned(), id);
    remove_where(ledger, client, |daemon| *daemon != wanted).await?;
    let known = ledger.owned().sync_daemons.contains(&wanted);
    ledger.record([record(&wanted, true)])?;
    let result = client.put_backup(interface, id).await;
    let ours = match &result {
        Ok(Backup::Started) => true,
        Ok(Backup::Present) | Err(_) => known,
        Ok(Backup::Foreign(_)) => false,
    };
    if !ours {
        ledger.record([record(&wanted, false)])?;
    }
    Ok(result?)
}

/// Stops our backup daemon; says what is left of others in its place.
///
/// # Errors
///
/// The kernel refuses, or the ledger cannot be written.
pub async fn remove(ledger: &mut Ledger, client: &Client) -> Result<Vec<Removal>, Failure> {
    remove_where(ledger, client, |_| true).await
}

async fn remove_where(
    ledger: &mut Ledger,
    client: &Client,
    wanted: impl Fn(&(String, u8)) -> bool,
) -> Result<Vec<Removal>, Failure> {
    let ours: Vec<_> =
        ledger.owned().sync_daemons.iter().filter(|each| wanted(each)).cloned().collect();
    let mut removals = Vec::with_capacity(ours.len());
    for daemon in ours {
        removals.push(client.remove_backup(&daemon.0, daemon.1).await?);
        ledger.record([record(&daemon, false)])?;
    }
    Ok(removals)
}

fn record((interface, id): &(String, u8), owned: bool) -> Record {
    Record::SyncDaemon { interface: interface.clone(), id: *id, owned }
}
