//! The image of `cargo xtask image`, in a guest by containerd and runc from Debian's packages: what a
//! node does with it, without a kubelet. And natively, that the same inputs make the same bytes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::{
    agent::{self, Agent},
    objects::WEB_FRONTEND,
    process,
    stage::Stage,
    wait,
};

use crate::cluster::Cluster;
use crate::node::runtime;
use crate::on_a_node::{PATIENCE, Test};

/// In the guest.
pub(crate) const TESTS: &[Test] = &[(
    "image_serves_traffic_with_three_capabilities_and_a_root_that_it_cannot_write",
    image_serves_traffic_with_three_capabilities_and_a_root_that_it_cannot_write,
)];

/// On this machine.
pub(crate) const NATIVE: &[crate::Test] = &[(
    "the_same_inputs_make_the_same_image_wherever_and_whenever",
    the_same_inputs_make_the_same_image_wherever_and_whenever,
)];

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`, as `linux/capability.h` numbers them.
const KEPT: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// What containerd gives a container unless told otherwise.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const PASSLANE: &str = "/usr/bin/passlane";

fn archive() -> Result<String> {
    std::env::var("PASSLANE_IMAGE")
        .context("PASSLANE_IMAGE names no archive; `cargo xtask test --level L5` writes one")
}

fn image_serves_traffic_with_three_capabilities_and_a_root_that_it_cannot_write() -> Result<()> {
    let stage = Stage::with_agent(|topology, manifests| Agent::new(topology, manifests, &[]))?;
    let runtime = Containerd::start()?;
    runtime.import()?;
    runtime.has_what_it_needs_and_no_shell()?;
    fs::create_dir_all(stage.topology.state_dir())?;

    let mut init = runtime.container("init", &stage, &["--privileged"], &["--init-only"]);
    let init = init.output()?;
    let said = String::from_utf8_lossy(&init.stderr);
    ensure!(init.status.success() && said.contains("initialized"), "{}: {said}", init.status);

    let _agent = runtime.run_agent(&stage)?;
    let answers = stage.short_requests(WEB_FRONTEND, 4)?;
    ensure!(answers.iter().all(|who| who.starts_with("web-")), "{answers:?}");
    drop(stage.fast_connection(WEB_FRONTEND)?);
    runtime.is_confined()
}

/// A containerd of the test's own. Dropping it ends it.
struct Containerd {
    directory: tempfile::TempDir,
    child: Child,
    image: String,
    /// Its own tool.
    ctr: PathBuf,
}

/// The unpacked programs first, and then those of this machine.
fn search_path(programs: &Path) -> Result<OsString> {
    let own = ["bin", "sbin"].map(|each| programs.join(each));
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?)
}

impl Containerd {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']\n\
             [grpc]\naddress = '{}'\n",
            path("root"),
            path("state"),
            path("socket")
        );
        fs::write(directory.path().join("config.toml"), config)?;
        let log = File::create(directory.path().join("log"))?;
        let programs = runtime::root()?.join("usr");
        let child = Command::new(programs.join("bin/containerd"))
            .args(["--config", &path("config.toml")])
            // It starts its shim from there, and that runc.
            .env("PATH", search_path(&programs)?)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        let image = format!("passlane:{}", env!("CARGO_PKG_VERSION"));
        let runtime = Self { directory, child, image, ctr: programs.join("bin/ctr") };
        wait::until_true("containerd answers", PATIENCE, || {
            Ok(runtime.ctr(&["version"]).output()?.status.success())
        })
        .with_context(|| runtime.log())?;
        Ok(runtime)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(self.directory.path().join("socket"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `ctr` to an end that must be good.
    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctr(arguments).output()?;
        let complaint = || format!("ctr {}: {}", arguments.join(" "), process::complaint(&output));
        ensure!(output.status.success(), "{}\n{}", complaint(), self.log());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn import(&self) -> Result<()> {
        let archive = archive()?;
        let import = ["image", "import", "--snapshotter", "native", "--base-name", "passlane"];
        self.ask(&[&import[..], &[&archive]].concat())?;
        let listed = self.ask(&["image", "list"])?;
        ensure!(listed.contains(&self.image), "no {} in\n{listed}", self.image);
        // Every blob is there, for this platform, and unpacked.
        let checked = self.ask(&["image", "check", "--snapshotter", "native"])?;
        let line = checked.lines().find(|line| line.starts_with(&self.image));
        ensure!(
            line.is_some_and(
                |line| line.contains("complete (3/3)") && line.trim_end().ends_with("true")
            ),
            "{checked}"
        );
        Ok(())
    }

    /// Runs a program of the image in a container with a root that it cannot write.
    fn once(&self, words: &[&str]) -> Result<Output> {
        let run = ["run", "--rm", "--snapshotter", "native", "--read-only", &self.image, "once"];
        Ok(self.ctr(&[&run[..], words].concat()).output()?)
    }

    fn has_what_it_needs_and_no_shell(&self) -> Result<()> {
        // nft and modprobe are seen at work.
        for (words, expected) in [
            (&[PASSLANE, "version"][..], env!("CARGO_PKG_VERSION")),
            (&["/usr/sbin/iptables-legacy-restore", "--version"], "legacy"),
        ] {
            let output = self.once(words)?;
            let said = String::from_utf8_lossy(&output.stdout);
            let complaint = process::complaint(&output);
            ensure!(said.contains(expected), "{words:?}: {said}{complaint}");
        }
        let output = self.once(&["/bin/sh", "-c", "true"])?;
        ensure!(!output.status.success(), "the image has a shell");
        Ok(())
    }

    /// The command that runs the agent in the stage's node.
    fn container(&self, name: &str, stage: &Stage, options: &[&str], more: &[&str]) -> Command {
        let topology = &stage.topology;
        let shown = |path: &Path| path.display().to_string();
        let network = format!("network:{}", shown(&topology.node.path()));
        let mut words: Vec<String> =
            ["run", "--rm", "--snapshotter", "native", "--read-only"].map(str::to_owned).to_vec();
        words.extend(["--with-ns".to_owned(), network]);
        let (state, manifests) = (topology.state_dir(), stage.manifests.directory().to_owned());
        for (path, how) in [
            (PathBuf::from("/sys/fs/bpf"), "rw"),
            (PathBuf::from("/lib/modules"), "ro"),
            (state.clone(), "rw"),
            (manifests.clone(), "ro"),
        ] {
            let path = shown(&path);
            let mount = format!("type=bind,src={path},dst={path},options=rbind:{how}");
            words.extend(["--mount".to_owned(), mount]);
        }
        words.extend(options.iter().map(|&word| word.to_owned()));
        words.extend([&self.image, name, PASSLANE, "run"].map(str::to_owned));
        words.extend(["--source".to_owned(), format!("file:{}", shown(&manifests))]);
        words.extend(["--state-dir".to_owned(), shown(&state)]);
        words.extend(["--bpffs".to_owned(), shown(&topology.bpffs())]);
        words.extend(more.iter().map(|&word| word.to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.ctr(&words)
    }

    fn run_agent(&self, stage: &Stage) -> Result<Running<'_>> {
        let mut options: Vec<String> = vec!["--seccomp".to_owned()];
        for name in DEFAULT {
            options.extend(["--cap-drop".to_owned(), format!("CAP_{name}")]);
        }
        for name in ["BPF", "NET_ADMIN", "PERFMON"] {
            options.extend(["--cap-add".to_owned(), format!("CAP_{name}")]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let path = self.directory.path().join("agent.log");
        let log = File::create(&path)?;
        let mut command = self.container("agent", stage, &options, &[]);
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("start ctr")?;
        let mut running = Running { runtime: self, child };
        let told = stage.topology.state_dir().join("status.json");
        wait::until_true("the agent in the container is ready", PATIENCE, || {
            ensure!(running.child.try_wait()?.is_none(), "it ended");
            let report = fs::read_to_string(&told).unwrap_or_default();
            let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_default();
            Ok(report["ready"] == true && report["fast_path"]["mode"] == "on")
        })
        .with_context(|| {
            let report = fs::read_to_string(&told).unwrap_or_default();
            format!("{report}\n{}", fs::read_to_string(&path).unwrap_or_default())
        })?;
        Ok(running)
    }

    /// The agent's process has three capabilities, a filter of system calls, and a root that it cannot
    /// write.
    fn is_confined(&self) -> Result<()> {
        let tasks = self.ask(&["task", "list"])?;
        let line = tasks.lines().find(|line| line.starts_with("agent ")).context("no task")?;
        let pid = line.split_whitespace().nth(1).context("a task has a process")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
            let bits = u64::from_str_radix(line.context("a set")?, 16)?;
            ensure!(bits == KEPT, "{set} is {bits:x}:\n{status}");
        }
        ensure!(status.contains("\nSeccomp:\t2\n"), "no filter of system calls:\n{status}");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = lines.rfind(|fields| fields.get(4) == Some(&"/"));
        let options = root.and_then(|fields| fields.get(5).copied()).unwrap_or_default();
        ensure!(options.split(',').any(|option| option == "ro"), "{mounts}");
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The container of the agent. Dropping it ends it.
struct Running<'a> {
    runtime: &'a Containerd,
    child: Child,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.ask(&["task", "kill", "--signal", "SIGKILL", "agent"]) {
            eprintln!("end the container: {error:#}");
            // It may have ended by itself.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn the_same_inputs_make_the_same_image_wherever_and_whenever(_: &Cluster) -> Result<()> {
    let xtask = std::env::var("PASSLANE_XTASK")
        .context("PASSLANE_XTASK names no program; `cargo xtask test --level L5` names itself")?;
    let directory = tempfile::tempdir()?;
    let (copy, output) = (directory.path().join("renamed"), directory.path().join("image.tar"));
    fs::copy(agent::binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700))?;
    let write = Command::new(xtask)
        .args(["image", "--yes", "--agent"])
        .arg(&copy)
        .arg("--output")
        .arg(&output)
        .current_dir(directory.path())
        .envs([("TZ", "Pacific/Chatham"), ("LC_ALL", "tr_TR.UTF-8")])
        .stdin(Stdio::null())
        .output()?;
    ensure!(write.status.success(), "cargo xtask image: {}", process::complaint(&write));
    let said = String::from_utf8_lossy(&write.stdout);
    ensure!(said.contains("\nmanifest sha256:"), "{said}");
    ensure!(fs::read(archive()?)? == fs::read(&output)?, "another image:\n{said}");
    Ok(())
}
