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
    /// What failed tests of the current binary said.
    said: BTreeMap<String, String>,
    /// The failed test whose words come now.
    saying: Option<String>,
    line: Vec<u8>,
    /// The test whose outcome is on a later line than its name.
    running: String,
    /// Tests of the current binary that ended well.
    ok: Vec<String>,
    skipped_as_ok: usize,
    /// Passed, failed and skipped when the current binary began.
    before: [usize; 3],
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
        // A test's own output may come between its name and its outcome.
        let skip = if line.starts_with("SKIP ") { Some(0) } else { line.find(" ... SKIP ") };
        if let Some((_, rest)) = skip.and_then(|at| line.get(at..)?.split_once("SKIP "))
            && let Some((name, reason)) = rest.split_once(": ")
        {
            self.reasons.insert(name.trim().to_owned(), reason.trim().to_owned());
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.end_binary(result);
        } else if let Some(name) = heading(line) {
            self.running.clear();
            self.saying = Some(name.to_owned());
        } else if let Some(name) = self.saying.clone() {
            self.listen(name, line);
        } else if let Some(rest) = line.strip_prefix("test ") {
            let (name, outcome) = rest.split_once(" ... ").unwrap_or_default();
            self.running.clear();
            if !self.take_outcome(name.trim(), outcome.trim()) {
                name.trim().clone_into(&mut self.running);
            }
        } else if !self.running.is_empty() {
            let name = std::mem::take(&mut self.running);
            if !self.take_outcome(&name, line) {
                self.running = name;
            }
        }
    }

    /// Takes the words of a failed test, until the list of names that follows them.
    fn listen(&mut self, name: String, line: &str) {
        let words = line.trim();
        if words == "failures:" {
            self.saying = None;
        } else if !words.is_empty() {
            let said = self.said.entry(name).or_default();
            if said.len() + words.len() < LONGEST_REASON {
                if !said.is_empty() {
                    said.push_str(" | ");
                }
                said.push_str(words);
            }
        }
    }

    /// True when `outcome` is one.
    fn take_outcome(&mut self, name: &str, outcome: &str) -> bool {
        let name = name.to_owned();
        if let Some(reason) = outcome.strip_prefix("ignored") {
            self.skipped.push((name, reason.trim_start_matches([',', ' ']).to_owned()));
        } else if outcome == "FAILED" {
            self.failed.push((name, String::new()));
        } else if outcome == "ok" {
            self.ok.push(name);
        } else {
            return false;
        }
        true
    }

    /// The binary's own sums have the last word: output without a line end may have hidden names.
    fn end_binary(&mut self, result: &str) {
        self.results += 1;
        self.settle();
        self.saying = None;
        for (name, reason) in &mut self.failed {
            if let Some(said) = self.said.remove(name).filter(|_| reason.is_empty()) {
                *reason = said;
            }
        }
        self.said.clear();
        let said = |word: &str| {
            let before = result.split(word).next().unwrap_or_default().trim_end();
            before.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0)
        };
        let [passed, failed, skipped] = self.before;
        let seen = [
            self.passed - passed + self.skipped_as_ok,
            self.failed.len() - failed,
            self.skipped.len() - skipped - self.skipped_as_ok,
        ];
        let unseen = |index: usize, word| {
            said(word).saturating_sub(seen.get(index).copied().unwrap_or_default())
        };
        let (unseen_failures, unseen_skips) = (unseen(1, "failed"), unseen(2, "ignored"));
        self.passed += unseen(0, "passed");
        let unnamed = |reason: &str| ("(name not seen)".to_owned(), reason.to_owned());
        self.failed.extend(std::iter::repeat_n(unnamed(""), unseen_failures));
        self.skipped.extend(std::iter::repeat_n(unnamed("ignored"), unseen_skips));
        self.before = [self.passed, self.failed.len(), self.skipped.len()];
        self.skipped_as_ok = 0;
    }

    /// Sorts what ended well into passed and, where a SKIP line says so, skipped.
    fn settle(&mut self) {
        self.running.clear();
        for name in std::mem::take(&mut self.ok) {
            if self.reasons.contains_key(&name) {
                self.skipped_as_ok += 1;
                self.skipped.push((name, String::new()));
            } else {
                self.passed += 1;
            }
        }
        self.explain_skips();
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
        let line = String::from_utf8_lossy(&self.line).into_owned();
        let begun = line.strip_prefix("test ").and_then(|rest| rest.split(" ... ").next());
        let running = Some(self.running.as_str()).filter(|name| !name.is_empty());
        let name = begun.or(running).unwrap_or("(the run)").trim().to_owned();
        self.settle();
        self.failed.push((name, reason.to_owned()));
    }

    /// Adds the outcome of other binaries, or of another part of the same.
    pub(super) fn join(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.results += other.results;
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

/// Bytes of a reason in the summary: its end is what is looked at first.
const LONGEST_REASON: usize = 600;

/// Returns the name in the heading over the words of a failed test: `---- name ----`, or `---- name
/// stdout ----`.
fn heading(line: &str) -> Option<&str> {
    let name = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    Some(name.strip_suffix(" stdout").unwrap_or(name))
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
    fn a_failure_is_explained_by_its_own_words() {
        let tally = tally(
            "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b ----\nno answer\n\n\
             waited 60s\n\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(tally.failed, [("b".to_owned(), "no answer | waited 60s".to_owned())]);
        assert_eq!(tally.passed, 1);
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
    fn output_between_name_and_outcome_does_not_hide_it() {
        let tally = tally(
            "test a ... SKIP b: no sctp\nok\ntest b ... hello\nFAILED\ntest c ... ok\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(tally.passed, 2);
        assert_eq!(tally.failed, [("b".to_owned(), String::new())]);
        assert!(tally.skipped.is_empty());
    }

    #[test]
    fn sums_count_what_was_printed_badly() {
        let tally =
            tally("test a ... no line endok\ntest result: ok. 2 passed; 1 failed; 1 ignored; 0\n");
        assert_eq!((tally.passed, tally.failed.len(), tally.skipped.len()), (2, 1, 1));
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
    fn parts_of_a_level_are_counted_together() {
        let mut one =
            tally("test a ... ok\ntest b ... FAILED\ntest result: FAILED. 1 passed; 1 failed\n");
        one.join(tally("test c ... ok\ntest result: ok. 1 passed; 0 failed\n"));
        assert_eq!((one.passed, one.failed.len(), one.results), (2, 1, 2));
    }

    #[test]
    fn a_broken_run_blames_the_test_that_ran() {
        let mut tally = tally("test a ... ok\ntest b    ... ");
        tally.broken("kernel panic");
        assert_eq!(tally.failed, [("b".to_owned(), "kernel panic".to_owned())]);
        assert_eq!(tally.passed, 1);
    }
}
