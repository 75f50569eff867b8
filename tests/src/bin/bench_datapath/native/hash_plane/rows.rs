//! What is measured of the hash plane.

use std::fmt;

use proxy_common::hash_reason::HashReason;

use super::super::rows::Family;
use crate::frames::{ACK, L4, SYN};

/// The program that a row is about, and what it is to find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A program that returns at once, without anything before it: the loop of the test run.
    Loop,
    /// The same after the frame was restored: what is subtracted.
    Nothing,
    /// A program that makes room in front of the frame: half of it is what restoring does about that.
    Grow,
    /// The rung of the ladder with an LRU look-up.
    Lru,
    /// A packet of a flow with an entry.
    Cached,
    /// A flow that has none yet.
    New,
    /// One that has an entry which does not hold any more: an entry is written, no other one has to
    /// go.
    Renewed,
    /// No entry, and none is made.
    Stateless,
}

/// How frames go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// By direct routing, out of the interface that they came in by.
    Route,
    /// In a tunnel of the family's own outer header, likewise.
    Ipip,
    /// By direct routing, out of another interface.
    Redirect,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Route, Self::Ipip, Self::Redirect];

    /// The port of the frontend whose backends are reached so.
    pub(super) fn port(self) -> u16 {
        80 + self as u16
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) family: Family,
    pub(super) kind: Kind,
    pub(super) way: Way,
    /// How many flows are walked through; a power of two.
    pub(super) flows: u32,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, IPv{}, {} flows", self.name, self.family.digit(), self.flows)
    }
}

impl Row {
    /// What the hash plane must count each packet as; `None` when it is not tested.
    pub(super) fn reason(&self) -> Option<HashReason> {
        match self.kind {
            Kind::Cached => Some(HashReason::Cached),
            Kind::New | Kind::Renewed => Some(HashReason::New),
            Kind::Stateless => Some(HashReason::Stateless),
            Kind::Loop | Kind::Nothing | Kind::Grow | Kind::Lru => None,
        }
    }

    /// What is behind the IP header.
    pub(super) fn l4(&self) -> L4 {
        match self.kind {
            Kind::New | Kind::Stateless => SYN,
            // Opens a connection, and its entry is one that ends: for the next one it does not hold.
            Kind::Renewed => L4::Tcp { syn: true, ack: false, fin: true, rst: false },
            _ => ACK,
        }
    }
}

/// More than are ever measured: no packet is of a flow that was there before. 14 bits of them are in
/// the port.
pub(super) const EACH: u32 = 1 << 30;
const MANY: [u32; 3] = [1, 1 << 12, 1 << 16];

/// Names of rows that end up in the JSON.
pub(super) const LRU: &str = "XDP LRU hit";
pub(super) const CACHED: &str = "cached, route";
pub(super) const CACHED_IPIP: &str = "cached, IPIP";
pub(super) const NEW: &str = "new flow, route";
pub(super) const RENEWED: &str = "renewed flow, route";
pub(super) const STATELESS: &str = "stateless, route";

/// Returns every row. Rows of one name differ in family and flows.
pub(super) fn all() -> Vec<Row> {
    [Family::V4, Family::V6].into_iter().flat_map(of_family).collect()
}

fn of_family(family: Family) -> Vec<Row> {
    let row = |name, kind, way, flows| Row { name, family, kind, way, flows };
    let many = |name, kind, way| MANY.map(|flows| row(name, kind, way, flows));
    let mut rows = vec![
        row("XDP return", Kind::Loop, Way::Route, 1),
        row("restore only", Kind::Nothing, Way::Route, 1),
        row("restore only", Kind::Nothing, Way::Route, 1 << 16),
        row("grow", Kind::Grow, Way::Ipip, 1),
    ];
    rows.extend(many(LRU, Kind::Lru, Way::Route));
    rows.extend(many(CACHED, Kind::Cached, Way::Route));
    rows.extend(many(CACHED_IPIP, Kind::Cached, Way::Ipip));
    rows.push(row("cached, route, redirect", Kind::Cached, Way::Redirect, 1));
    rows.extend(many(STATELESS, Kind::Stateless, Way::Route));
    rows.extend(many("stateless, IPIP", Kind::Stateless, Way::Ipip));
    rows.push(row(RENEWED, Kind::Renewed, Way::Route, 1));
    rows.push(row("renewed flow, IPIP", Kind::Renewed, Way::Ipip, 1));
    rows.push(row(NEW, Kind::New, Way::Route, EACH));
    rows.push(row("new flow, IPIP", Kind::New, Way::Ipip, EACH));
    rows
}
