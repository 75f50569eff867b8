//! Runs a program on one packet, without any interface (`BPF_PROG_TEST_RUN`).

use aya::{Ebpf, TestRun, TestRunOptions, TestRunResult, programs::ProgramError};

use super::{
    Datapath, Error, Hook,
    load::{CLOCK, TRANSIT, classifier, xdp},
};

/// Bytes that a frame can grow by: an outer header of IPv6, UDP, GUE and a VLAN tag.
const GROWTH: usize = 64;

/// What a program did with a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunOutput {
    /// The action code. At tc -1 next, 7 redirect; at XDP 2 pass, 3 transmit, 4 redirect.
    pub action: i32,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
}

impl Datapath {
    /// Runs a hook's program on a frame as if it came in by the loopback device, whose index is 1
    /// and whose MAC address is all zero. A redirect is decided, not carried out.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> Result<RunOutput, Error> {
        let program = hook.program();
        run_frame(frame, None, 1, |options| run_tc(&mut self.programs, program, options))
    }

    /// Runs the program for uplinks on a frame as if it came in by this interface. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn run_transit(&mut self, interface: u32, frame: &[u8]) -> Result<RunOutput, Error> {
        self.repeat_transit(interface, frame, 1)
    }

    /// The same again and again, each time on what the last time made of the frame.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn repeat_transit(
        &mut self,
        interface: u32,
        frame: &[u8],
        times: u32,
    ) -> Result<RunOutput, Error> {
        let context = xdp_context(0, interface, frame);
        let run = |options: TestRunOptions<'_>| run_xdp(&mut self.programs, TRANSIT, options);
        run_frame(frame, Some(&context), times, run)
    }

    /// Returns the low word of the kernel's jiffies, in which entries keep their times.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run the program that tells it.
    pub fn jiffies(&mut self) -> Result<u32, Error> {
        jiffies(&mut self.programs)
    }

    /// Runs the program that reads the clock, again and again: what a run costs by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run it.
    pub fn repeat_clock(&mut self, frame: &[u8], times: u32) -> Result<(), Error> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = times;
        run_xdp(&mut self.programs, CLOCK, options).map(drop)
    }
}

/// Runs a program on a frame so many times, each time on what the last time made of it. Without a
/// context it came in by the loopback device.
pub(super) fn run_frame(
    frame: &[u8],
    context: Option<&[u8]>,
    times: u32,
    run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, Error>,
) -> Result<RunOutput, Error> {
    let mut packet = vec![0; frame.len() + GROWTH];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut packet);
    options.ctx_in = context;
    options.repeat = times;
    let result = run(options)?;
    packet.truncate(result.data_size_out as usize);
    Ok(RunOutput { action: result.return_value as i32, packet })
}

/// Returns `struct xdp_md` of a frame that came in by this interface, behind so many bytes of metadata.
pub(super) fn xdp_context(metadata: u32, interface: u32, frame: &[u8]) -> Vec<u8> {
    // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [metadata, frame.len() as u32, 0, interface, 0, 0];
    context.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Runs a program for tc.
pub(super) fn run_tc(
    programs: &mut Ebpf,
    name: &'static str,
    options: TestRunOptions<'_>,
) -> Result<TestRunResult, Error> {
    classifier(programs, name)?.test_run(options).map_err(failed(name))
}

/// Runs an XDP program.
pub(super) fn run_xdp(
    programs: &mut Ebpf,
    name: &'static str,
    options: TestRunOptions<'_>,
) -> Result<TestRunResult, Error> {
    xdp(programs, name)?.test_run(options).map_err(failed(name))
}

fn failed(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program {
        operation: "run",
        program,
        interface: "-".into(),
        source: Box::new(source),
    }
}

/// Returns the low word of the kernel's jiffies, in which entries keep their times.
pub(super) fn jiffies(programs: &mut Ebpf) -> Result<u32, Error> {
    let mut options = TestRunOptions::new();
    // No frame is shorter.
    options.data_in = Some(&[0; 14]);
    Ok(run_xdp(programs, CLOCK, options)?.return_value)
}
