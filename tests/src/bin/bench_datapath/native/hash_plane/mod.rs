//! The hash plane, packet by packet and table by table.

mod bench;
mod report;
mod rows;
mod scene;
mod tables;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use self::{bench::Bench, report::Measured, rows::Row, tables::Tables};

/// The loaded programs, and what was measured so far.
pub(super) struct HashPlane {
    rows: Vec<Row>,
    bench: Bench,
    times: Vec<Vec<f64>>,
    tables: Tables,
}

impl HashPlane {
    pub(super) fn new(ladder: &Path) -> Result<Self> {
        let rows = rows::all();
        let bench = Bench::new(ladder, &rows)?;
        let times = vec![Vec::new(); rows.len()];
        Ok(Self { rows, bench, times, tables: Tables::new()? })
    }

    /// Measures every row once more.
    pub(super) fn measure(&mut self) -> Result<()> {
        for (row, times) in self.rows.iter().zip(&mut self.times) {
            times.push(self.bench.measure(row).with_context(|| row.to_string())?);
        }
        self.tables.measure()
    }

    /// Returns tables for people, and a JSON object.
    pub(super) fn report(self) -> Result<(String, Value)> {
        let measured = Measured::new(&self.rows, self.times, &self.bench)?;
        let (lines, builds, puts) = self.tables.lines();
        let summary = measured.summary(&builds, &puts);
        Ok((format!("{}{lines}", measured.table()), summary))
    }
}
