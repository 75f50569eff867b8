//! How the program of the hash plane gets at packets.

/// Where in the way of a packet an XDP program runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HashMode {
    /// In the driver of the NIC, before the kernel makes a packet of a frame.
    #[default]
    Native,
    /// After that, with any driver: slower than the driver's, and for tests.
    Generic,
}

impl HashMode {
    /// Every mode by the word that chooses it.
    pub const WORDS: [(&str, Self); 2] = [("native", Self::Native), ("generic", Self::Generic)];

    /// Returns the word that chooses it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}
