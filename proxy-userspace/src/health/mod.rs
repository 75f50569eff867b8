//! What others ask to learn whether this node should get traffic.
//!
//! | asker | where | answer |
//! |---|---|---|
//! | cloud load balancers, per Service | `spec.healthCheckNodePort`, any path | [`service_health`] |
//! | cloud load balancers, per node | `/healthz` on port 10256 | [`proxy_health`] |
//! | the kubelet | `/livez` and `/readyz` on port 10256 | [`proxy_health`] |
//!
//! ```text
//! plan::HealthCheck ──▶ claims ──assign()──▶ port → ServiceState ──update()──▶ listeners
//! agent ──changed(), synced(), set_node_leaving()──▶ ProxyHealth ──────────────▶   │
//! ```
//!
//! Bodies, headers and status codes are kube-proxy's. Both servers open their ports by themselves,
//! again and again until they can; nothing here stops the agent or makes it wait.

mod answer;
pub(crate) mod gate;
pub mod problem;
pub mod proxy_health;
pub mod service_health;
#[cfg(test)]
mod tests;
mod time;

pub use problem::Problem;
pub use proxy_health::{Answers, HealthServer, ProxyHealth};
pub use service_health::{Claim, ServiceHealth, ServiceState, assign};
