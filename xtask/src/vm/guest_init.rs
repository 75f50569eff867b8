//! The guest's process 1, once the host's root is mounted: makes the guest look like a normal
//! machine, runs one command, and carries its streams and exit status to the host.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::fs::CWD;
use rustix::mount::MountFlags;
use rustix::process::{WaitOptions, WaitStatus};
use rustix::pty::OpenptFlags;

use super::frame::{self, Kind, Size, Start};

/// How long output is awaited after the command's end, when a daemon keeps its streams open.
const DRAIN: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(5);

/// File systems of a normal machine. /tmp is already in memory: the root's upper layer.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
];

type Port = Arc<Mutex<File>>;

/// Runs as process 1; returns only to power the guest off.
pub(crate) fn main() -> Result<()> {
    if !rustix::process::getpid().is_init() {
        bail!("guest-init is process 1 of a guest; use `cargo xtask vm`");
    }
    let mut port = None;
    if let Err(error) = serve(&mut port) {
        eprintln!("guest-init: {error:#}");
        if let Some(port) = &port {
            send(port, Kind::Failed, format!("{error:#}").as_bytes());
        }
    }
    // The host ends the guest on the last frame; this is for a host that does not.
    thread::sleep(Duration::from_secs(10));
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    Ok(())
}

fn serve(slot: &mut Option<Port>) -> Result<()> {
    for (kind, target, data) in MOUNTS {
        mount(kind, target, data);
    }
    let mut input = open_port()?;
    let port = slot.insert(Arc::new(Mutex::new(input.try_clone()?)));
    send(port, Kind::Hello, b"");
    let start = match frame::read(&mut input)? {
        Some((Kind::Start, bytes)) => serde_json::from_slice::<Start>(&bytes)?,
        other => bail!("the host said {other:?} instead of what to run"),
    };
    become_a_machine(&start)?;
    let heart = Arc::clone(port);
    thread::spawn(move || {
        loop {
            thread::sleep(HEARTBEAT);
            send(&heart, Kind::Alive, b"");
        }
    });
    let status = run(&start, port, input)?;
    send(port, Kind::Exit, status.to_string().as_bytes());
    Ok(())
}

fn mount(kind: &str, target: &str, data: &str) {
    let made = fs::create_dir_all(target).map_err(anyhow::Error::from).and_then(|()| {
        let data = std::ffi::CString::new(data)?;
        rustix::mount::mount(kind, target, kind, MountFlags::empty(), Some(data.as_c_str()))?;
        Ok(())
    });
    // A kernel without tracefs is still worth running; what needs it will say so.
    if let Err(error) = made {
        eprintln!("guest-init: cannot mount {kind} on {target}: {error}");
    }
}

fn open_port() -> Result<File> {
    for _ in 0..200 {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == frame::PORT {
                let path = Path::new("/dev").join(entry.file_name());
                return File::options()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .with_context(|| format!("cannot open {}", path.display()));
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("the virtio port `{}` did not appear", frame::PORT)
}

/// What a normal boot has done before anybody logs in.
fn become_a_machine(start: &Start) -> Result<()> {
    rustix::system::sethostname(b"passlane-guest")?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let modules = Path::new("/lib/modules").join(release);
    fs::create_dir_all(&modules)?;
    rustix::mount::mount_bind(start.modules.as_str(), &modules)
        .with_context(|| format!("cannot show {} as {}", start.modules, modules.display()))?;
    for (name, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        let _ = rustix::fs::symlinkat(format!("/proc/self/fd{to}"), CWD, format!("/dev/{name}"));
    }
    fs::create_dir_all("/run/netns")?;
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("guest-init: cannot set lo up: {status:?}");
    }
    Ok(())
}

fn run(start: &Start, port: &Port, input: File) -> Result<i32> {
    let (done, finished) = channel();
    let spawned = match start.terminal {
        Some(size) => on_terminal(start, size, port, input, done)?,
        None => on_pipes(start, port, input, done),
    };
    // What a shell says for a command it cannot start.
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let program = start.command.first().map_or("no command", String::as_str);
            send(port, Kind::Stderr, format!("{program}: {error}\n").as_bytes());
            return Ok(127);
        }
    };
    let status = wait_for(child.id())?;
    drain(&finished);
    Ok(status)
}

fn prepare(command: &mut Command, start: &Start) {
    command.args(start.command.iter().skip(1)).env_clear().envs(&start.environment);
    command.current_dir(&start.directory);
}

fn on_pipes(start: &Start, port: &Port, input: File, done: Sender<()>) -> io::Result<Child> {
    let mut command = Command::new(start.command.first().map_or("", String::as_str));
    prepare(&mut command, start);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn()?;
    if let Some(stderr) = child.stderr.take() {
        relay(File::from(OwnedFd::from(stderr)), Kind::Stderr, port, done.clone());
    }
    if let Some(stdout) = child.stdout.take() {
        relay(File::from(OwnedFd::from(stdout)), Kind::Stdout, port, done);
    }
    feed(input, child.stdin.take());
    Ok(child)
}

fn on_terminal(
    start: &Start,
    size: Size,
    port: &Port,
    input: File,
    done: Sender<()>,
) -> Result<io::Result<Child>> {
    let (host, guest) = terminal(size)?;
    // A shell wants a controlling terminal; setsid makes this one it.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "--"]).args(start.command.first());
    prepare(&mut command, start);
    command.stdin(guest.try_clone()?).stdout(guest.try_clone()?).stderr(guest);
    let child = command.spawn();
    relay(host.try_clone()?, Kind::Stdout, port, done);
    feed(input, Some(host));
    Ok(child)
}

/// Copies one stream of the command to the host until its end.
fn relay(mut from: File, kind: Kind, port: &Port, done: Sender<()>) {
    let port = Arc::clone(port);
    thread::spawn(move || {
        let mut bytes = vec![0; frame::MAX];
        // A terminal whose last user has gone reads as an error.
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            send(&port, kind, bytes.get(..count).unwrap_or_default());
        }
        drop(done);
    });
}

/// Copies the host's input to the command; its end closes the command's stdin.
fn feed(mut from: File, mut to: Option<impl Write + Send + 'static>) {
    thread::spawn(move || {
        while let Ok(Some((kind, bytes))) = frame::read(&mut from) {
            let written = match &mut to {
                Some(open) if kind == Kind::Input => open.write_all(&bytes).is_ok(),
                _ => false,
            };
            if !written {
                // The end of input, or nobody reads any more.
                to = None;
            }
        }
    });
}

/// Waits until every relay has seen the end of its stream and dropped its sender.
fn drain(finished: &Receiver<()>) {
    let end = Instant::now() + DRAIN;
    while finished.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
}

/// Waits for the command. Process 1 inherits every orphan, so others are reaped on the way.
fn wait_for(child: u32) -> Result<i32> {
    let wanted = i32::try_from(child)?;
    loop {
        let Some((pid, status)) = rustix::process::wait(WaitOptions::empty())? else { continue };
        if pid.as_raw_nonzero().get() == wanted {
            return Ok(exit_code(status));
        }
    }
}

/// As a shell shows it: 128 + signal for a killed command.
fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}

fn terminal(size: Size) -> Result<(File, File)> {
    let host = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&host)?;
    rustix::pty::unlockpt(&host)?;
    let name = rustix::pty::ptsname(&host, Vec::new())?;
    let guest = File::options().read(true).write(true).open(name.to_string_lossy().as_ref())?;
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&guest, size)?;
    Ok((host.into(), guest))
}

fn send(port: &Port, kind: Kind, bytes: &[u8]) {
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    // Without the host nobody is left to tell.
    let _ = frame::write(&mut *port, kind, bytes);
}
