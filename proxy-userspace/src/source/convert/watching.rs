//! Annotations about health checks. As with the others, a value that is not understood is a notice,
//! and what it is about has its default.

use std::net::IpAddr;

use super::{Strictness, address, annotation};
use crate::{
    model::{Check, Get, Notice, OnFailure, Probe, ServiceName, SorryServer, Watching},
    source::{
        Found,
        manifest::{Annotations, Leaf, Loose},
    },
};

/// Milliseconds. More often is a load of its own; a backend that is looked at less often than this
/// is not watched.
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;
const LEAST_TIMEOUT_MS: u32 = 10;
/// Tries in a row.
const TRIES: std::ops::RangeInclusive<u32> = 1..=100;
const QUORUMS: std::ops::RangeInclusive<u32> = 1..=1_000_000;

const CHECKS: &str = "backends are not checked; write tcp, http, https or command, and options after \
                      commas: path=/healthz, status=200-299, host=NAME, run=/PROGRAM ARGUMENTS, \
                      port=PORT, interval=5s, timeout=2s, rise=2, fall=3, initial=up|down";
const QUORUM: &str = "1 is used; write a number from 1 to 1000000";
const ON_FAILURE: &str = "inhibit is used; write inhibit or remove";
const SORRY: &str = "there is no sorry server; write ADDRESS or ADDRESS:PORT, at most one in each \
                     address family, with a comma between";

/// Reads the annotations; `None` when nothing is to be watched.
pub(super) fn watching(
    annotations: &Annotations,
    service: &ServiceName,
    strictness: Strictness,
    notices: &mut Vec<Notice>,
) -> Option<Box<Watching>> {
    let mut tell = |annotation, value: String, why: String| {
        notices.push(Notice::UnknownWatching { service: service.clone(), annotation, value, why });
    };
    let Annotations { health_check, health_quorum, on_failure, sorry_server, .. } = annotations;
    let mut watching = Watching::default();
    if let Some(value) = health_check.as_ref().map(text) {
        match check(&value).and_then(|check| allowed(check, strictness)) {
            Ok(check) => watching.check = Some(check),
            Err(why) => tell("health-check", value, format!("{why}: {CHECKS}")),
        }
    }
    if let Some(value) = health_quorum.as_ref().map(text) {
        match number(&value, &QUORUMS) {
            Some(quorum) => watching.quorum = quorum,
            None => tell("health-quorum", value, format!("not understood: {QUORUM}")),
        }
    }
    if let Some(value) = on_failure.as_ref().map(text) {
        match value.as_str() {
            "inhibit" => watching.on_failure = OnFailure::Inhibit,
            "remove" => watching.on_failure = OnFailure::Remove,
            _ => tell("on-failure", value, format!("not understood: {ON_FAILURE}")),
        }
    }
    if let Some(value) = sorry_server.as_ref().map(text) {
        match sorry_servers(&value) {
            Ok(servers) => watching.sorry_servers = servers,
            Err(why) => tell("sorry-server", value, format!("{why}: {SORRY}")),
        }
    }
    let watches = watching.check.is_some() || !watching.sorry_servers.is_empty();
    watches.then(|| Box::new(watching))
}

/// Who may write a Service may not run programs on nodes.
fn allowed(check: Check, strictness: Strictness) -> Result<Check, String> {
    match (&check.probe, strictness) {
        (Probe::Command(_), Strictness::Stored) => {
            Err("commands are run for Services from files only, not for those of an API server"
                .to_owned())
        }
        _ => Ok(check),
    }
}

/// Reads `http,path=/healthz,interval=2s`, or returns what is wrong.
fn check(value: &str) -> Result<Check, String> {
    let mut parts = value.split(',').map(str::trim);
    let word = parts.next().unwrap_or_default();
    let get = |tls| {
        let (path, statuses) = ("/".to_owned(), vec![(200, 299)]);
        Probe::Http(Get { tls, path, host: None, statuses })
    };
    let mut check = Check::of(match word {
        "tcp" => Probe::Tcp,
        "http" => get(false),
        "https" => get(true),
        "command" => Probe::Command(Vec::new()),
        _ => return Err(format!("unknown check {word:?}")),
    });
    let mut seen = Vec::new();
    let mut timeout = None;
    for part in parts {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is no option"))?;
        let (name, value) = (name.trim(), value.trim());
        if seen.contains(&name) {
            return Err(format!("{name} is there twice"));
        }
        seen.push(name);
        let taken = match name {
            "timeout" => duration(value).map(|found| timeout = Some(found)),
            _ => option(&mut check, name, value),
        };
        taken.ok_or_else(|| format!("{part:?} is not understood"))?;
    }
    check.timeout_ms = timeout.unwrap_or(check.interval_ms.min(Check::TIMEOUT_MS));
    if !(LEAST_TIMEOUT_MS..=check.interval_ms).contains(&check.timeout_ms) {
        return Err("timeout is from 10ms up to the interval".to_owned());
    }
    match &check.probe {
        Probe::Command(words) if words.is_empty() => Err("a command needs run=/PROGRAM".to_owned()),
        _ => Ok(check),
    }
}

/// Takes up an option; `None` when it is none, has no such value, or belongs to another check.
fn option(check: &mut Check, name: &str, value: &str) -> Option<()> {
    match (name, &mut check.probe) {
        ("path", Probe::Http(get)) => get.path = path(value)?,
        ("status", Probe::Http(get)) => get.statuses = statuses(value)?,
        ("host", Probe::Http(get)) => get.host = Some(host(value)?),
        ("run", Probe::Command(words)) => {
            *words = value.split_whitespace().map(str::to_owned).collect();
            // What a search path would find is not said by the manifest.
            words.first().filter(|program| program.starts_with('/'))?;
        }
        ("port", _) => check.port = Some(port(value)?),
        ("interval", _) => {
            check.interval_ms = duration(value).filter(|found| INTERVALS_MS.contains(found))?;
        }
        ("rise", _) => check.rise = number(value, &TRIES)?,
        ("fall", _) => check.fall = number(value, &TRIES)?,
        ("initial", _) => {
            check.starts_down = match value {
                "up" => false,
                "down" => true,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

fn path(value: &str) -> Option<String> {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    (value.starts_with('/') && value.bytes().all(visible)).then(|| value.to_owned())
}

fn host(value: &str) -> Option<String> {
    let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (!value.is_empty() && value.bytes().all(of_host)).then(|| value.to_owned())
}

/// Reads `200-299+404`.
fn statuses(value: &str) -> Option<Vec<(u16, u16)>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text| number(text, &(100..=599)).and_then(|code| u16::try_from(code).ok());
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some((first, last))
    };
    value.split('+').map(range).collect()
}

fn sorry_servers(value: &str) -> Result<Vec<SorryServer>, String> {
    let mut servers: Vec<SorryServer> = Vec::new();
    for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let server = sorry_server(entry).ok_or_else(|| format!("{entry:?} is not understood"))?;
        if servers.iter().any(|other| other.addr.is_ipv4() == server.addr.is_ipv4()) {
            return Err(format!("{entry:?} is the second of its family"));
        }
        servers.push(server);
    }
    Ok(servers)
}

fn sorry_server(entry: &str) -> Option<SorryServer> {
    let (addr, digits) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (addr, rest) = rest.split_once(']')?;
            (addr, Some(rest.strip_prefix(':')?))
        }
        None => match entry.split_once(':') {
            Some((addr, digits)) if !digits.contains(':') => (addr, Some(digits)),
            _ => (entry, None),
        },
    };
    let addr: IpAddr = address::parse_host(addr, Strictness::Strict).ok()?;
    let port = match digits {
        Some(digits) => Some(port(digits)?),
        None => None,
    };
    Some(SorryServer { addr, port })
}

fn port(text: &str) -> Option<u16> {
    number(text, &(1..=65_535)).and_then(|port| u16::try_from(port).ok())
}

/// Reads a number of digits only.
fn number(text: &str, range: &std::ops::RangeInclusive<u32>) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && range.contains(number))
}

/// Reads `500ms`, `2s` or `1m` as milliseconds.
fn duration(text: &str) -> Option<u32> {
    let unit = text.find(|character: char| !character.is_ascii_digit())?;
    let (digits, unit) = text.split_at(unit);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

/// YAML reads a bare number as one.
fn text(node: &Leaf) -> String {
    match &node.value {
        Loose::Scalar(Found::Number(number)) => number.to_string(),
        _ => annotation::text(node),
    }
}
