//! How the source stands with the API server, for `passlane status` and the metrics.

use std::time::SystemTime;

/// How far the source can be trusted to be current.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum State {
    /// Not everything has been listed yet since the start.
    #[default]
    Connecting,
    /// Everything is listed and watched.
    Connected,
    /// A kind is being listed anew; what was known stays in force until the list is complete.
    Relisting,
    /// The API server does not answer, or refuses; what was known stays in force.
    Away {
        /// Since when.
        since: SystemTime,
    },
}

/// The state with what led to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// The address of the API server that is used now.
    pub address: String,
    /// The last error and when it came, even when it is over.
    pub last_error: Option<(SystemTime, String)>,
    /// How often a kind was listed anew after the first time.
    pub relists: u64,
    /// When the snapshot was saved that is served because the API server did not answer yet.
    pub stale_since: Option<SystemTime>,
}
