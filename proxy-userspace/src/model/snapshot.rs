//! Everything a source knows at one moment.

use std::collections::BTreeMap;

use super::{EndpointSlice, Service, ServiceName, SliceName};

/// All Services and EndpointSlices, sorted: the same input gives the same plan, byte for byte.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Services with forwarding state.
    pub services: BTreeMap<ServiceName, Service>,
    /// Slices, also those whose Service is not (yet) there.
    pub slices: BTreeMap<SliceName, EndpointSlice>,
}
