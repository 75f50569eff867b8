//! Settings: defaults, then a file of kube-proxy's form, then flags. Checked once, typed from then
//! on.
//!
//! ```text
//! file ──kube_proxy──▶ entries ─┐
//!                               ├─ fields (one table) ─▶ resolve ──▶ Settings + FieldReports
//! flags ────────────────────────┘                           └──────▶ Error: place, field, cure
//! ```

pub mod duration;
mod fields;
pub mod flags;
pub mod hash_plane;
pub mod kube_proxy;
pub mod problem;
pub mod report;
mod resolve;
pub mod settings;
mod suggest;
#[cfg(test)]
mod tests;
pub mod tree;
mod values;

pub use flags::{Paths, RunFlags};
pub use hash_plane::HashPlane;
pub use kube_proxy::ConfigFile;
pub use problem::{Error, Fault, Problem};
pub use report::{FieldReport, Verdict};
pub use settings::{
    Conntrack, DetectLocal, ExternalIps, IpvsTimeouts, LogFormat, LogLevel, Logging,
    NodePortAddress, NodePortAddresses, Settings, Source, Vips,
};
