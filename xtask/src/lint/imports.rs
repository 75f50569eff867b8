//! Who may import whom in proxy-userspace: the data flow of the design, kept by a check.

use super::Violation;
use super::source::{Token, without_tests};

/// A top-level module and what it may name.
struct Room {
    name: &'static str,
    /// Other modules of the crate; none means any.
    rooms: Option<&'static [&'static str]>,
    /// External crates; none means any that no room owns.
    crates: Option<&'static [&'static str]>,
}

/// What decides is pure: no clock, no kernel, no randomness, nothing asynchronous, no logging.
const PURE: Option<&[&str]> =
    Some(&["std", "core", "alloc", "ipnet", "serde", "thiserror", "proxy_common"]);

/// What a pure room may not name of the crates it may use.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

const ROOMS: &[Room] = &[
    Room { name: "model", rooms: Some(&[]), crates: PURE },
    Room { name: "plan", rooms: Some(&["model"]), crates: PURE },
    Room { name: "explain", rooms: Some(&["model"]), crates: PURE },
    Room { name: "source", rooms: Some(&["model", "chain", "tally"]), crates: None },
    Room { name: "kernel", rooms: Some(&["model"]), crates: None },
    Room { name: "health", rooms: Some(&["model", "kernel", "tally"]), crates: None },
    Room { name: "apply", rooms: Some(&["model", "plan", "kernel", "ledger"]), crates: None },
];

/// Only this room does I/O on the node, so only it may name these.
const OWNER: &str = "kernel";
const OWNED: &[&str] =
    &["aya", "aya_obj", "rtnetlink", "netlink_", "nftables", "rustix::mount", "rustix::net"];

/// Checks one file. `path` is below proxy-userspace/src; `dependencies` are the crate's own.
pub(super) fn check(path: &str, tokens: &[Token<'_>], dependencies: &[String]) -> Vec<Violation> {
    let room = path.split(['/', '.']).next().unwrap_or_default();
    let tokens = without_tests(tokens);
    let mut violations = Vec::new();
    for (named, line) in paths(&tokens) {
        let reason = match named.as_slice() {
            ["crate", other, ..] => wrong_room(room, other),
            ["super", ..] => beyond(path, &named).and_then(|other| wrong_room(room, other)),
            [first, ..] if is_external(first, dependencies) => wrong_crate(room, &named),
            _ => None,
        };
        if let Some(reason) = reason {
            let text = format!("`{}`: {reason}", named.join("::"));
            violations.push(Violation { file: format!("proxy-userspace/src/{path}"), line, text });
        }
    }
    violations
}

fn is_external(name: &str, dependencies: &[String]) -> bool {
    matches!(name, "std" | "core" | "alloc") || dependencies.iter().any(|known| known == name)
}

fn wrong_room(room: &str, other: &str) -> Option<String> {
    let allowed = ROOMS.iter().find(|known| known.name == room)?.rooms?;
    (other != room && !allowed.contains(&other)).then(|| {
        let may = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        format!("{room} may use {may} beside itself")
    })
}

fn wrong_crate(room: &str, named: &[&str]) -> Option<String> {
    let full = named.join("::");
    let allowed = ROOMS.iter().find(|known| known.name == room).and_then(|room| room.crates);
    if let Some(allowed) = allowed
        && !named.first().is_some_and(|first| allowed.contains(first))
    {
        return Some(format!("{room} decides and may use only {}", allowed.join(", ")));
    }
    if allowed.is_some() && is_listed(&full, IMPURE) {
        return Some(format!("{room} decides: same input, same output"));
    }
    (is_listed(&full, OWNED) && room != OWNER).then(|| format!("only {OWNER} talks to the node"))
}

fn is_listed(path: &str, list: &[&str]) -> bool {
    list.iter()
        .filter_map(|listed| Some((listed, path.strip_prefix(listed)?)))
        .any(|(listed, rest)| rest.is_empty() || rest.starts_with("::") || listed.ends_with('_'))
}

/// The top-level module that a `super::…` path names when it leaves its own.
fn beyond<'a>(path: &str, named: &[&'a str]) -> Option<&'a str> {
    let depth = path.trim_end_matches("/mod.rs").trim_end_matches(".rs").split('/').count();
    let ups = named.iter().take_while(|name| **name == "super").count();
    // An inline module may go up once more than its file; it then stays inside.
    (ups == depth).then(|| named.get(ups).copied()).flatten()
}

/// Every path that is named, `use` trees spread out.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<(Vec<&'a str>, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        // `use<'a>` in a type says what it captures.
        let captures = tokens.get(at + 1).is_some_and(|next| next.text == "<");
        if token.text == "use" && !captures {
            at = spread(tokens, at + 1, &[], &mut found);
        } else if token.is_name() && (at == 0 || tokens.get(at - 1).is_none_or(|t| t.text != "::"))
        {
            let path = path_at(tokens, at);
            at += path.len() * 2 - 1;
            if path.len() > 1 {
                found.push((path, token.line));
            }
        } else {
            at += 1;
        }
    }
    found
}

/// The names joined by `::` from `at` on.
fn path_at<'a>(tokens: &[Token<'a>], at: usize) -> Vec<&'a str> {
    let mut names = Vec::new();
    for pair in tokens.get(at..).unwrap_or_default().chunks(2) {
        let Some(name) = pair.first().filter(|token| token.is_name()) else { break };
        names.push(name.text);
        if pair.get(1).is_none_or(|token| token.text != "::") {
            break;
        }
    }
    names
}

/// Reads one branch of a `use` tree with what stands before it; returns the index after it.
fn spread<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<(Vec<&'a str>, usize)>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = spread(tokens, at, &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            "as" => at += 2,
            "," | ";" | "}" => break,
            name => {
                path.push(name);
                at += 1;
            }
        }
    }
    let line = tokens.get(at.saturating_sub(1)).map_or(0, |token| token.line);
    found.push((path, line));
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::source::tokens;

    fn violations(path: &str, text: &str) -> Vec<String> {
        let dependencies = ["tokio", "aya", "rtnetlink", "netlink_packet_core", "rustix", "serde"];
        let dependencies = dependencies.map(str::to_owned);
        let found = check(path, &tokens(text), &dependencies);
        found.into_iter().map(|violation| violation.text).collect()
    }

    #[test]
    fn model_is_pure_and_stands_alone() {
        assert_eq!(violations("model/service.rs", "use serde::Serialize; use super::X;").len(), 0);
        assert_eq!(violations("model/service.rs", "fn a() { tokio::spawn(x) }").len(), 1);
        assert_eq!(violations("model/service.rs", "use std::{fmt, time::Instant};").len(), 1);
        assert_eq!(violations("model/service.rs", "use std::time::Duration;").len(), 0);
        assert_eq!(violations("model/service.rs", "use crate::plan::Action;").len(), 1);
        assert_eq!(violations("model/service.rs", "use super::super::plan::Action;").len(), 1);
    }

    #[test]
    fn nested_use_trees_are_spread_out() {
        let text = "use crate::{model::{Service, node::{A, B as C}}, kernel::ipvs::{self, X}};";
        let found = violations("plan/diff.rs", text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("`crate::kernel::ipvs::self`: plan may use model beside itself")
        );
    }

    #[test]
    fn a_use_that_captures_is_no_import() {
        let text = "fn a() -> impl Sized + use<> { b; } use crate::kernel::ipvs;";
        assert_eq!(violations("plan/diff.rs", text).len(), 1);
    }

    #[test]
    fn only_kernel_talks_to_the_node() {
        for text in ["use aya::Ebpf;", "use netlink_packet_core::A;", "rustix::net::socket()"] {
            assert_eq!(violations("agent/mod.rs", text).len(), 1, "{text}");
            assert_eq!(violations("kernel/bpf/load.rs", text).len(), 0, "{text}");
        }
        assert_eq!(violations("cli/run.rs", "rustix::process::getpid()").len(), 0);
    }

    #[test]
    fn source_and_kernel_know_the_model_only() {
        assert_eq!(violations("source/file.rs", "use crate::model::Service;").len(), 0);
        assert_eq!(violations("source/file.rs", "crate::kernel::ipvs::Client").len(), 1);
        assert_eq!(violations("kernel/mod.rs", "use crate::plan::Action;").len(), 1);
        assert_eq!(violations("apply/mod.rs", "use crate::source::file;").len(), 1);
    }

    #[test]
    fn tests_and_strings_are_free() {
        let text = "const A: &str = \"tokio::x\"; #[cfg(test)] mod tests { use tokio::x; }";
        assert_eq!(violations("plan/diff.rs", text).len(), 0);
    }
}
