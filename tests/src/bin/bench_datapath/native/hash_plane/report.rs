//! What was measured of the hash plane, for people and for programs.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    super::{report::rounded, rows::Family, times::Cost},
    bench::Bench,
    rows::{CACHED, CACHED_IPIP, EACH, Kind, LRU, NEW, RENEWED, Row, STATELESS, Way},
};

/// Rows with their cost.
pub(super) struct Measured {
    lines: Vec<Line>,
}

struct Line {
    row: Row,
    /// Without what restores the frame.
    net: Cost,
    /// That, with the loop of the test run.
    eq: Cost,
    size: (u32, u32),
}

impl Measured {
    /// Takes the times of each row.
    pub(super) fn new(rows: &[Row], times: Vec<Vec<f64>>, bench: &Bench) -> Result<Self> {
        let costs: Vec<_> = rows.iter().copied().zip(times.into_iter().map(Cost::of)).collect();
        let mut lines = Vec::new();
        for &(row, cost) in &costs {
            if matches!(row.kind, Kind::Nothing | Kind::Grow) {
                continue;
            }
            let find = |kind, is_one: bool| {
                let mut all = costs.iter();
                let is_it = |other: &Row| {
                    other.kind == kind && other.family == row.family && (other.flows == 1) == is_one
                };
                let cost = all.find(|(other, _)| is_it(other)).map(|(_, cost)| *cost);
                cost.context("no row to subtract")
            };
            let empty = find(Kind::Loop, true)?;
            let nothing = find(Kind::Nothing, true)?;
            // The tested program makes room, and what restores takes it away again: only the latter
            // is subtracted, for which half of both is taken.
            let moved = match row.way {
                Way::Ipip => find(Kind::Grow, true)?.without(nothing).half(),
                Way::Route | Way::Redirect => nothing.without(nothing),
            };
            let net = match row.kind {
                Kind::Loop => cost.without(cost),
                _ => cost.without(find(Kind::Nothing, row.flows == 1)?).without(moved),
            };
            lines.push(Line { row, net, eq: net.with(empty), size: bench.size(&row)? });
        }
        Ok(Self { lines })
    }

    fn line(&self, name: &str, family: Family, flows: u32) -> Option<&Line> {
        self.lines.iter().find(|line| {
            line.row.name == name && line.row.family == family && line.row.flows == flows
        })
    }

    /// The row's cost by that of the LRU rung at as many flows, minimum by minimum, both with the
    /// loop.
    fn ratio(&self, line: &Line) -> Option<f64> {
        let rung = self.line(LRU, line.row.family, line.row.flows)?;
        Some(line.eq.min / rung.eq.min)
    }

    /// Returns a table, a line for each row.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:26} {:>4} {:>6} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>7}\n",
            "hash plane, ns a packet",
            "IPv",
            "flows",
            "net min",
            "net med",
            "eq min",
            "eq med",
            "/LRU",
            "insns",
            "JIT B"
        );
        for line in &self.lines {
            let Line { row, net, eq, size: (instructions, bytes) } = line;
            let flows = if row.flows == EACH { "each".to_owned() } else { row.flows.to_string() };
            let ratio = self.ratio(line).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = writeln!(
                text,
                "{:26} {:>4} {flows:>6} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {ratio:>6} \
                 {instructions:>6} {bytes:>7}",
                row.name,
                row.family.digit(),
                net.min,
                net.median,
                eq.min,
                eq.median,
            );
        }
        text
    }

    /// Returns a JSON object, of IPv4: null is what was not measured.
    pub(super) fn summary(&self, builds: &[f64], puts: &[f64]) -> Value {
        let net = |name: &str, flows| {
            self.line(name, Family::V4, flows).map(|line| rounded(line.net.min))
        };
        let ratio = self.line(CACHED, Family::V4, 1).and_then(|line| self.ratio(line));
        json!({
            "hash_cached_net_ns": net(CACHED, 1),
            "hash_cached_ipip_net_ns": net(CACHED_IPIP, 1),
            "hash_cached_vs_lru": ratio.map(rounded),
            "hash_renewed_net_ns": net(RENEWED, 1),
            "hash_new_net_ns": net(NEW, EACH),
            "hash_stateless_net_ns": net(STATELESS, 1),
            "hash_stateless_64k_net_ns": net(STATELESS, 1 << 16),
            "hash_table_100_ms": builds.first().copied().map(rounded),
            "hash_table_4000_ms": builds.get(1).copied().map(rounded),
            "hash_put_table_ms": puts.first().copied().map(rounded),
        })
    }
}
