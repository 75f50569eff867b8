//! How the program of the hash plane gets at packets.

/// Where in the way of a packet the program runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HashMode {
    /// In the driver of the NIC, before the kernel makes a packet of a frame.
    #[default]
    Native,
    /// XDP after that, with any driver: slower than tc, and for tests.
    Generic,
    /// At tc ingress, with any driver: for those without XDP.
    Tc,
}

impl HashMode {
    /// Every mode by the word that chooses it.
    pub const WORDS: [(&str, Self); 3] =
        [("native", Self::Native), ("generic", Self::Generic), ("tc", Self::Tc)];

    /// Returns the word that chooses it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        }
    }
}
