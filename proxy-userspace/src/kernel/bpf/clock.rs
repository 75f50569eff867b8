//! The kernel's jiffies, in which flow entries keep their times.

use std::fs;

use super::{Error, jiffy};

/// They are no multiple of any clock that user space can read, so the kernel is asked: it prints
/// them for its timers.
const PATH: &str = "/proc/timer_list";

/// Jiffies at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clock {
    /// The low 32 bits.
    pub jiffies: u32,
    /// Microseconds of a jiffy.
    pub tick_us: u32,
}

impl Clock {
    /// Reads the clock; `None` where the file is hidden, as in many containers.
    ///
    /// # Errors
    ///
    /// [`Error::Tick`] when the length of a jiffy is not known.
    pub fn read() -> Result<Option<Self>, Error> {
        let tick_us = jiffy()?.as_micros() as u32;
        let text = fs::read_to_string(PATH).ok();
        Ok(text.and_then(|text| jiffies(&text)).map(|jiffies| Self { jiffies, tick_us }))
    }
}

fn jiffies(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("jiffies: "))?;
    line.trim().parse::<u64>().ok().map(|jiffies| jiffies as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_with_jiffies_counts_and_only_its_low_word() {
        let text = "Timer List Version: v0.9\ncpu: 0\n  .idle_jiffies   : 5\njiffies: 4294967301\n\
                    jiffies: 7\n";
        assert_eq!(jiffies(text), Some(5));
        assert_eq!(jiffies("Timer List Version: v0.9\n"), None);
    }
}
