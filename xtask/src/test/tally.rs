//! Counting what test binaries print: lines as libtest writes them, and `SKIP <test>: <reason>`.

use std::collections::BTreeMap;

/// The outcome of one or more test binaries.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: usize,
    /// Name and what is known about it.
    pub(super) failed: Vec<(String, String)>,
    /// Name and reason.
    pub(super) skipped: Vec<(String, String)>,
    /// Binaries that came to their end.
    pub(super) results: usize,
    reasons: BTreeMap<String, String>,
    line: Vec<u8>,
}

impl Tally {
    /// Takes the next piece of output.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take_line(String::from_utf8_lossy(&line).trim_end());
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        if let Some((name, reason)) =
            line.strip_prefix("SKIP ").and_then(|rest| rest.split_once(": "))
        {
            self.reasons.insert(name.trim().to_owned(), reason.trim().to_owned());
        } else if line.starts_with("test result: ") {
            self.results += 1;
            self.explain_skips();
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            self.take_outcome(name.trim(), outcome.trim());
        }
    }

    fn take_outcome(&mut self, name: &str, outcome: &str) {
        let name = name.to_owned();
        if let Some(reason) = outcome.strip_prefix("ignored") {
            self.skipped.push((name, reason.trim_start_matches([',', ' ']).to_owned()));
        } else if outcome.starts_with("FAILED") {
            self.failed.push((name, String::new()));
        } else if outcome.starts_with("ok") {
            if self.reasons.contains_key(&name) {
                self.skipped.push((name, String::new()));
            } else {
                self.passed += 1;
            }
        }
    }

    /// A SKIP line may come before or after the outcome of its test.
    fn explain_skips(&mut self) {
        for (name, reason) in &mut self.skipped {
            if let Some(given) = self.reasons.get(name) {
                reason.clone_from(given);
            }
            if reason.is_empty() {
                "ignored".clone_into(reason);
            }
        }
    }

    /// The binaries did not come to their end: counts one failure for what was going on.
    pub(super) fn broken(&mut self, reason: &str) {
        self.explain_skips();
        let line = String::from_utf8_lossy(&self.line);
        let running = line.strip_prefix("test ").and_then(|rest| rest.split(" ... ").next());
        let name = running.unwrap_or("(the run)").trim().to_owned();
        self.failed.push((name, reason.to_owned()));
    }

    /// Turns skips into failures, except those whose reason says that they are optional.
    pub(super) fn forbid_skips(&mut self) {
        let (optional, forbidden) = std::mem::take(&mut self.skipped)
            .into_iter()
            .partition(|(_, reason)| reason.starts_with("optional:"));
        self.skipped = optional;
        let forbidden: Vec<(String, String)> = forbidden;
        self.failed.extend(
            forbidden.into_iter().map(|(name, reason)| (name, format!("skipped: {reason}"))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        tally.feed(text.as_bytes());
        tally
    }

    #[test]
    fn outcomes_are_counted_by_name() {
        let tally = tally(
            "running 4 tests\n\
             test a::b     ... ok\n\
             test src/lib.rs - c (line 3) ... ok\n\
             test d ... FAILED\n\
             test e ... ignored, needs a disk\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((tally.passed, tally.results), (2, 1));
        assert_eq!(tally.failed, [("d".to_owned(), String::new())]);
        assert_eq!(tally.skipped, [("e".to_owned(), "needs a disk".to_owned())]);
    }

    #[test]
    fn a_skip_line_gives_the_reason_in_either_order() {
        let before = "SKIP x: no sctp\ntest x ... ok\ntest result: ok. 1 passed\n";
        let after = "test x ... ignored\nSKIP x: no sctp\ntest result: ok. 0 passed\n";
        for text in [before, after] {
            let tally = tally(text);
            assert_eq!(tally.passed, 0);
            assert_eq!(tally.skipped, [("x".to_owned(), "no sctp".to_owned())]);
        }
    }

    #[test]
    fn forbidden_skips_fail_but_optional_ones_do_not() {
        let mut tally = tally(
            "SKIP x: no sctp\nSKIP y: optional: slow\ntest x ... ignored\ntest y ... ignored\ntest result: ok.\n",
        );
        tally.forbid_skips();
        assert_eq!(tally.failed, [("x".to_owned(), "skipped: no sctp".to_owned())]);
        assert_eq!(tally.skipped, [("y".to_owned(), "optional: slow".to_owned())]);
    }

    #[test]
    fn a_broken_run_blames_the_test_that_ran() {
        let mut tally = tally("test a ... ok\ntest b    ... ");
        tally.broken("kernel panic");
        assert_eq!(tally.failed, [("b".to_owned(), "kernel panic".to_owned())]);
        assert_eq!(tally.passed, 1);
    }
}
