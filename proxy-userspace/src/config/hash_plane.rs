//! What an operator decides of the hash plane.

use crate::model::HashMode;

/// The section `passlane.hashPlane`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HashPlane {
    /// Interfaces by which packets of clients come in, each with at most one `*`; none: there is no
    /// hash plane.
    pub interfaces: Vec<String>,
    /// Where in the way of a packet its program runs.
    pub mode: HashMode,
    /// Entries of the flow map of each family; the default of the map otherwise.
    pub flow_entries: Option<u32>,
    /// The interface by which IPVS here, and other gateways on that network, are told of flows that
    /// live elsewhere than the table says.
    pub sync_interface: String,
    /// The id of those messages: that of all gateways which serve the same clients.
    pub sync_id: u8,
}

impl Default for HashPlane {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: HashMode::Native,
            flow_entries: None,
            sync_interface: "lo".into(),
            sync_id: 112,
        }
    }
}

impl HashPlane {
    /// Says whether there is to be one.
    pub fn is_wanted(&self) -> bool {
        !self.interfaces.is_empty()
    }
}
