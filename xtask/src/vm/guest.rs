//! One guest, from boot to the command's end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::console::Console;
use super::frame::{self, Kind, Start};
use super::initramfs;
use super::kernels::Kernel;
use super::qemu::{self, Accelerator, Files, Machine, Owned};
use super::terminal::{self, Raw};
use crate::command::{Consent, progress};
use crate::workspace;

const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// The guest's init sends a sign of life every 5 s; a crowded host delays it, and the boot, a lot.
const SILENCE_LIMIT: Duration = Duration::from_secs(180);
/// Logs of failed runs that stay; older ones go.
const KEPT_RUNS: usize = 20;
const TICK: Duration = Duration::from_millis(100);

/// What to run, and in what machine.
pub(crate) struct Guest {
    pub(crate) kernel: Kernel,
    pub(crate) command: Vec<String>,
    /// Set for the command beside what is always passed on.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where the command starts; the guest sees the host's files at the same paths.
    pub(crate) directory: PathBuf,
    /// As qemu writes it: `2G`.
    pub(crate) memory: String,
    pub(crate) cpus: u8,
    pub(crate) accelerator: Accelerator,
    pub(crate) timeout: Option<Duration>,
    /// Keep the console log of a good run too.
    pub(crate) keep_log: bool,
    pub(crate) consent: Consent,
}

/// Where the command's streams come from and go to.
pub(crate) enum Streams<'a> {
    /// The caller's own stdin, stdout and stderr.
    Inherit,
    /// No input; each piece of output is handed over as it comes, true for stderr.
    Capture(&'a mut dyn FnMut(bool, &[u8])),
}

impl Guest {
    /// Runs the command and returns its exit status. An error means that the guest failed.
    ///
    /// A guest that fails before the command has begun is booted once more: emulated kernels
    /// sometimes stumble while they patch themselves.
    pub(crate) fn run(&self, mut streams: Streams<'_>) -> Result<i32> {
        let mut began = false;
        match self.run_once(&mut streams, &mut began) {
            Err(error) if !began => {
                progress(&format!("{error:#}: the guest did not come up; booting again"));
                self.run_once(&mut streams, &mut began)
            }
            outcome => outcome,
        }
    }

    fn run_once(&self, streams: &mut Streams<'_>, began: &mut bool) -> Result<i32> {
        let logs = tempfile::Builder::new().prefix("run-").tempdir_in(log_directory()?)?.keep();
        // The sockets are connected within the first second, and then need no names.
        let sockets = tempfile::Builder::new().prefix("passlane-vm-").tempdir()?;
        let files = Files { sockets: sockets.path().to_owned(), logs: logs.clone() };
        let outcome = self.run_in(&files, streams, began);
        let _ = fs::remove_file(files.initramfs()).and_then(|()| fs::remove_file(files.init()));
        if outcome.is_ok() && !self.keep_log {
            workspace::remove(&logs)?;
            return outcome;
        }
        progress(&format!("console log: {}", files.console().display()));
        outcome
    }

    fn run_in(&self, files: &Files, streams: &mut Streams<'_>, began: &mut bool) -> Result<i32> {
        // A copy: a rebuild of xtask while it runs must not change the guest's init.
        fs::copy("/proc/self/exe", files.init()).context("cannot copy xtask for the guest")?;
        let archive = initramfs::build(&self.kernel, &files.init(), self.consent)?;
        fs::write(files.initramfs(), &archive)?;
        let accelerator = match self.accelerator {
            Accelerator::Auto => qemu::accelerator(&self.kernel, &archive)?,
            chosen => chosen,
        };
        let listener = UnixListener::bind(files.port())?;
        let _root = qemu::share_root(files)?;
        let machine = Machine { memory: &self.memory, cpus: self.cpus, accelerator };
        let mut machine = machine.boot(&self.kernel, files)?;
        let stream = accept(&listener, &mut machine, files)?;
        let _ = fs::remove_dir_all(&files.sockets);
        let session = Session {
            guest: self,
            started: Instant::now(),
            console: Console::new(&files.console()),
            host: Arc::new(Mutex::new(stream.try_clone()?)),
            interactive: match streams {
                Streams::Inherit => terminal::size(),
                Streams::Capture(_) => None,
            },
        };
        session.follow(&receive(stream), &mut machine, streams, began)
    }

    fn start(&self, terminal: Option<frame::Size>) -> Result<Vec<u8>> {
        let mut environment: BTreeMap<String, String> =
            std::env::vars().filter(|(name, _)| is_passed_on(name)).collect();
        environment.insert("HOME".to_owned(), "/root".to_owned());
        // The system's programs first: each directory before theirs is asked of the host in vain.
        let path = environment.entry("PATH".to_owned()).or_default();
        *path = format!("{SYSTEM_PATH}:{path}");
        environment.extend(self.environment.clone());
        let start = Start {
            command: self.command.clone(),
            environment,
            directory: self.directory.display().to_string(),
            modules: self.kernel.modules.display().to_string(),
            terminal,
        };
        Ok(serde_json::to_vec(&start)?)
    }
}

const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn is_passed_on(name: &str) -> bool {
    matches!(name, "PATH" | "CI" | "TERM")
        || name.starts_with("PASSLANE_")
        || name.starts_with("RUST_")
}

fn log_directory() -> Result<PathBuf> {
    let dir = workspace::target().join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut runs: Vec<_> = fs::read_dir(&dir)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    runs.sort();
    for (_, old) in runs.iter().rev().skip(KEPT_RUNS) {
        workspace::remove(old)?;
    }
    Ok(dir)
}

fn accept(listener: &UnixListener, machine: &mut Owned, files: &Files) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(_) if machine.ended() || Instant::now() > end => {
                let log = fs::read_to_string(files.logs.join("qemu.log")).unwrap_or_default();
                bail!("qemu did not start: {}", log.trim());
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

type Frames = Receiver<io::Result<Option<(Kind, Vec<u8>)>>>;

fn receive(mut stream: UnixStream) -> Frames {
    // Bounded, so that a command that prints faster than the caller reads is held back.
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::spawn(move || {
        loop {
            let frame = frame::read(&mut stream);
            let last = !matches!(frame, Ok(Some(_)));
            if sender.send(frame).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// A booted guest that is listened to.
struct Session<'a> {
    guest: &'a Guest,
    started: Instant,
    console: Console,
    host: Arc<Mutex<UnixStream>>,
    interactive: Option<frame::Size>,
}

impl Session<'_> {
    fn follow(
        mut self,
        frames: &Frames,
        machine: &mut Owned,
        streams: &mut Streams<'_>,
        began: &mut bool,
    ) -> Result<i32> {
        // Dropped on every way out, so that an error is printed to a terminal in order.
        let mut _raw = None;
        let mut heard = Instant::now();
        let mut looked = Instant::now();
        loop {
            let frame = match frames.recv_timeout(TICK) {
                Ok(Ok(frame @ Some(_))) => frame,
                Err(RecvTimeoutError::Timeout) => None,
                Ok(_) | Err(RecvTimeoutError::Disconnected) => bail!("{}", self.why_it_ended()),
            };
            if let Some((kind, bytes)) = frame {
                heard = Instant::now();
                match kind {
                    Kind::Hello => {
                        *began = true;
                        _raw = self.begin(matches!(streams, Streams::Inherit))?;
                    }
                    Kind::Exit => return Ok(String::from_utf8_lossy(&bytes).parse()?),
                    Kind::Failed => bail!("the guest's init: {}", String::from_utf8_lossy(&bytes)),
                    _ => deliver(streams, kind, &bytes)?,
                }
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look(machine, *began, heard)?;
            }
        }
    }

    /// Fails when the guest is broken, silent, out of time or gone.
    fn look(&mut self, machine: &mut Owned, running: bool, heard: Instant) -> Result<()> {
        if let Some(trouble) = self.console.trouble() {
            // The rest of the trace is worth having in the log.
            thread::sleep(Duration::from_secs(1));
            bail!("{trouble}");
        }
        self.check_time(running, heard)?;
        if machine.ended() {
            bail!("{}", self.why_it_ended());
        }
        Ok(())
    }

    /// The guest is up: says what to run, and passes the caller's input on.
    fn begin(&self, inherit: bool) -> Result<Option<Raw>> {
        let boot = self.started.elapsed().as_secs_f64();
        progress(&format!("{} booted in {boot:.1} s", self.guest.kernel.release));
        let start = self.guest.start(self.interactive)?;
        self.send(Kind::Start, &start)?;
        if !inherit {
            self.send(Kind::InputEnd, b"")?;
            return Ok(None);
        }
        let host = Arc::clone(&self.host);
        thread::spawn(move || pump(&host));
        Ok(match self.interactive {
            Some(_) => Some(Raw::enter()?),
            None => None,
        })
    }

    fn send(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        frame::write(&mut *self.host.lock().unwrap_or_else(PoisonError::into_inner), kind, bytes)
    }

    fn check_time(&self, running: bool, heard: Instant) -> Result<()> {
        let elapsed = self.started.elapsed();
        if let Some(limit) = self.guest.timeout.filter(|limit| elapsed > *limit) {
            bail!("time-out: the guest was ended after {} s", limit.as_secs());
        }
        if !running && elapsed > BOOT_LIMIT {
            bail!(
                "no boot within {} s; last on its console: {}",
                BOOT_LIMIT.as_secs(),
                self.console.last()
            );
        }
        if running && heard.elapsed() > SILENCE_LIMIT {
            bail!("stall: no sign of life from the guest for {} s", SILENCE_LIMIT.as_secs());
        }
        Ok(())
    }

    fn why_it_ended(&mut self) -> String {
        // The console is written by qemu; give a last line the time to arrive.
        thread::sleep(Duration::from_millis(300));
        self.console.trouble().unwrap_or_else(|| {
            format!("the guest ended by itself; last on its console: {}", self.console.last())
        })
    }
}

fn deliver(streams: &mut Streams<'_>, kind: Kind, bytes: &[u8]) -> Result<()> {
    let is_stderr = match kind {
        Kind::Stdout => false,
        Kind::Stderr => true,
        _ => return Ok(()),
    };
    match streams {
        Streams::Capture(sink) => sink(is_stderr, bytes),
        Streams::Inherit if is_stderr => io::stderr().write_all(bytes)?,
        Streams::Inherit => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write stdout")?;
        }
    }
    Ok(())
}

/// Passes our stdin on until its end. The thread ends with the process: a read cannot be undone.
fn pump(host: &Mutex<UnixStream>) {
    let mut bytes = vec![0; frame::MAX];
    let send = |kind, bytes: &[u8]| {
        frame::write(&mut *host.lock().unwrap_or_else(PoisonError::into_inner), kind, bytes).is_ok()
    };
    while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
        if !send(Kind::Input, bytes.get(..count).unwrap_or_default()) {
            return;
        }
    }
    send(Kind::InputEnd, b"");
}
