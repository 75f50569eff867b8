//! The difference between two texts, for people.

use std::fmt::Write;

/// Lines printed around a difference.
const CONTEXT: usize = 3;

/// Returns the lines of both texts: `-` only expected, `+` only actual, with some context.
pub(crate) fn lines(expected: &str, actual: &str) -> String {
    let expected: Vec<_> = expected.lines().collect();
    let actual: Vec<_> = actual.lines().collect();
    let marked = mark(&expected, &actual);
    let near = |index: usize| {
        let from = index.saturating_sub(CONTEXT);
        marked.iter().skip(from).take(index - from + CONTEXT + 1).any(|(sign, _)| *sign != ' ')
    };
    let mut text = String::new();
    let mut skipped = false;
    for (index, (sign, line)) in marked.iter().enumerate() {
        if near(index) {
            let _ = writeln!(text, "{sign} {line}");
        } else if !skipped {
            text.push_str("  ...\n");
        }
        skipped = !near(index);
    }
    text
}

/// Marks each line, by the longest common subsequence.
fn mark<'a>(expected: &[&'a str], actual: &[&'a str]) -> Vec<(char, &'a str)> {
    // common[e][a]: length of the longest common subsequence of expected[e..] and actual[a..].
    let mut common = vec![vec![0_usize; actual.len() + 1]; expected.len() + 1];
    for e in (0..expected.len()).rev() {
        for a in (0..actual.len()).rev() {
            common[e][a] = if expected[e] == actual[a] {
                common[e + 1][a + 1] + 1
            } else {
                common[e + 1][a].max(common[e][a + 1])
            };
        }
    }
    let (mut e, mut a) = (0, 0);
    let mut marked = Vec::new();
    while e < expected.len() || a < actual.len() {
        if e < expected.len() && a < actual.len() && expected[e] == actual[a] {
            marked.push((' ', expected[e]));
            (e, a) = (e + 1, a + 1);
        } else if a == actual.len() || e < expected.len() && common[e + 1][a] >= common[e][a + 1] {
            marked.push(('-', expected[e]));
            e += 1;
        } else {
            marked.push(('+', actual[a]));
            a += 1;
        }
    }
    marked
}
