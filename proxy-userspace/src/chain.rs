//! An error with its causes, for people.

use std::error::Error;

/// Returns an error and its causes on one line, outermost first. Of a cause that speaks at length,
/// such as a verifier, only the first line; what is said already is not said again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        let line = next.lines().next().unwrap_or_default();
        if !text.contains(line) {
            text += &format!(": {line}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn causes_follow_once_each_and_with_their_first_line() {
        let link = |text, source| Link { text, source };
        let last = link("EPERM\nprocessed 12 insns", None);
        let middle = link("load program", Some(Box::new(last)));
        let error = link("bring up the fast path: load program", Some(Box::new(middle)));
        assert_eq!(chain(&error), "bring up the fast path: load program: EPERM");
    }
}
