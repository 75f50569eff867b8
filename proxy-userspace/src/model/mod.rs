//! Plain values: what Services want, and what the kernel holds. No I/O, no clock, no async.

pub mod backend;
pub mod endpoint;
pub mod interface;
pub mod nat;
pub mod notice;
pub mod protocol;
pub mod scheduler;
pub mod service;
pub mod snapshot;
pub mod virtual_server;

pub use backend::Backend;
pub use endpoint::{Endpoint, EndpointPort, EndpointSlice, SliceName};
pub use nat::NatElements;
pub use notice::Notice;
pub use protocol::{ParseProtocolError, Protocol};
pub use scheduler::{ParseSchedulerError, Scheduler, SchedulerFlags};
pub use service::{FastPath, Service, ServiceKind, ServiceName, ServicePort, ServicePortName};
pub use snapshot::Snapshot;
pub use virtual_server::{Destination, DestinationKey, Forwarding, Frontend, VirtualServer};
