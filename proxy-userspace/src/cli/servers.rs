//! What verbs read of IPVS.

use crate::{
    kernel::ipvs::{self, Client, DestinationState, VirtualServerState},
    ledger::Owned,
};

use super::Failure;

/// Virtual servers, each with its destinations, by frontend.
pub(super) type Servers = Vec<(VirtualServerState, Vec<DestinationState>)>;

/// Returns our virtual servers with their destinations; none without IPVS.
pub(super) async fn ours(owned: &Owned) -> Result<Servers, Failure> {
    let client = match Client::open().await {
        Err(ipvs::Error::IpvsMissing) => return Ok(Servers::new()),
        client => client?,
    };
    let mut servers = Servers::new();
    for server in client.virtual_servers().await? {
        let frontend = server.virtual_server.frontend;
        if owned.virtual_servers.contains_key(&frontend) {
            let destinations = client.destinations(&frontend).await?;
            servers.push((server, destinations));
        }
    }
    servers.sort_by_key(|(server, _)| server.virtual_server.frontend);
    Ok(servers)
}
