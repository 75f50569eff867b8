//! The packet that every run of a program begins with. The bench reads this file too.

/// Bytes behind the headers of every packet.
pub(crate) const PAYLOAD: usize = 10;

/// The one element of the maps `template` and `xdp_template`: the headers of a TCP or UDP packet, and how its flows are
/// walked through. Words are as they lie in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Template {
    /// The MAC addresses.
    pub(crate) ethernet: [u32; 3],
    /// EtherType, in the first two bytes.
    pub(crate) ether_type: u32,
    /// IP and L4 header of flow 0. Flow n has n in the last two bytes of its source address.
    pub(crate) headers: [u32; 15],
    /// Flows less one; a power of two less one. At XDP they may be more than 16 bits can number.
    pub(crate) mask: u32,
    /// How far one packet's flow is from the last one's; odd, so that every flow comes up.
    pub(crate) step: u32,
    /// Packets so far.
    pub(crate) cursor: u32,
    /// The token of a packet at egress.
    pub(crate) token: u32,
    /// Destination address after translation; IPv4 in the first word.
    pub(crate) to: [u32; 4],
    /// Destination port after translation, as in the packet.
    pub(crate) to_port: u32,
    /// Interface that a rung redirects to.
    pub(crate) interface: u32,
}
