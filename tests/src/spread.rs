//! Who answered how often.

use std::collections::BTreeMap;

/// Answers by backend.
pub type Spread = BTreeMap<String, u64>;

/// Counts the answers of each backend.
pub fn of(answers: impl IntoIterator<Item = impl Into<String>>) -> Spread {
    let mut spread = Spread::new();
    for answer in answers {
        *spread.entry(answer.into()).or_default() += 1;
    }
    spread
}

/// Whether `backends` and nobody else answered, each `times` times.
#[must_use]
pub fn is_even(spread: &Spread, backends: &[&str], times: u64) -> bool {
    let expected: Spread = backends.iter().map(|&name| (name.to_owned(), times)).collect();
    *spread == expected
}
