//! Whether a look has to read the virtual servers. It is the dearest part of a look, and the probes
//! tell when nobody has changed any.

use std::time::{Duration, Instant};

use crate::{audit::look::Pace, kernel::bpf::Moment};

/// A command may be seen so long before it changes anything: it loads a scheduler first, or waits for
/// another one. What was read earlier after it proves nothing.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Thousandths of a processor that reading may take.
mod share {
    /// While nobody changes a virtual server. Probes may miss something.
    pub(super) const SELDOM: u32 = 1;
    /// Where nobody would see who does.
    pub(super) const BLIND: u32 = 1;
    /// Only while somebody does.
    pub(super) const OFTEN: u32 = 20;
}

/// When others last changed a virtual server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Nobody would see it.
    Unseen,
    /// Not since there are probes.
    Never,
    /// Then.
    At(Moment),
}

/// What to do in this look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reading {
    /// Read.
    Due,
    /// Somebody changed something, and it was read too lately.
    Postponed,
    /// Nobody changed anything.
    Needless,
}

/// When the virtual servers were read.
pub(super) struct Quiet {
    begun: Option<Moment>,
    seldom: Pace,
    blind: Pace,
    often: Pace,
}

impl Quiet {
    /// Nothing was read yet. While somebody changes something it is read at most once in `period`, and
    /// at least once in `longest` however dear it is.
    pub(super) fn new(period: Duration, longest: Duration) -> Self {
        Self {
            begun: None,
            seldom: Pace::new(share::SELDOM, period, longest * 10),
            blind: Pace::new(share::BLIND, period, longest),
            often: Pace::new(share::OFTEN, period, longest),
        }
    }

    /// Says what to do now.
    pub(super) fn reading(&self, change: Change, now: Instant) -> Reading {
        let settled = |at: Moment| self.begun.is_some_and(|begun| begun > at.after(SETTLED_AFTER));
        let (pace, otherwise) = match change {
            Change::Unseen => (&self.blind, Reading::Postponed),
            Change::Never if self.begun.is_some() => (&self.seldom, Reading::Needless),
            Change::At(at) if settled(at) => (&self.seldom, Reading::Needless),
            Change::Never | Change::At(_) => (&self.often, Reading::Postponed),
        };
        if pace.is_due(now) { Reading::Due } else { otherwise }
    }

    /// Notes that what was read from then on was taken up.
    pub(super) fn read(&mut self, begun: Moment) {
        self.begun = Some(begun);
    }

    /// Notes when a reading was begun, and the processor time that it took.
    pub(super) fn took(&mut self, begun: Instant, cost: Duration) {
        self.seldom.took(begun, cost);
        self.blind.took(begun, cost);
        self.often.took(begun, cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(3);
    const DEAR: Duration = Duration::from_millis(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// It was read at `moment`, which is the instant that is returned.
    fn after_reading(moment: Moment) -> (Quiet, Instant) {
        let mut quiet = Quiet::new(PERIOD, seconds(30));
        let now = Instant::now();
        assert_eq!(quiet.reading(Change::Never, now), Reading::Due);
        quiet.read(moment);
        quiet.took(now, DEAR);
        (quiet, now)
    }

    #[test]
    fn what_nobody_changed_is_read_seldom() {
        let moment = Moment::now();
        let (quiet, now) = after_reading(moment.after(seconds(90)));
        for change in [Change::Never, Change::At(moment)] {
            assert_eq!(quiet.reading(change, now + seconds(59)), Reading::Needless);
            assert_eq!(quiet.reading(change, now + seconds(60)), Reading::Due);
        }
    }

    #[test]
    fn what_somebody_changed_is_read_until_it_has_settled() {
        let moment = Moment::now();
        let (mut quiet, now) = after_reading(moment);
        let change = Change::At(moment.after(seconds(4)));
        assert_eq!(quiet.reading(change, now + seconds(2)), Reading::Postponed);
        assert_eq!(quiet.reading(change, now + seconds(4)), Reading::Due);
        quiet.read(moment.after(seconds(4)));
        quiet.took(now + seconds(4), DEAR);
        assert_eq!(quiet.reading(change, now + seconds(8)), Reading::Due);
        quiet.read(moment.after(seconds(8)));
        quiet.took(now + seconds(8), DEAR);
        assert_eq!(quiet.reading(change, now + seconds(12)), Reading::Due);
        quiet.read(moment.after(seconds(12)));
        quiet.took(now + seconds(12), DEAR);
        assert_eq!(quiet.reading(change, now + seconds(16)), Reading::Needless);
    }

    #[test]
    fn a_reading_that_was_just_taken_for_nothing_does_not_hold_up_the_next_for_its_share() {
        let moment = Moment::now();
        let (quiet, now) = after_reading(moment);
        let change = Change::At(moment.after(seconds(1)));
        assert_eq!(quiet.reading(change, now + PERIOD), Reading::Due);
    }

    #[test]
    fn without_probes_it_is_read_as_its_share_permits_and_once_in_the_longest_time() {
        let (quiet, now) = after_reading(Moment::now());
        assert_eq!(quiet.reading(Change::Unseen, now + seconds(29)), Reading::Postponed);
        assert_eq!(quiet.reading(Change::Unseen, now + seconds(30)), Reading::Due);
    }
}
