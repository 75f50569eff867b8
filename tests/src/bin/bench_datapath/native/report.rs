//! What was measured, for people and for programs.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    bench::Bench,
    rows::{Family, HIT, LOOP, LRU, MISS, NO_SERVICE, Row, Tested},
    times::Cost,
};

/// Rows with their cost.
pub(crate) struct Measured {
    lines: Vec<Line>,
}

struct Line {
    row: Row,
    /// Without what restores the packet.
    net: Cost,
    /// That, with the loop of the test run.
    eq: Cost,
    size: Option<(u32, u32)>,
}

impl Measured {
    /// Takes the times of each row.
    pub(crate) fn new(rows: &[Row], times: Vec<Vec<f64>>, bench: &Bench) -> Result<Self> {
        let costs: Vec<_> = rows.iter().copied().zip(times.into_iter().map(Cost::of)).collect();
        let find = |wanted: &dyn Fn(&Row) -> bool| {
            costs.iter().find(|(row, _)| wanted(row)).map(|(_, cost)| *cost)
        };
        let mut lines = Vec::new();
        for &(row, cost) in &costs {
            let empty = find(&|other| other.tested == Tested::Loop && other.family == row.family);
            let base = find(&|other| {
                other.tested == Tested::Nothing
                    && other.family == row.family
                    && other.traffic.restoring() == row.traffic.restoring()
                    && (other.flows == 1) == (row.flows == 1)
            });
            let (empty, base) = empty.zip(base).context("no row to subtract")?;
            let net =
                if row.tested == Tested::Loop { cost.without(cost) } else { cost.without(base) };
            if row.tested != Tested::Nothing {
                lines.push(Line { row, net, eq: net.with(empty), size: bench.size(&row) });
            }
        }
        Ok(Self { lines })
    }

    fn line(&self, name: &str, family: Family, flows: u32) -> Option<&Line> {
        self.lines.iter().find(|line| {
            line.row.name == name && line.row.family == family && line.row.flows == flows
        })
    }

    /// The row's cost by that of another row of its family and number of flows; minimum by minimum,
    /// both with the loop.
    fn ratio(&self, line: &Line, to: &str, flows: u32) -> f64 {
        let other = self.line(to, line.row.family, flows);
        other.map_or(f64::NAN, |other| line.eq.min / other.eq.min)
    }

    /// Returns a table, a line for each row.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:26} {:>4} {:>6} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6} {:>7}\n",
            "ns a packet",
            "IPv",
            "flows",
            "net min",
            "net med",
            "eq min",
            "eq med",
            "/a",
            "/c",
            "/d",
            "insns",
            "JIT B"
        );
        for line in &self.lines {
            let Line { row, net, eq, size } = line;
            let (instructions, bytes) = size.unwrap_or_default();
            let _ = writeln!(
                text,
                "{:26} {:>4} {:>6} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>6.2} {:>6.2} {:>6.2} {:>6} {:>7}",
                row.name,
                row.family.digit(),
                row.flows,
                net.min,
                net.median,
                eq.min,
                eq.median,
                self.ratio(line, LOOP, 1),
                self.ratio(line, LRU, row.flows),
                self.ratio(line, MISS, 1),
                instructions,
                bytes
            );
        }
        text += "eq: net and the loop of the test run; /a, /c, /d: eq min by that of the rung, /c at \
                 as many flows\n";
        text
    }

    /// Returns one line of JSON, of IPv4: null is what was not measured.
    pub(crate) fn summary(&self, xdp_hit: f64) -> Value {
        let line = |name: &str, flows| self.line(name, Family::V4, flows);
        json!({
            "tc_hit_net_ns": line(HIT, 1).map(|line| rounded(line.net.min)),
            "tc_hit_vs_lru": line(HIT, 1).map(|line| rounded(self.ratio(line, LRU, 1))),
            "xdp_hit_net_ns": rounded(xdp_hit),
            "flows_64k_vs_lru": line(HIT, 1 << 16)
                .map(|line| rounded(self.ratio(line, LRU, 1 << 16))),
            "no_service_vs_miss": line(NO_SERVICE, 1).map(|line| rounded(self.ratio(line, MISS, 1))),
        })
    }
}

/// Rounds to two digits.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
