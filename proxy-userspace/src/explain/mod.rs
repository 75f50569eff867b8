//! Explains what becomes of a packet, from what the kernel holds.
//!
//! ```text
//! kernel reads ──audit::dump──▶ Dump ──┐
//!         a file of `passlane dump` ───┤
//!                                      ├──trace()──▶ Trace: steps in words, and the same as values
//! protocol and 5-tuple ──▶ Packet ─────┘
//! ```
//!
//! Pure: it says of a dump what the kernel would do with that state; the same dump and packet give
//! the same words.

mod admission;
mod choice;
mod direction;
pub mod dump;
mod hashed;
mod masquerade;
mod packet;
#[cfg(test)]
mod tests;
mod trace;

pub use direction::{Direction, Standing};
pub use dump::{Dump, Flow};
pub use packet::{Packet, ParsePacketError};
pub use trace::{Chosen, Plane, Step, Trace, Verdict, trace};
