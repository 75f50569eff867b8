//! What becomes of a frame.

use proxy_common::hash_reason::HashReason;

use crate::frame::Frame;

/// The end of the program's work on a frame.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    /// The kernel gets it, untouched.
    Kernel(HashReason),
    /// It is on its way to a backend.
    Sent {
        reason: HashReason,
        /// Action code: `DROP` if a window that was in the frame before is not any more, which cannot be.
        code: u32,
        /// Bytes of the client's packet, from its IP header on.
        bytes: u32,
    },
}

impl Verdict {
    /// Returns the action code.
    #[inline(always)]
    pub fn code<P: Frame>(self) -> u32 {
        match self {
            Self::Kernel(_) => P::PASS,
            Self::Sent { code, .. } => code,
        }
    }
}
