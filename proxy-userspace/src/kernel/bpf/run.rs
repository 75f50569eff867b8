//! Runs a program on one packet, without any interface (`BPF_PROG_TEST_RUN`).

use aya::{TestRun, TestRunOptions};

use super::{Datapath, Error, Hook, load::classifier};

/// What a program did with a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunOutput {
    /// The action code: -1 next, 7 redirect.
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
        let mut packet = vec![0; frame.len() + 64];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut packet);
        let result = classifier(&mut self.programs, hook)?.test_run(options).map_err(|source| {
            Error::Program {
                operation: "run",
                program: hook.program(),
                interface: "-".into(),
                source: Box::new(source),
            }
        })?;
        packet.truncate(result.data_size_out as usize);
        Ok(RunOutput { action: result.return_value as i32, packet })
    }
}
