//! Why a packet went the way it went: indexes of the map `stats`.

/// Declares the reasons once: number, name and meaning.
macro_rules! reasons {
    (
        $reason:ident, $class_type:ident;

        $($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, $class:ident;)+
    ) => {
        /// What happened to a packet. Numbers are append-only: a retired one stays.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u32)]
        pub enum $reason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl $reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name, as the CLI and metrics show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns what kind of reason it is.
            pub const fn class(self) -> $class_type {
                match self { $(Self::$variant => $class_type::$class,)+ }
            }
        }
    };
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// A packet on the fast path.
    Fast,
    /// A packet of a known Service that took the slow path.
    Slow,
    /// A packet that the fast path has nothing to do with.
    Other,
    /// What became of a stamped packet at egress. Says nothing of packets not counted already.
    Learn,
}

pub(crate) use reasons;

reasons! {
    Reason, Class;

    /// Rewritten and redirected.
    Hit = 0, "hit", Fast;
    /// Known Service, no entry yet.
    NoFlow = 1, "no_flow", Slow;
    /// A SYN: entries of both directions are dropped.
    Syn = 2, "syn", Slow;
    /// A FIN or RST: both directions close.
    FinRst = 3, "fin_rst", Slow;
    /// The reverse direction is not known yet.
    Learning = 4, "learning", Slow;
    /// A FIN or RST was seen earlier.
    Closing = 5, "closing", Slow;
    /// The hard lease ended.
    LeaseEnded = 6, "lease_ended", Slow;
    /// Elected to renew the lease.
    Elected = 7, "elected", Slow;
    /// Links, routes, addresses or neighbours changed since.
    StaleEpoch = 8, "stale_epoch", Slow;
    /// The backend changed since.
    StaleGeneration = 9, "stale_generation", Slow;
    /// The TTL would end here: the kernel answers.
    TtlExpired = 10, "ttl_expired", Slow;
    /// Larger than the MTU of the way out: the kernel answers or fragments.
    TooBig = 11, "too_big", Slow;
    /// Would have been a hit; observe mode sends it the slow way.
    Observed = 12, "observed", Slow;
    /// Neither to a frontend nor from a backend.
    NotService = 13, "not_service", Other;
    /// Not plain TCP or UDP: other protocols, fragments, options, extension headers, VLAN tags.
    Unparsed = 14, "unparsed", Other;
    /// An entry was made.
    Installed = 15, "installed", Learn;
    /// A lease was renewed.
    Renewed = 16, "renewed", Learn;
    /// Both directions are known: the pair went active.
    Activated = 17, "activated", Learn;
    /// The packet at egress is not the one that was stamped.
    Mismatch = 18, "mismatch", Learn;
    /// IPVS was edited while the packet was on its way.
    EditRace = 19, "edit_race", Learn;
    /// The change is not one that can be repeated, or not one of a known Service.
    Unexplained = 20, "unexplained", Learn;
    /// The flow is too young to be worth an entry.
    Warming = 21, "warming", Learn;
    /// The flow map refused the entry.
    MapFull = 22, "map_full", Learn;
    /// The kernel treats the flow differently now: the entry was replaced.
    Replaced = 23, "replaced", Learn;
    /// The interface is not one whose egress may be learned.
    InterfaceOff = 24, "interface_off", Learn;
    /// The flow closed while the packet was on its way.
    Closed = 25, "closed", Learn;
    /// Rewritten and sent out of an uplink by `xdp_up`. What that passes on is counted by `tc_in`.
    XdpHit = 26, "xdp_hit", Fast;
    /// The clients of the interface have made their share of this second's entries.
    Limited = 27, "limited", Learn;
}

impl Reason {
    /// Entries of the map `stats`: room for reasons to come without a new layout.
    pub const SLOTS: u32 = 64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_in_order() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number, "{}", reason.name());
        }
        assert!(Reason::ALL.len() <= Reason::SLOTS as usize);
    }
}
