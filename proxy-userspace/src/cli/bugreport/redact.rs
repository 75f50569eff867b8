//! Takes secrets out of text. No part of a report is read from where secrets are kept; this is for
//! those that found their way elsewhere: into flags, logs, addresses. Too much removed is no harm.

/// What stands where a secret was.
const REMOVED: &str = "<removed>";

/// Words whose value is a secret, in lower case; also as the end of a longer word.
const NAMES: &[&str] = &[
    "token",
    "password",
    "passwd",
    "secret",
    "apikey",
    "api-key",
    "api_key",
    "authorization",
    "client-key-data",
    "client-certificate-data",
    "certificate-authority-data",
    "private-key",
    "private_key",
    "tls.key",
];

/// What stands before a secret in an HTTP header.
const SCHEMES: &[&str] = &["Bearer ", "bearer ", "Basic ", "basic "];

/// Returns the text without secrets.
pub(super) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_pem = false;
    for line in text.split_inclusive('\n') {
        let begins = line.find("-----BEGIN ");
        if begins.is_some() || in_pem {
            // The value of a JSON or YAML field holds all of it in one line.
            let end = line.find("-----END ").map(|end| after_pem(line, end));
            if let Some(begins) = begins {
                clean += &line_without_secrets(&line[..begins]);
                clean += REMOVED;
            }
            in_pem = end.is_none();
            match end {
                Some(end) => clean += &line_without_secrets(&line[end..]),
                None if begins.is_some() => clean.push('\n'),
                None => {}
            }
            continue;
        }
        clean += &line_without_secrets(line);
    }
    clean
}

/// Returns where a PEM block ends whose last line begins at `end`.
fn after_pem(line: &str, end: usize) -> usize {
    let label = end + "-----END ".len();
    line[label..].find("-----").map_or(line.len(), |dashes| label + dashes + 5)
}

fn line_without_secrets(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let (kept, length) = match secret(&clean, rest) {
            Some(found) => found,
            None => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                (rest[..length].to_owned(), length)
            }
        };
        clean += &kept;
        rest = &rest[length..];
    }
    clean
}

/// Looks for a secret at the start of `rest`: what replaces it, and how long it is.
fn secret(before: &str, rest: &str) -> Option<(String, usize)> {
    if before.ends_with(is_word) {
        return None;
    }
    json_web_token(rest).or_else(|| scheme(rest)).or_else(|| named(rest)).or_else(|| login(rest))
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn word(text: &str) -> &str {
    &text[..text.find(|character| !is_word(character)).unwrap_or(text.len())]
}

/// A JSON Web Token: three parts, the first of which begins an object.
fn json_web_token(rest: &str) -> Option<(String, usize)> {
    let word = word(rest);
    let parts = word.trim_end_matches('.').split('.').count();
    (word.starts_with("eyJ") && parts >= 3).then(|| (REMOVED.to_owned(), word.len()))
}

/// `Bearer …` and `Basic …`.
fn scheme(rest: &str) -> Option<(String, usize)> {
    let scheme = SCHEMES.iter().find(|scheme| rest.starts_with(**scheme))?;
    let value = value_length(&rest[scheme.len()..]);
    // "basic test", say, is no secret.
    (value >= 8).then(|| (format!("{scheme}{REMOVED}"), scheme.len() + value))
}

/// `token: …`, `"password": "…"`, `--token=…`, `--token …`.
fn named(rest: &str) -> Option<(String, usize)> {
    let word = word(rest);
    let name = word.trim_matches('-').to_ascii_lowercase();
    if name.is_empty() || !NAMES.iter().any(|secret| name.ends_with(secret)) {
        return None;
    }
    let is_flag = word.starts_with("--");
    let after = &rest[word.len()..];
    let separator = after
        .find(|character: char| !matches!(character, '"' | '\'' | ':' | '=' | ' ' | '\t' | '\\'))
        .unwrap_or(after.len());
    let between = &after[..separator];
    if !(between.contains(':') || between.contains('=') || is_flag && between.starts_with(' ')) {
        return None;
    }
    let value = &after[separator..];
    // Authorization: Bearer …
    let scheme = SCHEMES.iter().find(|scheme| value.starts_with(**scheme)).map_or(0, |it| it.len());
    let value = scheme + value_length(&value[scheme..]);
    (value > 0).then(|| (format!("{word}{between}{REMOVED}"), word.len() + separator + value))
}

/// `https://user:password@host`.
fn login(rest: &str) -> Option<(String, usize)> {
    let name = word(rest);
    let after = rest[name.len()..].strip_prefix("://")?;
    let authority = &after[..value_length(after).min(after.find('/').unwrap_or(after.len()))];
    let at = authority.find('@')?;
    Some((format!("{name}://{REMOVED}"), name.len() + 3 + at))
}

fn value_length(text: &str) -> usize {
    let ends = |character: char| {
        character.is_whitespace()
            || matches!(character, '"' | '\'' | ',' | '}' | ']' | '{' | '[' | '\\' | '\0')
    };
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwYXNzbGFuZSJ9.c2lnbmF0dXJl";

    #[test]
    fn secrets_go_and_what_is_around_them_stays() {
        for (text, expected) in [
            (format!("a {TOKEN} b"), "a <removed> b"),
            (format!("Authorization: Bearer {TOKEN}"), "Authorization: <removed>"),
            ("Authorization: Basic am9lOnMzY3JldA==\n".into(), "Authorization: <removed>\n"),
            ("said Bearer abcdefghijk.".into(), "said Bearer <removed>"),
            ("passlane run --token=s3cret --v 2".into(), "passlane run --token=<removed> --v 2"),
            ("run --token s3cret".into(), "run --token <removed>"),
            (r#"{"password": "s3cret", "a": 1}"#.into(), r#"{"password": "<removed>", "a": 1}"#),
            ("client-key-data: LS0tLS1CRUdJTg==\n".into(), "client-key-data: <removed>\n"),
            (
                "https://joe:s3cret@api.example:6443/x".into(),
                "https://<removed>@api.example:6443/x",
            ),
            (r#"msg="bearer_token=s3cret""#.into(), r#"msg="bearer_token=<removed>""#),
        ] {
            assert_eq!(redact(&text), expected);
        }
    }

    #[test]
    fn keys_and_certificates_go_whole_in_lines_and_in_one_line() {
        let pem = "before\n-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAbc=\n\
                   -----END RSA PRIVATE KEY-----\nafter\n";
        assert_eq!(redact(pem), "before\n<removed>\n\nafter\n");
        let json = r#"{"key":"-----BEGIN X-----\nMII\n-----END X-----\n","b":2}"#;
        assert_eq!(redact(json), r#"{"key":"<removed>\n","b":2}"#);
        assert!(!redact("-----BEGIN X-----\nMII without end\n").contains("MII"));
    }

    #[test]
    fn what_only_looks_like_a_secret_stays() {
        for text in [
            "TCP  10.96.0.1:443 rr persistent 10800\n",
            "[fd00::10]:80 -> [fd00:1::2]:8080",
            r#"{"token_bucket": 3, "frontend": "10.96.0.1:443/TCP"}"#,
            "the token is stamped at ingress; a basic test",
            "https://api.example:6443/healthz",
            "eyJust a word",
            "",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    proptest! {
        #[test]
        fn a_token_never_survives(before in "\\PC{0,20}", after in "[ \",;\n)].{0,20}") {
            let text = redact(&format!("{before} {TOKEN}{after}"));
            prop_assert!(!text.contains("c2lnbmF0dXJl"), "{}", text);
        }
    }
}
