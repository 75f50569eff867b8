//! `--watch`: the same again and again, until stopped or nobody reads.

use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};

use clap::Args;

use super::{
    Failure, FormatFlag,
    output::{self, Layout, View},
};
use crate::config::duration::GoDuration;

/// Below this, the reading itself would be what is seen.
const SHORTEST: Duration = Duration::from_millis(100);
/// Cursor to the top left, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The flags of verbs that can go on printing.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Repeat {
    /// Print again at every interval, until stopped: JSON as one document a line
    #[arg(short, long)]
    watch: bool,
    /// Between two prints of --watch
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: GoDuration,
}

pub(super) fn interval(text: &str) -> Result<GoDuration, String> {
    let interval: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    match interval.0 < SHORTEST {
        true => Err(format!("{text} is too short; write 100ms or more")),
        false => Ok(interval),
    }
}

impl Repeat {
    /// Prints what `gather` finds, once or again and again, and returns what it found last.
    pub(super) fn show<V: View>(
        self,
        format: &FormatFlag,
        mut gather: impl FnMut() -> Result<V, Failure>,
    ) -> Result<V, Failure> {
        let FormatFlag { output, no_headers } = *format;
        loop {
            let view = gather()?;
            let text = output::show(&view, output, !no_headers, self.layout())?;
            if !self.print(&text, output.is_text())? {
                return Ok(view);
            }
        }
    }

    /// The same for text.
    pub(super) fn text(
        self,
        mut gather: impl FnMut() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        while self.print(&gather()?, true)? {}
        Ok(())
    }

    fn layout(self) -> Layout {
        if self.watch { Layout::Sequence } else { Layout::Alone }
    }

    /// Prints a page; says whether another one is wanted.
    fn print(self, text: &str, is_text: bool) -> Result<bool, Failure> {
        if !self.watch {
            output::text(text)?;
            return Ok(false);
        }
        let read = match (is_text, io::stdout().is_terminal()) {
            (true, true) => output::page(&format!("{CLEAR}{text}")),
            // A blank line ends a page.
            (true, false) => output::page(&format!("{text}\n")),
            (false, _) => output::page(text),
        };
        let wanted = read?;
        if wanted {
            thread::sleep(self.interval.0);
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_time_of_a_tenth_of_a_second_or_more() {
        assert_eq!(interval("1.5s").unwrap().0, Duration::from_millis(1500));
        for wrong in ["0", "99ms", "2", "soon"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
