//! Rise and fall: how many tries in a row make a backend live or not.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::Check;

/// How many changes are remembered.
pub const REMEMBERED: usize = 8;

/// What is known of one backend by one check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// It lives.
    pub up: bool,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// What the last try of the last change said; empty before the first change.
    pub why: String,
    /// How often it changed.
    pub changes: u64,
    /// The last changes, the newest last.
    pub history: VecDeque<Change>,
    /// So many tries in a row say otherwise.
    #[serde(skip)]
    against: u32,
}

/// A backend rose or fell.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When, in seconds since 1970.
    pub at: u64,
    /// It rose.
    pub up: bool,
    /// What the try said that made it so.
    pub why: String,
}

impl State {
    /// Returns what holds before the first try. `now` is in seconds since 1970, here and below.
    pub fn new(check: &Check, now: u64) -> Self {
        Self {
            up: !check.starts_down,
            since: now,
            why: String::new(),
            changes: 0,
            history: VecDeque::new(),
            against: 0,
        }
    }

    /// Returns the same for a check that begins anew: it lives or not as before, and what was
    /// against that does not count.
    pub fn carried_over(self) -> Self {
        Self { against: 0, ..self }
    }

    /// Takes up how a try went: well or not, and what there is to say about it. Says whether the
    /// backend rose or fell.
    pub fn take(&mut self, check: &Check, well: bool, why: &str, now: u64) -> bool {
        if well == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if well { check.rise } else { check.fall };
        if self.against < needed {
            return false;
        }
        (self.up, self.since, self.against) = (well, now, 0);
        why.clone_into(&mut self.why);
        self.changes += 1;
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(Change { at: now, up: well, why: why.to_owned() });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Probe;

    fn check(rise: u32, fall: u32) -> Check {
        Check { rise, fall, ..Check::of(Probe::Tcp) }
    }

    /// Returns the state after each try: `+` went well, `-` did not.
    fn states(check: &Check, tries: &str) -> String {
        let mut state = State::new(check, 0);
        let tries = tries.chars().zip(1..);
        tries
            .map(|(try_, now)| {
                state.take(check, try_ == '+', "why", now);
                if state.up { 'U' } else { 'd' }
            })
            .collect()
    }

    #[test]
    fn so_many_tries_in_a_row_make_it_fall_and_rise() {
        assert_eq!(states(&check(2, 3), "+---++"), "UUUddU");
        assert_eq!(states(&check(1, 1), "-+-+"), "dUdU");
        assert_eq!(states(&check(3, 1), "-++-+++"), "ddddddU");
    }

    #[test]
    fn what_flaps_faster_than_rise_and_fall_changes_nothing() {
        assert_eq!(states(&check(2, 3), "--+--+-+--+"), "UUUUUUUUUUU");
        assert_eq!(states(&check(2, 3), "---+-+-+-+-"), "UUddddddddd");
    }

    #[test]
    fn it_lives_until_proven_otherwise_unless_it_is_to_begin_down() {
        assert!(State::new(&check(2, 3), 0).up);
        let careful = Check { starts_down: true, ..check(2, 3) };
        assert_eq!(states(&careful, "+-++"), "dddU");
    }

    #[test]
    fn a_check_that_begins_anew_keeps_the_state_and_not_what_was_against_it() {
        let check = check(2, 2);
        let mut state = State::new(&check, 0);
        assert!(!state.take(&check, false, "refused", 1));
        let mut state = state.carried_over();
        assert!(!state.take(&check, false, "refused", 2), "one is not two in a row");
        assert!(state.take(&check, false, "refused", 3));
        let mut state = state.carried_over();
        assert!(!state.up && state.since == 3 && state.why == "refused");
        assert!(!state.take(&check, true, "well", 4));
        assert!(state.take(&check, true, "well", 5) && state.up);
    }

    #[test]
    fn the_last_changes_are_remembered_and_all_are_counted() {
        let check = check(1, 1);
        let mut state = State::new(&check, 0);
        for now in 1..=20 {
            assert!(state.take(&check, now % 2 == 0, &format!("try {now}"), now));
        }
        assert_eq!((state.changes, state.history.len()), (20, REMEMBERED));
        let first = state.history.front().unwrap();
        assert_eq!((first.at, first.up, first.why.as_str()), (13, false, "try 13"));
        assert_eq!(state.history.back().unwrap().at, state.since);
    }

    proptest! {
        #[test]
        fn it_changes_only_after_enough_tries_that_agree(
            rise in 1..4_u32, fall in 1..4_u32, tries in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let check = check(rise, fall);
            let mut state = State::new(&check, 0);
            for (index, well) in tries.iter().enumerate() {
                if state.take(&check, *well, "", index as u64) {
                    let needed = if *well { rise } else { fall } as usize;
                    prop_assert!(index + 1 >= needed);
                    let row = &tries[index + 1 - needed..=index];
                    prop_assert!(row.iter().all(|each| each == well));
                    prop_assert_eq!(state.up, *well);
                }
            }
        }
    }
}
