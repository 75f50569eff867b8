//! The virtual machine: its file system daemon, its command line, its accelerator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::frame;
use super::initramfs;
use super::kernels::Kernel;
use crate::command::{self, progress};
use crate::packages;
use crate::workspace;

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accelerator {
    /// KVM where it was seen to boot this kernel, TCG elsewhere
    Auto,
    /// Emulation, one thread a virtual CPU
    Tcg,
    /// The host's processor
    Kvm,
    /// Emulation where one guest instruction takes one guest nanosecond: noise-free measuring
    Count,
}

/// A process that ends with us: killed when dropped, and by the kernel if we die first.
pub(super) struct Owned(Child);

impl Owned {
    pub(super) fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Failing means that it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that must not outlive us, its messages going to `log`.
fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Owned> {
    let log = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(Owned(child))
}

/// The files of one guest.
pub(super) struct Files {
    /// Sockets: a short path, since a socket's path has at most 107 bytes.
    pub(super) sockets: PathBuf,
    /// Logs and the initramfs.
    pub(super) logs: PathBuf,
}

impl Files {
    pub(super) fn console(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    pub(super) fn port(&self) -> PathBuf {
        self.sockets.join("port")
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.logs.join("initramfs.cpio")
    }

    /// The guest's process 1: a copy of this program.
    pub(super) fn init(&self) -> PathBuf {
        self.logs.join("init")
    }

    fn root(&self) -> PathBuf {
        self.sockets.join("root")
    }
}

/// Starts the daemon that shows the host's root to the guest.
pub(super) fn share_root(files: &Files) -> Result<Owned> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a guest needs root to show the host's files to it; run with sudo"
    );
    let program = packages::VIRTIOFSD.iter().find_map(|path| command::find(path));
    let program = program.context("no virtiofsd; run `apt-get install qemu-system-common`")?;
    let socket = files.root();
    let arguments = [
        format!("--socket-path={}", socket.display()),
        "-osource=/".to_owned(),
        // The default sandbox makes the shared directory a new root, which `/` already is.
        "-osandbox=chroot".to_owned(),
        // The host's files do not change while a test runs; asking again for each look-up doubles
        // the time to start a program.
        "-ocache=always".to_owned(),
    ];
    let log = files.logs.join("virtiofsd.log");
    let mut daemon = start(&program, &arguments, &log)?;
    let end = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        ensure!(
            !daemon.ended() && Instant::now() < end,
            "virtiofsd did not start, see {}",
            log.display()
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(daemon)
}

/// Size and speed of a machine.
pub(super) struct Machine<'a> {
    pub(super) memory: &'a str,
    pub(super) cpus: u8,
    pub(super) accelerator: Accelerator,
}

impl Machine<'_> {
    /// Boots with the host's root and the port. [`share_root`] comes first.
    pub(super) fn boot(&self, kernel: &Kernel, files: &Files) -> Result<Owned> {
        let mut arguments = self.arguments(kernel, files);
        arguments.extend([
            "-chardev".to_owned(),
            format!("socket,id=root,path={}", files.root().display()),
            "-device".to_owned(),
            "vhost-user-fs-pci,chardev=root,tag=root,queue-size=512".to_owned(),
            "-chardev".to_owned(),
            format!("socket,id=port,path={}", files.port().display()),
            "-device".to_owned(),
            "virtio-serial-pci".to_owned(),
            "-device".to_owned(),
            format!("virtserialport,chardev=port,name={}", frame::PORT),
        ]);
        self.start(&arguments, files)
    }

    fn start(&self, arguments: &[String], files: &Files) -> Result<Owned> {
        let program = command::find("qemu-system-x86_64")
            .context("no qemu-system-x86_64; run `apt-get install qemu-system-x86`")?;
        start(&program, arguments, &files.logs.join("qemu.log"))
    }

    fn arguments(&self, kernel: &Kernel, files: &Files) -> Vec<String> {
        let memory = self.memory;
        // Counting needs one thread, and one virtual CPU keeps it repeatable.
        let cpus = if self.accelerator == Accelerator::Count { 1 } else { self.cpus };
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: &str| {
            arguments.push(format!("-{name}"));
            arguments.extend((!value.is_empty()).then(|| value.to_owned()));
        };
        for (name, value) in acceleration(self.accelerator) {
            add(name, value);
        }
        add("machine", "q35,smm=off,vmport=off,usb=off,memory-backend=mem");
        add("m", memory);
        add("smp", &cpus.to_string());
        add("object", &format!("memory-backend-memfd,id=mem,size={memory},share=on"));
        add("device", "virtio-rng-pci");
        add("chardev", &format!("file,id=console,path={}", files.console().display()));
        add("serial", "chardev:console");
        add("kernel", &kernel.image.display().to_string());
        add("initrd", &files.initramfs().display().to_string());
        add("append", &KERNEL_ARGUMENTS.join(" "));
        for flag in ["nodefaults", "no-user-config", "no-reboot"] {
            add(flag, "");
        }
        add("display", "none");
        add("monitor", "none");
        arguments
    }
}

/// Stalls are judged by an emulated clock on a shared machine, so their limits are wide; for the
/// same reason the kernel may not doubt its fast clock, and read a slow emulated device instead.
///
/// QEMU keeps translated code by virtual address, so with random addresses it translates each
/// program anew each time it starts: three quarters of the time of a test that starts many.
const KERNEL_ARGUMENTS: &[&str] = &[
    "console=ttyS0",
    "quiet",
    "loglevel=5",
    "panic=-1",
    "oops=panic",
    "softlockup_panic=0",
    "watchdog_thresh=30",
    "rcupdate.rcu_cpu_stall_timeout=60",
    "no5lvl",
    "norandmaps",
    "tsc=reliable",
    "net.ifnames=0",
];

fn acceleration(accelerator: Accelerator) -> &'static [(&'static str, &'static str)] {
    match accelerator {
        Accelerator::Kvm => &[("accel", "kvm"), ("cpu", "host")],
        Accelerator::Count => &[
            ("accel", "tcg,thread=single,tb-size=512"),
            ("icount", "shift=0,sleep=off"),
            ("cpu", "max"),
        ],
        Accelerator::Auto | Accelerator::Tcg => {
            &[("accel", "tcg,thread=multi,tb-size=512"), ("cpu", "max")]
        }
    }
}

/// Decides for KVM or TCG. A `/dev/kvm` that opens may still not run a stock kernel, so a boot is
/// tried, once for each boot of the host.
pub(super) fn accelerator(kernel: &Kernel, archive: &[u8]) -> Result<Accelerator> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = workspace::target().join("vm/kvm-probe");
    let known = fs::read_to_string(&answer).unwrap_or_default();
    let works = match known.strip_prefix(boot_id.as_str()) {
        Some(word) if !boot_id.is_empty() => word == "works",
        _ => {
            progress(&format!("trying whether KVM boots {}", kernel.release));
            let works = kvm_boots(kernel, archive)?;
            let word = if works { "works" } else { "fails" };
            workspace::write_if_changed(&answer, format!("{boot_id}{word}").as_bytes())?;
            progress(&format!("KVM {word} for {}", kernel.release));
            works
        }
    };
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

fn kvm_boots(kernel: &Kernel, archive: &[u8]) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let files = Files { sockets: dir.path().to_owned(), logs: dir.path().to_owned() };
    fs::write(files.initramfs(), archive)?;
    let machine = Machine { memory: "512M", cpus: 1, accelerator: Accelerator::Kvm };
    let mut machine = machine.start(&machine.arguments(kernel, &files), &files)?;
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end && !machine.ended() {
        let text = fs::read(files.console()).unwrap_or_default();
        if String::from_utf8_lossy(&text).contains(initramfs::MARKER) {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
