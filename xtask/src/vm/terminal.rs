//! The caller's terminal while a guest uses it.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios};

use super::frame::Size;

/// Raw mode until dropped: the guest's own terminal does echo, editing and signals.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    pub(super) fn enter() -> rustix::io::Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing better can be done for a terminal that has gone.
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The size of the caller's terminal; none unless all three streams are one.
pub(super) fn size() -> Option<Size> {
    let all = io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal();
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| all)?;
    Some(Size { rows: size.ws_row, columns: size.ws_col })
}
