//! What is measured.

use std::fmt;

use proxy_common::reason::Reason;
use proxy_userspace::kernel::bpf::Hook;

/// The program that a row is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tested {
    /// One that returns at once, without anything before it: the loop of the test run.
    Loop,
    /// The same after the packet was restored: what is subtracted.
    Nothing,
    /// A program of the ladder, for either family.
    Rung(&'static str),
    /// The datapath, with what it must count each packet as.
    Datapath(Hook, Reason),
}

/// Address families.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// `4` or `6`: the end of names.
    pub(crate) fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// Packets that rows are about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Traffic {
    /// TCP of known flows to the Service.
    Tcp,
    /// UDP of known flows to the Service.
    Udp,
    /// TCP of an unknown flow to the Service.
    UnknownFlow,
    /// TCP to nothing that is known.
    NoService,
    /// A stamped packet at egress, of a flow that is known: it renews the lease.
    Stamped,
}

impl Traffic {
    /// The program that restores it, without the family.
    pub(crate) fn restoring(self) -> &'static str {
        match self {
            Self::Udp => "restore_udp",
            Self::Stamped => "restore_learn",
            _ => "restore_tcp",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    pub(crate) traffic: Traffic,
    pub(crate) flows: u32,
    pub(crate) tested: Tested,
    /// What the program must return.
    pub(crate) action: i32,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, IPv{}, {} flows", self.name, self.family.digit(), self.flows)
    }
}

/// Names of rows that others are compared with, or that end up in the JSON.
pub(crate) const LOOP: &str = "(a) return";
pub(crate) const LRU: &str = "(c) + LRU hit";
pub(crate) const MISS: &str = "(d) parse + HASH miss";
pub(crate) const HIT: &str = "hit, TCP";
pub(crate) const NO_SERVICE: &str = "not a Service";

const OK: i32 = 0;
const NEXT: i32 = -1;
const REDIRECT: i32 = 7;
const MANY: [u32; 3] = [1, 1 << 12, 1 << 16];

/// Returns every row. Rows of one name differ in family and flows.
pub(crate) fn all() -> Vec<Row> {
    [Family::V4, Family::V6].into_iter().flat_map(of_family).collect()
}

fn of_family(family: Family) -> Vec<Row> {
    let row =
        |name, traffic, tested, action| Row { name, family, traffic, flows: 1, tested, action };
    let fast =
        |name, traffic| row(name, traffic, Tested::Datapath(Hook::Ingress, Reason::Hit), REDIRECT);
    let slow =
        |name, traffic, reason| row(name, traffic, Tested::Datapath(Hook::Ingress, reason), NEXT);
    let restoring = [Traffic::Tcp, Traffic::Udp, Traffic::Stamped];
    let mut rows = vec![row(LOOP, Traffic::Tcp, Tested::Loop, OK)];
    rows.extend(restoring.map(|traffic| row("restore only", traffic, Tested::Nothing, OK)));
    rows.push(Row { flows: 1 << 16, ..row("restore only", Traffic::Tcp, Tested::Nothing, OK) });
    rows.push(row("(b) + parse", Traffic::Tcp, Tested::Rung("parse"), OK));
    let many = [
        row(LRU, Traffic::Tcp, Tested::Rung("lru"), OK),
        row("(e) + rewrite + redirect", Traffic::Tcp, Tested::Rung("rewrite"), REDIRECT),
        fast(HIT, Traffic::Tcp),
    ];
    rows.extend(many.into_iter().flat_map(|row| MANY.map(|flows| Row { flows, ..row })));
    rows.extend([
        row(MISS, Traffic::NoService, Tested::Rung("miss"), OK),
        fast("hit, UDP", Traffic::Udp),
        slow("miss, stamped", Traffic::UnknownFlow, Reason::NoFlow),
        slow(NO_SERVICE, Traffic::NoService, Reason::NotService),
        row(
            "learn: renewed",
            Traffic::Stamped,
            Tested::Datapath(Hook::Egress, Reason::Renewed),
            NEXT,
        ),
    ]);
    rows
}
