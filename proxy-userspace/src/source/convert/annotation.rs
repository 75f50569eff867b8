//! Our annotations. A value that is not understood is a notice: it stops nothing, and the default
//! is used.

use std::net::IpAddr;

use super::{Strictness, address, watching};
use crate::{
    model::{
        FastPath, Forwarding, Notice, Scheduler, SchedulerFlags, ServiceName, Thresholds, Tunnel,
        Watching, Weights,
    },
    source::{
        Found,
        manifest::{Annotations, Leaf, Loose},
    },
};

/// The kernel takes any weight below 2^31, but ipvsadm none above this: such a server could not be
/// saved and restored.
const MAX_WEIGHT: u32 = 65_535;

/// What the annotations of a Service ask for.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) scheduler: Option<(Scheduler, SchedulerFlags)>,
    pub(super) weights: Weights,
    pub(super) forwarding: Forwarding,
    pub(super) limits: Thresholds,
    pub(super) fast_path: FastPath,
    pub(super) watching: Option<Box<Watching>>,
}

/// Reads our annotations.
pub(super) fn wishes(
    annotations: &Annotations,
    service: &ServiceName,
    strictness: Strictness,
    notices: &mut Vec<Notice>,
) -> Wishes {
    let scheduler = annotations.scheduler.as_ref().and_then(|node| {
        scheduler(text(node)).map_err(|reject| notices.push(reject(service.clone()))).ok()
    });
    let fast_path = annotations.fast_path.as_ref().map(|node| {
        let value = text(node);
        // `on` is what it was called before there were more than two.
        let known = if value == "on" { Some(FastPath::Auto) } else { FastPath::named(&value) };
        known.unwrap_or_else(|| {
            notices.push(Notice::UnknownFastPath { service: service.clone(), value });
            FastPath::Auto
        })
    });
    let forwarding = annotations.forwarding.as_ref().map(|node| {
        let value = text(node);
        way(&value).unwrap_or_else(|| {
            notices.push(Notice::UnknownForwarding { service: service.clone(), value });
            Forwarding::Masq
        })
    });
    let limits = annotations.limits.as_ref().map(|node| {
        let value = text(node);
        limits(&value).unwrap_or_else(|| {
            notices.push(Notice::UnknownLimits { service: service.clone(), value });
            Thresholds::default()
        })
    });
    let weights = annotations.weights.as_ref().and_then(|node| {
        let reject = |entry| Notice::UnknownWeight { service: service.clone(), entry };
        weights(&text(node)).map_err(|entry| notices.push(reject(entry))).ok()
    });
    Wishes {
        scheduler,
        weights: weights.unwrap_or_default(),
        forwarding: forwarding.unwrap_or_default(),
        limits: limits.unwrap_or_default(),
        fast_path: fast_path.unwrap_or_default(),
        watching: watching::watching(annotations, service, strictness, notices),
    }
}

/// Reads `NAME` or `NAME,FLAG,...`. Flags that are not understood take the scheduler with them:
/// what would be left is not what was asked for.
fn scheduler(
    value: String,
) -> Result<(Scheduler, SchedulerFlags), impl FnOnce(ServiceName) -> Notice> {
    let mut parts = value.split(',').map(str::trim);
    let scheduler: Option<Scheduler> = parts.next().and_then(|name| name.parse().ok());
    let flags = scheduler.and_then(|scheduler| {
        parts.try_fold(0, |flags, name| Some(flags | scheduler.flag(name)?.0))
    });
    match (scheduler, flags) {
        (Some(scheduler), Some(flags)) => Ok((scheduler, SchedulerFlags(flags))),
        (known, _) => Err(move |service| match known {
            Some(scheduler) => Notice::UnknownSchedulerFlag { service, scheduler, value },
            None => Notice::UnknownScheduler { service, value },
        }),
    }
}

/// Reads `masq`, `route`, `tunnel` or `tunnel,TYPE`, where TYPE is `ipip`, `gre` or `gue:PORT`.
fn way(value: &str) -> Option<Forwarding> {
    let (name, kind) = match value.split_once(',') {
        Some((name, kind)) => (name.trim(), Some(kind.trim())),
        None => (value.trim(), None),
    };
    match (name, kind) {
        ("masq", None) => Some(Forwarding::Masq),
        ("route", None) => Some(Forwarding::Route),
        ("tunnel", None | Some("ipip")) => Some(Forwarding::Tunnel(Tunnel::Ipip)),
        ("tunnel", Some("gre")) => Some(Forwarding::Tunnel(Tunnel::Gre)),
        ("tunnel", Some(kind)) => {
            let digits = kind.strip_prefix("gue:").filter(|port| !port.starts_with('+'))?;
            let port = digits.parse().ok().filter(|port| *port != 0)?;
            Some(Forwarding::Tunnel(Tunnel::Gue { port }))
        }
        _ => None,
    }
}

/// Reads `UPPER` or `UPPER,LOWER`: numbers of connections, the lower one at most the upper.
fn limits(value: &str) -> Option<Thresholds> {
    let number = |text: &str| {
        let digits = text.trim().bytes().all(|byte| byte.is_ascii_digit());
        text.trim().parse::<u32>().ok().filter(|number| digits && *number > 0)
    };
    match value.split_once(',') {
        None => Some(Thresholds { upper: number(value)?, lower: 0 }),
        Some((upper, lower)) => {
            let (upper, lower) = (number(upper)?, number(lower)?);
            // The kernel refuses another order (`ip_vs_add_dest`).
            (lower <= upper).then_some(Thresholds { upper, lower })
        }
    }
}

/// Reads `10.244.1.5=3, node-b=2`, or returns the first entry that is not understood.
fn weights(value: &str) -> Result<Weights, String> {
    let mut weights = Weights::default();
    for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        add_weight(&mut weights, entry).ok_or_else(|| entry.to_owned())?;
    }
    Ok(weights)
}

/// Returns `None` for an entry that is not understood or names what another one has named.
fn add_weight(weights: &mut Weights, entry: &str) -> Option<()> {
    let (key, number) = entry.split_once('=')?;
    let (key, number) = (key.trim(), number.trim());
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let weight = number.parse().ok().filter(|weight| digits && *weight <= MAX_WEIGHT)?;
    let before = if is_like_address(key) {
        let addr: IpAddr = address::parse_host(key, Strictness::Strict).ok()?;
        weights.by_addr.insert(addr, weight)
    } else {
        is_node_name(key).then(|| weights.by_node.insert(key.to_owned(), weight))?
    };
    before.is_none().then_some(())
}

/// A mistyped address must not pass for the name of a node.
fn is_like_address(key: &str) -> bool {
    key.contains(':') || key.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Returns whether a text can be the name of an object: a DNS subdomain (RFC 1123).
fn is_node_name(key: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(letter)
            && bytes.last().is_some_and(letter)
            && bytes.iter().all(|byte| letter(byte) || *byte == b'-')
    };
    key.len() <= 253 && key.split('.').all(label)
}

/// Returns the text of an annotation. YAML 1.1 reads a bare `on` or `off` as a truth value.
pub(super) fn text(node: &Leaf) -> String {
    match &node.value {
        Loose::Scalar(Found::Text(text)) => text.clone(),
        Loose::Scalar(Found::Flag(true)) => "on".to_owned(),
        Loose::Scalar(Found::Flag(false)) => "off".to_owned(),
        other => other.found().to_string(),
    }
}
