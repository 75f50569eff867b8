//! Files and functions that can be read in one go.

use std::collections::BTreeSet;

use super::Violation;
use super::source::{Token, item_end, without_tests};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 80;

/// Checks the lines of a file and of each function in it; tests and comments do not count.
pub(super) fn check(file: &str, tokens: &[Token<'_>]) -> Vec<Violation> {
    let tokens = without_tests(tokens);
    let mut violations = Vec::new();
    let mut complain = |line, text| {
        violations.push(Violation { file: file.to_owned(), line, text });
    };
    let lines = code_lines(&tokens);
    if lines > FILE_LINES {
        complain(1, format!("{lines} lines of code, the limit is {FILE_LINES}"));
    }
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "fn") {
        let Some(name) = tokens.get(at + 1).filter(|name| name.is_name()) else { continue };
        let body = tokens.get(at..item_end(&tokens, at)).unwrap_or_default();
        let lines = code_lines(body);
        if lines > FUNCTION_LINES {
            let text = format!("fn {} has {lines} lines, the limit is {FUNCTION_LINES}", name.text);
            complain(token.line, text);
        }
    }
    violations
}

fn code_lines(tokens: &[Token<'_>]) -> usize {
    tokens.iter().map(|token| token.line).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::source::tokens;

    #[test]
    fn a_long_function_is_found_and_a_short_one_is_not() {
        let function = |lines| format!("fn f(a: [u8; 2]) {{\n{}}}\n", "call();\n".repeat(lines));
        assert_eq!(check("a.rs", &tokens(&function(78))), []);
        let found = check("a.rs", &tokens(&function(79)));
        assert_eq!(found.len(), 1);
        assert!(found[0].text.starts_with("fn f has 81 lines"), "{found:?}");
    }

    #[test]
    fn tests_do_not_count() {
        let body = "call();\n".repeat(700);
        assert_eq!(check("a.rs", &tokens(&format!("#[cfg(test)]\nmod tests {{\n{body}}}"))), []);
        assert_eq!(check("a.rs", &tokens(&body)).len(), 1);
    }
}
