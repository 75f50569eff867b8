//! Which warnings and errors are told: what is tried again and again fails again and again, and what
//! is wrong with one Service may be wrong with thousands.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier, field};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// A line is told this often in [`WINDOW`]: a state that changes to and fro is told each time.
const SAME: u32 = 3;
/// Lines of one place in the code are told this often in [`WINDOW`], whatever they say.
const OF_ONE_PLACE: u32 = 100;
const WINDOW: Duration = Duration::from_secs(300);
/// Lines that are remembered; more are forgotten all at once.
const MEMORY: usize = 4096;

/// How lines look, and with it how something is added to one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// `key=value` at the end.
    Text,
    /// A JSON object.
    Json,
}

impl Shape {
    /// Adds how many lines were left out since the last one like it.
    fn add(self, line: &mut String, left_out: u64) {
        let (end, added) = match self {
            Self::Text => ("\n", format!(" left_out={left_out}\n")),
            Self::Json => ("}\n", format!(",\"left_out\":{left_out}}}\n")),
        };
        if let Some(kept) = line.strip_suffix(end) {
            line.truncate(kept.len());
            line.push_str(&added);
        }
    }
}

/// Formats as another does, and leaves repeats out.
pub(super) struct Limited<F> {
    format: F,
    shape: Shape,
    repeats: Mutex<Repeats>,
}

impl<F> Limited<F> {
    pub(super) fn new(format: F, shape: Shape) -> Self {
        Self { format, shape, repeats: Mutex::default() }
    }
}

impl<F, S, N> FormatEvent<S, N> for Limited<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if *event.metadata().level() > Level::WARN {
            return self.format.format_event(ctx, writer, event);
        }
        let place = event.metadata().callsite();
        let told = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).tell(
            place.clone(),
            line_of(&place, event),
            Instant::now(),
        );
        let Some(left_out) = told else { return Ok(()) };
        if left_out == 0 {
            return self.format.format_event(ctx, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        self.shape.add(&mut line, left_out);
        writer.write_str(&line)
    }
}

/// Returns a number for a line, without its time.
fn line_of(place: &Identifier, event: &Event<'_>) -> u64 {
    let mut text = String::new();
    event.record(&mut |field: &field::Field, value: &dyn fmt::Debug| {
        let _ = write!(text, "{}={value:?} ", field.name());
    });
    let mut hasher = DefaultHasher::new();
    (place, text).hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Default)]
struct Repeats {
    lines: HashMap<u64, Count>,
    places: HashMap<Identifier, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Repeats {
    /// Says whether a line is told, and how many of its kind were left out before it.
    fn tell(&mut self, place: Identifier, line: u64, now: Instant) -> Option<u64> {
        if self.lines.len() >= MEMORY {
            self.lines.clear();
        }
        let new = Count { since: now, told: 0, left_out: 0 };
        let line = self.lines.entry(line).or_insert(new);
        let place = self.places.entry(place).or_insert(new);
        let mut left_out = 0;
        for count in [&mut *line, &mut *place] {
            if now.duration_since(count.since) >= WINDOW {
                left_out = left_out.max(count.left_out);
                *count = new;
            }
        }
        if line.told >= SAME {
            line.left_out += 1;
            return None;
        }
        if place.told >= OF_ONE_PLACE {
            place.left_out += 1;
            return None;
        }
        line.told += 1;
        place.told += 1;
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tracing::{error, info, warn};
    use tracing_subscriber::fmt;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    fn logged(shape: Shape, log: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let out = sink.clone();
        let logs = fmt().with_writer(move || out.clone()).with_ansi(false);
        match shape {
            Shape::Text => {
                let logs = logs.map_event_format(|format| Limited::new(format, shape)).finish();
                tracing::subscriber::with_default(logs, log);
            }
            Shape::Json => {
                let logs = logs.json().flatten_event(true);
                let logs = logs.map_event_format(|format| Limited::new(format, shape)).finish();
                tracing::subscriber::with_default(logs, log);
            }
        }
        sink.lines()
    }

    #[test]
    fn a_failure_that_comes_again_is_told_three_times_and_others_are_not_held_back() {
        for shape in [Shape::Text, Shape::Json] {
            let lines = logged(shape, || {
                for round in 0..50 {
                    warn!(event = "tried", error = "refused", "once more");
                    error!(event = "other", round, "another each time");
                    info!(event = "told", "always");
                }
            });
            let count = |event: &str| lines.iter().filter(|line| line.contains(event)).count();
            assert_eq!([count("tried"), count("other"), count("told")], [3, 50, 50]);
        }
    }

    #[test]
    fn a_flood_of_one_place_ends_at_its_limit() {
        let lines = logged(Shape::Text, || {
            (0..5000).for_each(|service| warn!(event = "notice", service, "wrong"));
        });
        assert_eq!(lines.len(), OF_ONE_PLACE as usize);
    }

    #[test]
    fn what_was_left_out_is_told_with_the_next_line() {
        let mut repeats = Repeats::default();
        let callsite = tracing::callsite! {
            name: "place",
            kind: tracing::metadata::Kind::EVENT,
            fields: error
        };
        let place = || tracing::Callsite::metadata(callsite).callsite();
        let start = Instant::now();
        let told: Vec<_> = (0..10).map(|_| repeats.tell(place(), 1, start)).collect();
        assert_eq!(told.iter().filter(|told| **told == Some(0)).count(), 3);
        assert_eq!(repeats.tell(place(), 1, start + WINDOW), Some(7));
        assert_eq!(repeats.tell(place(), 1, start + WINDOW), Some(0));
        let (mut text, mut json) = ("a\n".to_owned(), "{\"a\":1}\n".to_owned());
        Shape::Text.add(&mut text, 7);
        Shape::Json.add(&mut json, 7);
        assert_eq!((&*text, &*json), ("a left_out=7\n", "{\"a\":1,\"left_out\":7}\n"));
    }
}
