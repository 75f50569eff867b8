//! What becomes of a packet.

/// `TC_ACT_UNSPEC`, also `TCX_NEXT`: go on as if the program were not there. `TC_ACT_OK` would
/// overwrite `tc_index`, the token.
const NEXT: i32 = -1;
/// `XDP_PASS`: the kernel makes a packet of the frame, and tc sees it.
const XDP_PASS: u32 = 2;

/// The end of a program's work on a packet.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    /// The kernel goes on with it.
    Slow,
    /// It left by the fast path; the action code that the redirect helper returned.
    Fast(i32),
}

impl Verdict {
    /// Returns the action code for tc.
    #[inline(always)]
    pub fn code(self) -> i32 {
        match self {
            Self::Slow => NEXT,
            Self::Fast(code) => code,
        }
    }

    /// Returns the action code for XDP.
    #[inline(always)]
    pub fn xdp_code(self) -> u32 {
        match self {
            Self::Slow => XDP_PASS,
            Self::Fast(code) => code as u32,
        }
    }
}
