//! The link-layer addresses of neighbours as last reported. No I/O.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::watch::Event;

/// Known neighbours. Entries go between reachable and stale all the time; only a change of the
/// address, or its loss, is news.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    macs: HashMap<(u32, IpAddr), [u8; 6]>,
}

impl Neighbours {
    /// Takes an RTM_NEWNEIGH in. A neighbour seen for the first time is no event: nothing can have
    /// used its address yet.
    pub(super) fn put(&mut self, message: &NeighbourMessage) -> Option<Event> {
        let key = key(message)?;
        let mac = mac(message).filter(|_| has_address(message.header.state));
        match (self.macs.entry(key), mac) {
            (Entry::Occupied(entry), None) => {
                entry.remove();
                Some(event(key, None))
            }
            (Entry::Occupied(entry), Some(mac)) if *entry.get() == mac => None,
            (Entry::Occupied(mut entry), Some(mac)) => {
                entry.insert(mac);
                Some(event(key, Some(mac)))
            }
            (Entry::Vacant(entry), Some(mac)) => {
                entry.insert(mac);
                None
            }
            (Entry::Vacant(_), None) => None,
        }
    }

    /// Takes an RTM_DELNEIGH in.
    pub(super) fn remove(&mut self, message: &NeighbourMessage) -> Option<Event> {
        let key = key(message)?;
        self.macs.remove(&key).map(|_| event(key, None))
    }

    /// Forgets everything, because events were lost.
    pub(super) fn clear(&mut self) {
        self.macs.clear();
    }
}

fn event((index, addr): (u32, IpAddr), mac: Option<[u8; 6]>) -> Event {
    Event::NeighbourChanged { index, addr, mac }
}

/// Returns the interface and address of a neighbour. Bridge forwarding entries and proxy entries come
/// through the same messages: neither is one.
pub(in crate::kernel) fn key(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let header = &message.header;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        || header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => {
            Some((header.ifindex, (*addr).into()))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => {
            Some((header.ifindex, (*addr).into()))
        }
        _ => None,
    })
}

/// Returns the link-layer address, where it is one of Ethernet.
pub(in crate::kernel) fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

/// Returns whether the kernel sends to the address of an entry in this state.
pub(in crate::kernel) fn has_address(state: NeighbourState) -> bool {
    !matches!(state, NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn message(state: NeighbourState, mac: Option<[u8; 6]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes =
            vec![NeighbourAttribute::Destination(IpAddr::from([10, 0, 0, 7]).into())];
        let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message.attributes.extend(mac);
        message
    }

    fn changed(mac: Option<[u8; 6]>) -> Option<Event> {
        Some(Event::NeighbourChanged { index: 3, addr: [10, 0, 0, 7].into(), mac })
    }

    #[test]
    fn going_stale_and_reachable_again_is_no_event() {
        let mut neighbours = Neighbours::default();
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Delay,
            NeighbourState::Probe,
            NeighbourState::Reachable,
        ] {
            assert_eq!(neighbours.put(&message(state, Some(MAC))), None);
        }
    }

    #[test]
    fn a_new_address_of_a_known_neighbour_is_an_event() {
        let mut neighbours = Neighbours::default();
        neighbours.put(&message(NeighbourState::Reachable, Some(MAC)));
        let event = neighbours.put(&message(NeighbourState::Reachable, Some(OTHER)));
        assert_eq!(event, changed(Some(OTHER)));
    }

    #[test]
    fn a_known_neighbour_that_fails_or_vanishes_is_an_event_once() {
        let mut neighbours = Neighbours::default();
        neighbours.put(&message(NeighbourState::Reachable, Some(MAC)));
        assert_eq!(neighbours.put(&message(NeighbourState::Failed, None)), changed(None));
        assert_eq!(neighbours.remove(&message(NeighbourState::Failed, None)), None);
        neighbours.put(&message(NeighbourState::Reachable, Some(MAC)));
        assert_eq!(neighbours.remove(&message(NeighbourState::Stale, Some(MAC))), changed(None));
    }

    #[test]
    fn bridge_and_proxy_entries_are_ignored() {
        let mut neighbours = Neighbours::default();
        let mut bridge = message(NeighbourState::Permanent, Some(MAC));
        bridge.header.family = AddressFamily::Bridge;
        let mut proxy = message(NeighbourState::Permanent, Some(MAC));
        proxy.header.flags = NeighbourFlags::Proxy;
        for message in [bridge, proxy] {
            neighbours.put(&message);
            assert_eq!(neighbours.remove(&message), None);
        }
    }
}
