//! What the hash plane did with a packet, and why: indexes of the map `hash_stats`.

use crate::reason::reasons;

/// Kinds of reasons of the hash plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HashClass {
    /// XDP or tc sent it to its backend.
    Carried,
    /// A packet to a frontend of the hash plane that the kernel was given.
    Kernel,
    /// A packet that the hash plane has nothing to do with.
    Other,
}

reasons! {
    HashReason, HashClass;

    /// Of a flow with an entry.
    Cached = 0, "cached", Carried;
    /// The first of a flow, which has an entry now.
    New = 1, "new", Carried;
    /// Without an entry: there were too many new flows in this second, or the map refused it.
    Stateless = 2, "stateless", Carried;
    /// An ICMP error about a flow.
    IcmpError = 3, "icmp_error", Carried;
    /// Not for this host, or not of an IP version.
    NotOurs = 4, "not_ours", Other;
    /// Neither TCP nor UDP nor an ICMP error about either; or cut short.
    Unparsed = 5, "unparsed", Other;
    /// To no frontend of the hash plane.
    NoFrontend = 6, "no_frontend", Other;
    /// A fragment: the kernel puts it together.
    Fragment = 7, "fragment", Other;
    /// IP options or extension headers.
    Options = 8, "options", Other;
    /// The slot's backend takes no new flows, and nobody was found instead.
    NoBackend = 9, "no_backend", Kernel;
    /// The slot changed not long ago, and the flow has no entry: IPVS may know it.
    Asked = 10, "asked", Kernel;
    /// Larger than the MTU of the way out: the kernel answers or fragments.
    TooBig = 11, "too_big", Kernel;
    /// The TTL would end here: the kernel answers.
    TtlExpired = 12, "ttl_expired", Kernel;
    /// The next hop is not known, or was not confirmed in time.
    NoNextHop = 13, "no_next_hop", Kernel;
    /// From client port 20, which IPVS schedules not.
    Unscheduled = 14, "unscheduled", Kernel;
    /// There is no room for the outer header in front of the frame.
    NoRoom = 15, "no_room", Kernel;
    /// At tc: several datagrams that were received as one.
    Datagrams = 16, "datagrams", Kernel;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::hash_capacity;

    #[test]
    fn numbers_are_dense_and_in_order() {
        for (number, reason) in HashReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number, "{}", reason.name());
        }
        assert!(HashReason::ALL.len() <= hash_capacity::REASONS as usize);
    }
}
