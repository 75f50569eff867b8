//! Rust source as tokens with line numbers: enough to see imports, `unsafe` and function ends.

/// A token: an identifier, `::`, or one other character. Literals and comments are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

impl Token<'_> {
    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Splits source into tokens.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let skipped = skip(rest);
        let length = if skipped > 0 { skipped } else { token_length(rest) };
        let piece = rest.get(..length).unwrap_or(rest);
        if skipped == 0 {
            found.push(Token { text: piece, line });
        }
        line += piece.matches('\n').count();
        at += piece.len();
    }
    found
}

fn token_length(rest: &str) -> usize {
    if rest.starts_with("::") {
        return 2;
    }
    let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    if name > 0 { name } else { rest.chars().next().map_or(1, char::len_utf8) }
}

/// The length of the space, comment or literal that `rest` starts with; 0 when it starts a token.
fn skip(rest: &str) -> usize {
    let space = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
    if space > 0 {
        return space;
    }
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return comment_length(rest);
    }
    let prefix = rest.find(['"', '\'', '#']).unwrap_or(0);
    match rest.get(..prefix) {
        Some("" | "b" | "c") if rest.get(prefix..).is_some_and(|text| text.starts_with('"')) => {
            prefix + quoted_length(rest.get(prefix..).unwrap_or_default())
        }
        Some("r" | "br" | "cr") => raw_length(rest, prefix),
        Some("" | "b") => character_length(rest, prefix),
        _ => 0,
    }
}

fn comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        let (step, change) = if here.starts_with("/*") {
            (2, 1)
        } else if here.starts_with("*/") {
            (2, -1)
        } else {
            (here.chars().next().map_or(1, char::len_utf8), 0)
        };
        at += step;
        depth += change;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a literal in double quotes with escapes.
fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r#"…"#`; 0 for `r#name`.
fn raw_length(rest: &str, prefix: usize) -> usize {
    let after = rest.get(prefix..).unwrap_or_default();
    let hashes = after.chars().take_while(|c| *c == '#').count();
    if !after.get(hashes..).unwrap_or_default().starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix + hashes + 1;
    let found = rest.get(body..).and_then(|text| text.find(&end));
    found.map_or(rest.len(), |at| body + at + end.len())
}

/// The length of `'x'` or `'\n'`, and of the tick of a lifetime; 0 for anything else.
fn character_length(rest: &str, prefix: usize) -> usize {
    let Some(body) = rest.get(prefix..).and_then(|text| text.strip_prefix('\'')) else { return 0 };
    let mut chars = body.char_indices();
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((_, escaped))) => {
            let from = 1 + escaped.len_utf8();
            let end = body.get(from..).and_then(|text| text.find('\''));
            end.map_or(rest.len(), |at| prefix + 1 + from + at + 1)
        }
        (Some(_), Some((at, '\''))) => prefix + 1 + at + 1,
        _ => prefix + 1,
    }
}

/// Leaves out what is compiled for tests only.
pub(super) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let here = tokens.get(at..at + ATTRIBUTE.len()).unwrap_or_default();
        if here.iter().map(|token| token.text).eq(ATTRIBUTE) {
            at = item_end(tokens, at + ATTRIBUTE.len());
        } else {
            kept.push(*token);
            at += 1;
        }
    }
    kept
}

/// The index after the item that starts at `from`: after its `;`, or after its closing brace.
pub(super) fn item_end(tokens: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" if depth <= 1 => return at + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.text).collect()
    }

    #[test]
    fn literals_and_comments_are_left_out() {
        let text = r####"a::b /* x /* y */ */ "s\"t" r#"u " "# b'\'' '"' 'life // end
            c"####;
        assert_eq!(texts(text), ["a", "::", "b", "life", "c"]);
        assert_eq!(tokens("a\n\"\n\"\nb").last().unwrap().line, 4);
    }

    #[test]
    fn test_modules_are_left_out() {
        let text = "fn a() {} #[cfg(test)] mod tests { fn b() { [1; 2]; } } #[cfg(test)] mod t; c";
        let tokens = tokens(text);
        let kept: Vec<_> = without_tests(&tokens).iter().map(|token| token.text).collect();
        assert_eq!(kept, ["fn", "a", "(", ")", "{", "}", "c"]);
    }
}
