//! Where node ports at loopback addresses lead.

use super::Changes;
use crate::plan::{Action, order::Rank};

pub(super) fn compare(changes: &mut Changes<'_>) {
    let Some(held) = &changes.observed.local_ports else { return };
    for frontend in changes.touched.frontends.clone() {
        let wanted = changes.desired.servers.get(&frontend).and_then(|server| server.leads_to);
        match (wanted, held.get(&frontend)) {
            (Some(to), held) if held != Some(&to) => {
                changes.push(Rank::LocalPort, Action::PutLocalPort { frontend, to });
            }
            (None, Some(_)) => {
                changes.push(Rank::LocalPort, Action::RemoveLocalPort(frontend));
            }
            _ => {}
        }
    }
}
