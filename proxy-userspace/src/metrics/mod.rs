//! What the agent tells of itself at `/metrics`, and beside it.
//!
//! ```text
//! the loop ──Recorder: atomics, Arc swaps──▶ collect ──Samples──▶ text ──▶ server, a thread
//! BPF maps, IPVS, /proc ──reader, a thread──▶   │
//! ```
//!
//! The loop never waits for a scrape: what it writes has no lock, and server and reader have
//! threads of their own. A scrape reads the kernel only when the last reading is old, and waits for
//! it only so long; many scrapes share one.

mod collect;
mod describe;
mod drift;
mod kernel;
pub mod names;
mod reader;
mod recorder;
mod scrape;
mod server;

pub use describe::describe;
pub use drift::{Drift, DriftRecorder};
pub use recorder::{Passed, Recorder, State};
pub use scrape::{Format, Samples, Value};
pub use server::MetricsServer;
