//! Plain values: what Services want, and what the kernel holds. No I/O, no clock, no async.

pub mod endpoint;
pub mod interface;
pub mod nat;
pub mod protocol;
pub mod scheduler;
pub mod service;
pub mod snapshot;
pub mod virtual_server;

pub use endpoint::{Endpoint, EndpointPort, EndpointSlice, SliceName};
pub use protocol::{ParseProtocolError, Protocol};
pub use scheduler::{ParseSchedulerError, Scheduler, SchedulerFlags};
pub use service::{FastPath, Service, ServiceKind, ServiceName, ServicePort, ServicePortName};
pub use snapshot::Snapshot;
pub use virtual_server::{Destination, DestinationKey, Forwarding, Frontend, VirtualServer};
