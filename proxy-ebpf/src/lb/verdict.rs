//! What becomes of a frame.

use proxy_common::hash_reason::HashReason;

/// `XDP_ABORTED`: the frame is dropped, and the tracepoint `xdp_exception` tells.
const ABORTED: u32 = 0;
/// `XDP_PASS`: the kernel gets the frame.
const PASS: u32 = 2;
/// `XDP_TX`: out of the interface that it came in by.
pub const TX: u32 = 3;

/// The end of the program's work on a frame.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    /// The kernel gets it, untouched.
    Kernel(HashReason),
    /// It is on its way to a backend.
    Sent {
        reason: HashReason,
        /// Action code.
        code: u32,
        /// Bytes of the client's packet, from its IP header on.
        bytes: u32,
    },
    /// A window that was in the frame before is not any more: that cannot be.
    Broken(HashReason),
}

impl Verdict {
    /// Returns the action code.
    #[inline(always)]
    pub fn code(self) -> u32 {
        match self {
            Self::Kernel(_) => PASS,
            Self::Sent { code, .. } => code,
            Self::Broken(_) => ABORTED,
        }
    }
}
