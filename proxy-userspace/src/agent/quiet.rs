//! Whether a look has to read the virtual servers. It is the dearest part of a look, and the probes
//! tell when nobody has changed any.

use std::time::{Duration, Instant};

use crate::{audit::look::Pace, kernel::bpf::Moment};

/// A command may be seen so long before it changes anything: it loads a scheduler first, or waits for
/// another one. What was read earlier after it proves nothing, also when it found something: that may
/// be the work of the command before.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Thousandths of a processor that reading may take.
mod share {
    /// While nobody changes a virtual server. Probes may miss something.
    pub(super) const SELDOM: u32 = 1;
    /// Where nobody would see who does.
    pub(super) const BLIND: u32 = 1;
    /// Only while somebody does, and for as long as a command may take.
    pub(super) const OFTEN: u32 = 100;
}

/// When others last changed a virtual server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Nobody would see it.
    Unseen,
    /// Then, or nobody since probes were attached at that moment.
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
    /// When a reading began that found what somebody had changed.
    found: Option<Moment>,
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
            found: None,
            seldom: Pace::new(share::SELDOM, period, longest * 10),
            blind: Pace::new(share::BLIND, period, longest),
            often: Pace::new(share::OFTEN, period, longest),
        }
    }

    /// Says what to do in a look that begins now, at that moment.
    pub(super) fn reading(&self, change: Change, now: Instant, moment: Moment) -> Reading {
        let settled = |at: Moment| self.begun.is_some_and(|begun| begun > at.after(SETTLED_AFTER));
        // What was changed is found already: the one reading that is still needed is that which
        // settles, and an earlier one would only be one more.
        let found = |at: Moment| self.found.is_some_and(|found| found > at);
        let (pace, otherwise) = match change {
            Change::Unseen => (&self.blind, Reading::Postponed),
            Change::At(at) if settled(at) => (&self.seldom, Reading::Needless),
            Change::At(at) if found(at) && moment <= at.after(SETTLED_AFTER) => {
                return Reading::Postponed;
            }
            Change::At(_) => (&self.often, Reading::Postponed),
        };
        if pace.is_due(now) { Reading::Due } else { otherwise }
    }

    /// Notes that what was read from then on was taken up, and whether somebody had changed it.
    pub(super) fn read(&mut self, begun: Moment, changed: bool) {
        self.begun = Some(begun);
        if changed {
            self.found = Some(begun);
        }
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
        assert_eq!(quiet.reading(Change::At(moment), now, moment), Reading::Due);
        quiet.read(moment, false);
        quiet.took(now, DEAR);
        (quiet, now)
    }

    /// A look so many seconds after the first reading.
    fn look(quiet: &Quiet, change: Change, first: (Instant, Moment), at: u64) -> Reading {
        quiet.reading(change, first.0 + seconds(at), first.1.after(seconds(at)))
    }

    /// What such a look reads is taken up.
    fn take_up(quiet: &mut Quiet, first: (Instant, Moment), at: u64, changed: bool) {
        quiet.read(first.1.after(seconds(at)), changed);
        quiet.took(first.0 + seconds(at), DEAR);
    }

    #[test]
    fn what_nobody_changed_is_read_seldom() {
        let moment = Moment::now();
        let (quiet, now) = after_reading(moment.after(seconds(90)));
        let (first, change) = ((now, moment.after(seconds(90))), Change::At(moment));
        assert_eq!(look(&quiet, change, first, 59), Reading::Needless);
        assert_eq!(look(&quiet, change, first, 60), Reading::Due);
    }

    #[test]
    fn what_somebody_changed_is_read_until_it_has_settled() {
        let moment = Moment::now();
        let (mut quiet, now) = after_reading(moment);
        let first = (now, moment);
        let change = Change::At(moment.after(seconds(4)));
        assert_eq!(look(&quiet, change, first, 2), Reading::Postponed);
        for at in [4, 8, 12] {
            assert_eq!(look(&quiet, change, first, at), Reading::Due);
            take_up(&mut quiet, first, at, false);
        }
        assert_eq!(look(&quiet, change, first, 16), Reading::Needless);
    }

    #[test]
    fn what_was_found_is_read_once_more_when_it_has_settled() {
        let moment = Moment::now();
        let (mut quiet, now) = after_reading(moment);
        let first = (now, moment);
        let change = Change::At(moment.after(seconds(4)));
        assert_eq!(look(&quiet, change, first, 5), Reading::Due);
        take_up(&mut quiet, first, 5, true);
        assert_eq!(look(&quiet, change, first, 8), Reading::Postponed);
        // It was seen at 4 and may have changed something as late as 9.
        assert_eq!(look(&quiet, change, first, 9), Reading::Postponed);
        assert_eq!(look(&quiet, change, first, 10), Reading::Due);
        take_up(&mut quiet, first, 10, false);
        assert_eq!(look(&quiet, change, first, 16), Reading::Needless);
    }

    #[test]
    fn a_change_after_what_was_found_is_read_at_once() {
        let moment = Moment::now();
        let (mut quiet, now) = after_reading(moment);
        let first = (now, moment);
        take_up(&mut quiet, first, 5, true);
        // That reading may have been over before this one took effect.
        for second in [5, 6] {
            let change = Change::At(moment.after(seconds(second)));
            assert_eq!(look(&quiet, change, first, 8), Reading::Due);
        }
    }

    #[test]
    fn ten_thousand_virtual_servers_in_an_emulated_guest_are_read_soon_after_another_change() {
        let (mut quiet, now) = after_reading(Moment::now());
        let moment = Moment::now();
        let first = (now, moment);
        quiet.read(moment.after(seconds(5)), true);
        quiet.took(now + seconds(5), Duration::from_millis(400));
        let change = Change::At(moment.after(seconds(6)));
        assert_eq!(look(&quiet, change, first, 8), Reading::Postponed);
        assert_eq!(look(&quiet, change, first, 9), Reading::Due);
    }

    #[test]
    fn a_reading_that_was_just_taken_for_nothing_does_not_hold_up_the_next_for_its_share() {
        let moment = Moment::now();
        let (quiet, now) = after_reading(moment);
        let change = Change::At(moment.after(seconds(1)));
        assert_eq!(look(&quiet, change, (now, moment), 3), Reading::Due);
    }

    #[test]
    fn without_probes_it_is_read_as_its_share_permits_and_once_in_the_longest_time() {
        let moment = Moment::now();
        let (quiet, now) = after_reading(moment);
        assert_eq!(look(&quiet, Change::Unseen, (now, moment), 29), Reading::Postponed);
        assert_eq!(look(&quiet, Change::Unseen, (now, moment), 30), Reading::Due);
    }
}
