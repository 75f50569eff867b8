//! What health checks found, for people and for programs.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    checks::{BackendCheck, Change},
    model::Backend,
};

const NONE: &str = "<none>";

/// A check of a backend for a Service.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// NAMESPACE/NAME.
    pub(super) service: String,
    check: String,
    up: bool,
    /// Seconds since 1970.
    since: u64,
    /// What the try said that made it so; empty before the first change.
    why: String,
    changes: u64,
    /// The last changes, the newest last.
    history: Vec<Change>,
    /// Seconds since 1970, when all this was read.
    #[serde(skip)]
    now: u64,
}

/// Returns the seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Sorts what was found by backend.
pub(super) fn by_backend(found: Vec<BackendCheck>, now: u64) -> BTreeMap<Backend, Vec<Check>> {
    let mut checks = BTreeMap::<Backend, Vec<Check>>::new();
    for BackendCheck { service, backend, check, state } in found {
        checks.entry(backend).or_default().push(Check {
            service: service.to_string(),
            check,
            up: state.up,
            since: state.since,
            why: state.why,
            changes: state.changes,
            history: state.history.into(),
            now,
        });
    }
    checks
}

/// Says whether some Service has found it down.
pub(super) fn is_down(checks: &[Check]) -> bool {
    checks.iter().any(|check| !check.up)
}

/// Returns `up`, or for how long it is down. Where Services check it and find different things, the
/// worse.
pub(super) fn short(checks: &[Check]) -> String {
    match (checks.iter().filter(|check| !check.up).min_by_key(|check| check.since), checks) {
        (Some(down), _) => format!("down {}", age(down.now, down.since)),
        (None, []) => NONE.to_owned(),
        (None, _) => "up".to_owned(),
    }
}

/// Returns the same with the reason.
pub(super) fn long(checks: &[Check]) -> String {
    let words = checks.iter().map(|check| {
        let word = if check.up { "up" } else { "down" };
        let age = age(check.now, check.since);
        match check.why.as_str() {
            "" => format!("{word} {age}"),
            why => format!("{word} {age}: {why}"),
        }
    });
    joined(words, "; ")
}

/// Returns the last changes, the newest first.
pub(super) fn changes(checks: &[Check]) -> String {
    let changes = checks.iter().flat_map(|check| {
        check.history.iter().rev().map(|change| {
            format!("{} {} ago", if change.up { "up" } else { "down" }, age(check.now, change.at))
        })
    });
    joined(changes, ", ")
}

fn joined(words: impl Iterator<Item = String>, between: &str) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { NONE.to_owned() } else { words.join(between) }
}

/// Returns a time as kubectl prints ages.
fn age(now: u64, at: u64) -> String {
    match now.saturating_sub(at) {
        secs @ 0..120 => format!("{secs}s"),
        secs @ 120..7_200 => format!("{}m", secs / 60),
        secs @ 7_200..172_800 => format!("{}h", secs / 3_600),
        secs => format!("{}d", secs / 86_400),
    }
}

#[cfg(test)]
pub(super) fn example(service: &str, changes: &[(u64, bool, &str)], now: u64) -> Check {
    let change =
        |(at, up, why): &(u64, bool, &str)| Change { at: *at, up: *up, why: (*why).into() };
    let history: Vec<Change> = changes.iter().map(change).collect();
    Check {
        service: service.to_owned(),
        check: "tcp,interval=5000ms,timeout=2000ms,rise=2,fall=3,initial=up".to_owned(),
        up: history.last().is_none_or(|change| change.up),
        since: history.last().map_or(900, |change| change.at),
        why: history.last().map(|change| change.why.clone()).unwrap_or_default(),
        changes: history.len() as u64,
        history,
        now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_one_service_finds_down_is_down() {
        let up = || example("shop/a", &[], 1_000);
        let down = || {
            example(
                "shop/b",
                &[(700, false, "late"), (800, true, "well"), (901, false, "status 503")],
                1_000,
            )
        };
        assert_eq!(short(&[]), "<none>");
        assert_eq!(short(&[up()]), "up");
        assert_eq!(short(&[up(), down()]), "down 99s");
        assert_eq!(long(&[up(), down()]), "up 100s; down 99s: status 503");
        assert_eq!(changes(&[up(), down()]), "down 99s ago, up 3m ago, down 5m ago");
        assert_eq!(
            (age(7_200, 0), age(172_800, 0), age(0, 5)),
            ("2h".into(), "2d".into(), "0s".into())
        );
    }
}
