//! Runs the program on one frame, without any interface (`BPF_PROG_TEST_RUN`).

use super::{
    super::{
        Error, RunOutput,
        run::{jiffies, run_frame, run_tc, run_xdp, xdp_context},
    },
    HashPlane,
    load::{TC, XDP},
};
use crate::model::HashMode;

/// Bytes of `struct __sk_buff` as far as it is used, and where things are in it (`linux/bpf.h`).
const SK_BUFF: usize = 180;
const IFINDEX: usize = 40;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

/// What the kernel notes of a packet that is several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merged {
    /// How many.
    pub segments: u32,
    /// Payload bytes of each.
    pub segment: u32,
}

impl HashPlane {
    /// Runs the program on a frame as if it came in by this interface, a VLAN tag in it: that is where
    /// it is at XDP. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn run(&mut self, interface: u32, frame: &[u8]) -> Result<RunOutput, Error> {
        self.repeat(interface, frame, 1)
    }

    /// The same again and again, each time on what the last time made of the frame.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn repeat(&mut self, interface: u32, frame: &[u8], times: u32) -> Result<RunOutput, Error> {
        match self.mode {
            HashMode::Tc => self.run_merged(Merged::default(), interface, frame, times),
            _ => self.run_behind(0, interface, frame, times),
        }
    }

    /// Runs the program for tc on a frame that was made of several.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn run_merged(
        &mut self,
        merged: Merged,
        interface: u32,
        frame: &[u8],
        times: u32,
    ) -> Result<RunOutput, Error> {
        let mut context = [0; SK_BUFF];
        for (at, value) in
            [(IFINDEX, interface), (GSO_SEGS, merged.segments), (GSO_SIZE, merged.segment)]
        {
            if let Some(word) = context.get_mut(at..at + 4) {
                word.copy_from_slice(&value.to_ne_bytes());
            }
        }
        run_frame(frame, Some(&context), times, |options| run_tc(&mut self.programs, TC, options))
    }

    /// Runs the program for XDP on a frame whose headroom is taken, but for a few bytes, by what a driver
    /// wrote in front of it: the first `metadata` bytes of `data`, a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn run_behind(
        &mut self,
        metadata: u32,
        interface: u32,
        data: &[u8],
        times: u32,
    ) -> Result<RunOutput, Error> {
        let context = xdp_context(metadata, interface, data);
        run_frame(data, Some(&context), times, |options| run_xdp(&mut self.programs, XDP, options))
    }

    /// Returns the low word of the kernel's jiffies, in which flows and next hops keep their times.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run the program that tells it.
    pub fn jiffies(&mut self) -> Result<u32, Error> {
        jiffies(&mut self.programs)
    }
}
