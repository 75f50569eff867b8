//! What was counted, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{modes::Mode, scene::Path, traffic::Kind};

/// Instructions of one kind of traffic on one path in one mode.
pub(crate) struct Counted {
    pub(crate) mode: Mode,
    pub(crate) path: Path,
    pub(crate) kind: Kind,
    /// Instructions of a unit, as often as they were counted.
    pub(crate) counts: Vec<f64>,
}

impl Counted {
    fn median(&self) -> f64 {
        median(&self.counts)
    }

    /// How far apart the counts are, in percent of the median.
    fn spread(&self) -> f64 {
        let least = self.counts.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.counts.iter().copied().fold(0.0, f64::max);
        (most - least) / self.median() * 100.0
    }
}

/// Of an odd number of counts.
pub(crate) fn median(counts: &[f64]) -> f64 {
    let mut counts = counts.to_vec();
    counts.sort_by(f64::total_cmp);
    counts.get(counts.len() / 2).copied().unwrap_or(f64::NAN)
}

fn find(all: &[Counted], mode: Mode, path: Path, kind: Kind) -> Option<&Counted> {
    all.iter().find(|one| (one.mode, one.path, one.kind) == (mode, path, kind))
}

/// Returns a table: a line for each mode, a column for each path and kind.
pub(crate) fn table(all: &[Counted]) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let _ = write!(text, "{:27}", format!("instructions a {}", kind.name()));
        for path in Path::ALL {
            let _ = write!(text, " {:>20}", path.name());
        }
        text.push('\n');
        for mode in Mode::ALL.into_iter().filter(|mode| mode.carries(kind)) {
            let _ = write!(text, "  {:25}", mode.name());
            for path in Path::ALL {
                let cell = find(all, mode, path, kind).map_or_else(String::new, |one| {
                    format!("{:.0} ({:.1} %)", one.median(), one.spread())
                });
                let _ = write!(text, " {cell:>20}");
            }
            text.push('\n');
        }
    }
    text += "medians; in brackets how far apart the least and the most are\n";
    text
}

/// Returns one line of JSON: datagrams from pod to pod.
pub(crate) fn summary(all: &[Counted]) -> Value {
    let modes = [
        ("routing", Mode::Routing),
        ("ipvs", Mode::Ipvs),
        ("slow", Mode::Learning),
        ("fast", Mode::Fast),
    ];
    let numbers = modes.into_iter().filter_map(|(name, mode)| {
        let found = find(all, mode, Path::PodToPod, Kind::Datagrams)?;
        Some((name.to_owned(), Value::from(found.median().round())))
    });
    Value::Object(numbers.collect::<Map<_, _>>())
}
