//! The live view. The terminal is left as it was, also on a panic (ratatui's hook) and on SIGTERM.

use std::{collections::VecDeque, io, thread, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{MissedTickBehavior, interval},
};

use super::{
    frame::{self, Look},
    rates::{self, Order, Rates},
    sample::{self, Sample},
};
use crate::{cli::Failure, config::Paths};

/// Rates are over so many looks: IPVS's counters move every 2 seconds only.
const LOOKS: usize = 4;

/// What somebody wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    Quit,
    Sort,
    Pause,
    /// The terminal has another size, say.
    Redraw,
}

/// The state of the view.
struct View {
    looks: VecDeque<Sample>,
    look: Look,
}

impl View {
    fn rates(&self) -> Rates {
        match (self.looks.front(), self.looks.back()) {
            (Some(before), Some(after)) => rates::between(before, after, self.look.order),
            _ => Rates::default(),
        }
    }

    fn draw(&self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let rates = self.rates();
        let draw = |frame: &mut ratatui::Frame<'_>| {
            frame::draw(&rates, self.look, frame.area(), frame.buffer_mut());
        };
        terminal.draw(draw).map(drop)
    }
}

/// Shows rates until somebody has seen enough.
pub(super) async fn show(
    paths: &Paths,
    period: Duration,
    order: Order,
    colours: bool,
) -> Result<(), Failure> {
    // Before the terminal is changed: what cannot be read at all is an ordinary error.
    let first = sample::take(paths).await?;
    let look = Look { colours, order, paused: false };
    let mut view = View { looks: VecDeque::from([first]), look };
    within(async |terminal| follow(terminal, &mut view, paths, period).await).await
}

/// Does something with the terminal, which is as it was afterwards.
async fn within(
    work: impl AsyncFnOnce(&mut DefaultTerminal) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut terminal = ratatui::try_init().map_err(Failure::Terminal)?;
    let result = work(&mut terminal).await;
    let restored = ratatui::try_restore().map_err(Failure::Terminal);
    result.and(restored)
}

async fn follow(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    paths: &Paths,
    period: Duration,
) -> Result<(), Failure> {
    let mut wishes = wishes();
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()
        .map_err(Failure::Terminal)?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        view.draw(terminal).map_err(Failure::Terminal)?;
        let signalled =
            futures::future::select_all(ends.iter_mut().map(|end| Box::pin(end.recv())));
        tokio::select! {
            _ = ticks.tick(), if !view.look.paused => {
                view.looks.push_back(sample::take(paths).await?);
                while view.looks.len() > LOOKS {
                    view.looks.pop_front();
                }
            }
            wish = wishes.recv() => match wish {
                None | Some(Wish::Quit) => return Ok(()),
                Some(Wish::Sort) => view.look.order = view.look.order.next(),
                Some(Wish::Pause) => view.look.paused = !view.look.paused,
                Some(Wish::Redraw) => {}
            },
            _ = signalled => return Ok(()),
        }
    }
}

/// Reads keys on a thread of its own, which ends with the process.
fn wishes() -> UnboundedReceiver<Wish> {
    let (tell, told) = unbounded_channel();
    thread::spawn(move || {
        // A terminal that is gone has no more to say.
        while let Ok(event) = event::read() {
            if let Some(wish) = wish(&event)
                && tell.send(wish).is_err()
            {
                return;
            }
        }
    });
    told
}

fn wish(event: &Event) -> Option<Wish> {
    let key = match event {
        Event::Resize(..) => return Some(Wish::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Press => key,
        _ => return None,
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('c' | 'd') if control => Some(Wish::Quit),
        KeyCode::Char('s') => Some(Wish::Sort),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_say_what_is_wanted_and_control_c_ends() {
        let key = |code, modifiers| wish(&Event::Key(KeyEvent::new(code, modifiers)));
        let none = KeyModifiers::NONE;
        assert_eq!(key(KeyCode::Char('q'), none), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('c'), none), None);
        assert_eq!(key(KeyCode::Char('s'), none), Some(Wish::Sort));
        assert_eq!(wish(&Event::Resize(1, 1)), Some(Wish::Redraw));
        assert_eq!(wish(&Event::FocusLost), None);
    }

    /// In a terminal of its own, and in a process of its own: a panic ends it.
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        const WITHIN: &str = "PASSLANE_TEST_PANICS_IN_A_TERMINAL";
        const NAME: &str = "cli::top::terminal::tests::a_panic_leaves_the_terminal_as_it_was";
        if std::env::var_os(WITHIN).is_some() {
            let panics = within(async |_| panic!("on purpose"));
            let _never = crate::cli::block_on(panics);
        }
        let directory = tempfile::tempdir().unwrap();
        let [before, after] = ["before", "after"].map(|name| directory.path().join(name));
        let script = format!(
            "stty rows 20 cols 90; stty -g > {}; {WITHIN}=1 {} --exact {NAME} --nocapture; \
             echo ended with $?; stty -g > {}",
            before.display(),
            std::env::current_exe().unwrap().display(),
            after.display()
        );
        let mut command = std::process::Command::new("script");
        command.args(["-q", "-e", "-c", &script, "/dev/null"]).stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("on purpose") && !shown.contains("ended with 0"), "{shown:?}");
        let entered = shown.find("\x1b[?1049h").expect("the other screen is used");
        let left = shown.rfind("\x1b[?1049l").expect("the other screen is left");
        assert!(entered < left, "{shown:?}");
        let said = shown.rfind("on purpose").expect("the panic is told");
        assert!(left < said, "the panic is told on the screen that goes: {shown:?}");
        let modes = [before, after].map(|path| std::fs::read_to_string(path).unwrap());
        assert_eq!(modes[0], modes[1]);
    }
}
