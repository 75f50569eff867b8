//! Plain values: what Services want, and what the kernel holds. No I/O, no clock, no async.

pub mod backend;
pub mod check;
pub mod element;
pub mod endpoint;
pub mod estate;
pub mod hash_plane;
pub mod interface;
pub mod next_hop;
pub mod node;
pub mod notice;
pub mod protocol;
pub mod scheduler;
pub mod service;
pub mod snapshot;
pub mod virtual_server;

pub use backend::Backend;
pub use check::{Check, Get, OnFailure, Probe, SorryServer, Watching};
pub use element::{Element, Inside, Masquerade, RuleOptions};
pub use endpoint::{Endpoint, EndpointPort, EndpointSlice, LocalEndpoints, SliceName};
pub use estate::Estate;
pub use hash_plane::HashMode;
pub use next_hop::{NextHop, Unusable, Way};
pub use node::Node;
pub use notice::Notice;
pub use protocol::{ParseProtocolError, Protocol};
pub use scheduler::{ParseSchedulerError, Scheduler, SchedulerFlags};
pub use service::{
    FastPath, Service, ServiceKind, ServiceName, ServicePort, ServicePortName, Sources,
    TrafficPolicy, Weights,
};
pub use snapshot::{Change, Snapshot, Update};
pub use virtual_server::{
    Destination, DestinationKey, Forwarding, Frontend, Thresholds, Tunnel, VirtualServer,
};
