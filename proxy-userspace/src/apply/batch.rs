//! Groups neighbouring actions that the kernel takes in one go. Their order is kept.

use std::net::IpAddr;

use crate::{
    kernel::{conntrack::Stale, ipvs::Command},
    model::{DestinationKey, Frontend},
    plan::Action,
};

/// Actions that are carried out together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Batch<'a> {
    /// Changes of IPVS, pipelined.
    Ipvs(Vec<(&'a Action, Command)>),
    /// VIPs that come.
    PutVips(Vec<IpAddr>, Vec<&'a Action>),
    /// VIPs that go.
    RemoveVips(Vec<IpAddr>, Vec<&'a Action>),
    /// VIPs that are local in another way too, and stay local in the configured one.
    RetireVips(Vec<IpAddr>, Vec<&'a Action>),
    /// Conntrack entries that go: the table is read once for all of them.
    Flush(Stale, Vec<&'a Action>),
    /// One change of another kind.
    Single(&'a Action),
}

impl Batch<'_> {
    /// Returns how many actions it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ipvs(commands) => commands.len(),
            Self::PutVips(_, actions)
            | Self::RemoveVips(_, actions)
            | Self::RetireVips(_, actions)
            | Self::Flush(_, actions) => actions.len(),
            Self::Single(_) => 1,
        }
    }
}

/// Returns the batches of a plan, in order.
pub(super) fn batches(actions: &[Action]) -> Vec<Batch<'_>> {
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for action in actions {
        match (action, batches.last_mut()) {
            (Action::PutVip(addr), Some(Batch::PutVips(addrs, actions)))
            | (Action::RemoveVip(addr), Some(Batch::RemoveVips(addrs, actions)))
            | (Action::RetireVip(addr), Some(Batch::RetireVips(addrs, actions))) => {
                addrs.push(*addr);
                actions.push(action);
            }
            (Action::PutVip(addr), _) => batches.push(Batch::PutVips(vec![*addr], vec![action])),
            (Action::RemoveVip(addr), _) => {
                batches.push(Batch::RemoveVips(vec![*addr], vec![action]));
            }
            (Action::RetireVip(addr), _) => {
                batches.push(Batch::RetireVips(vec![*addr], vec![action]));
            }
            (Action::Flush { frontend, to }, Some(Batch::Flush(stale, actions))) => {
                add(stale, *frontend, *to);
                actions.push(action);
            }
            (Action::Flush { frontend, to }, _) => {
                let mut stale = Stale::default();
                add(&mut stale, *frontend, *to);
                batches.push(Batch::Flush(stale, vec![action]));
            }
            (action, last) => match (command(action), last) {
                (Some(command), Some(Batch::Ipvs(commands))) => commands.push((action, command)),
                (Some(command), _) => batches.push(Batch::Ipvs(vec![(action, command)])),
                (None, _) => batches.push(Batch::Single(action)),
            },
        }
    }
    batches
}

fn add(stale: &mut Stale, frontend: Frontend, to: Option<DestinationKey>) {
    match to {
        Some(key) => {
            stale.pairs.insert((frontend, key));
        }
        None => {
            stale.frontends.insert(frontend);
        }
    }
}

/// Returns the change of IPVS that an action is, if it is one.
fn command(action: &Action) -> Option<Command> {
    match action {
        Action::PutVirtualServer(server) => Some(Command::PutVirtualServer(*server)),
        Action::RemoveVirtualServer(frontend) => Some(Command::RemoveVirtualServer(*frontend)),
        Action::PutDestination { frontend, destination } => {
            Some(Command::PutDestination(*frontend, *destination))
        }
        Action::RemoveDestination { frontend, key } => {
            Some(Command::RemoveDestination(*frontend, *key))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn neighbours_of_a_kind_go_together_and_nothing_changes_places() {
        let frontend = Frontend { addr: [10, 0, 0, 1].into(), port: 80, protocol: Protocol::Tcp };
        let vip = |last: u8| Action::PutVip([10, 0, 0, last].into());
        let actions = [
            Action::RemoveVirtualServer(frontend),
            Action::RemoveVirtualServer(frontend),
            vip(1),
            vip(2),
            Action::PutDevice,
            Action::Flush { frontend, to: None },
            Action::Flush { frontend, to: None },
            vip(3),
        ];
        let sizes: Vec<usize> = batches(&actions).iter().map(Batch::len).collect();
        assert_eq!(sizes, [2, 2, 1, 2, 1]);
    }
}
