//! The demo's result in one line.

use serde::Serialize;

use crate::spread::Spread;

/// What the demo measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Exchanges tried before the agent was killed, of any protocol.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Part of the long transfer's packets that took the fast path, 0 to 1.
    pub fast_path_share: f64,
    /// Answers of each backend to sequential short connections.
    pub spread: Spread,
    /// Whether the long transfer arrived unchanged.
    pub digest_ok: bool,
    /// Exchanges that failed after the agent was killed.
    pub errors_after_kill: u64,
    /// Release of the kernel that forwarded.
    pub kernel: String,
}

impl Summary {
    /// Whether the demo showed what it promises.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.errors == 0
            && self.errors_after_kill == 0
            && self.digest_ok
            && self.fast_path_share >= 0.9
            && self.is_evenly_spread()
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Numbers, text and a map of text: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether all backends answered equally often.
    pub(super) fn is_evenly_spread(&self) -> bool {
        let counts: std::collections::BTreeSet<u64> = self.spread.values().copied().collect();
        counts.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_or_an_uneven_spread_is_not_good() {
        let even = [("a", 3), ("b", 3)].map(|(name, count)| (name.to_owned(), count));
        let good = Summary {
            digest_ok: true,
            fast_path_share: 0.95,
            spread: even.into(),
            ..Summary::default()
        };
        assert!(good.is_good());
        assert!(!Summary { errors_after_kill: 1, ..good.clone() }.is_good());
        let mut uneven = good;
        uneven.spread.insert("c".to_owned(), 2);
        assert!(!uneven.is_good());
    }

    #[test]
    fn the_line_has_the_promised_names() {
        let line = Summary::default().json();
        for name in ["requests", "errors", "fast_path_share", "spread", "digest_ok"] {
            assert!(line.contains(&format!("\"{name}\":")), "{line}");
        }
        assert!(!line.contains('\n'));
    }
}
