//! Fresh network namespaces, commands in them, and peers: further namespaces behind a veth.

use std::{
    env,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use proxy_userspace::kernel::link::Links;

use crate::{CHILD, actor::Actor};

/// Tests that take longer say so.
const SLOW: Duration = Duration::from_secs(10);

/// Runs the named test in a process of its own, in a network namespace of its own.
pub(crate) fn run_in_fresh(name: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let output = Command::new("unshare")
        .arg("--net")
        .arg(env::current_exe()?)
        .env(CHILD, name)
        .output()
        .context("run unshare")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if start.elapsed() > SLOW {
        println!("{name} took {:.1?}", start.elapsed());
    }
    Ok(())
}

/// Runs a shell script, which must succeed, and returns what it printed.
pub(crate) fn sh(script: &str) -> anyhow::Result<String> {
    run(Command::new("sh").args(["-euc", script]), script)
}

fn run(command: &mut Command, what: &str) -> anyhow::Result<String> {
    let output = command.output().with_context(|| what.to_owned())?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A network namespace kept by a process that sleeps. It ends with this value.
pub(crate) struct Peer {
    keeper: Child,
}

impl Peer {
    /// Makes a namespace joined by a veth: `name` here with `host_addr`/24, `eth0` there with
    /// `addr`/24 and a default route back.
    pub(crate) fn join(name: &str, host_addr: &str, addr: &str) -> anyhow::Result<Self> {
        let keeper = Command::new("unshare")
            .args(["--net", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .context("run unshare")?;
        let peer = Self { keeper };
        peer.wait_until_apart()?;
        sh(&format!(
            "ip link add {name} type veth peer name eth0 netns {pid}
             ip addr add {host_addr}/24 dev {name}
             ip link set {name} up",
            pid = peer.keeper.id()
        ))?;
        peer.sh(&format!(
            "ip link set lo up
             ip addr add {addr}/24 dev eth0
             ip link set eth0 up
             ip route add default via {host_addr}"
        ))?;
        Ok(peer)
    }

    /// Runs a shell script there, which must succeed, and returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> anyhow::Result<String> {
        run(self.enter().args(["sh", "-euc", script]), script)
    }

    /// Starts an actor there that says when it is ready.
    pub(crate) fn start(&self, actor: Actor) -> anyhow::Result<Program> {
        start_as(actor, self.enter().arg(env::current_exe()?))
    }

    /// Lets an actor play there to its end, and returns what it printed, trimmed.
    pub(crate) fn play(&self, actor: Actor) -> anyhow::Result<String> {
        let mut command = self.enter();
        command.arg(env::current_exe()?);
        actor.direct(&mut command);
        Ok(run(&mut command, &format!("{actor:?}"))?.trim().to_owned())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.keeper.id().to_string()]);
        command
    }

    /// Between fork and unshare the keeper is still in our namespace.
    fn wait_until_apart(&self) -> anyhow::Result<()> {
        let link = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
        let (own, pid) = (link("self")?, self.keeper.id().to_string());
        wait_for("the peer's namespace", || Ok(link(&pid)? != own))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// A program that runs beside the test. It ends with this value.
pub(crate) struct Program {
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an actor here that says when it is ready.
pub(crate) fn start(actor: Actor) -> anyhow::Result<Program> {
    start_as(actor, &mut Command::new(env::current_exe()?))
}

fn start_as(actor: Actor, command: &mut Command) -> anyhow::Result<Program> {
    use std::io::{BufRead, BufReader};
    actor.direct(command);
    let mut child = command.stdout(Stdio::piped()).spawn().context("start an actor")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let program = Program { child };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(!line.is_empty(), "{actor:?} ended before it was ready");
    Ok(program)
}

/// Makes the device for VIP routes and returns its index. A veth stands in for the dummy, which not
/// every kernel has: to routes they are the same.
pub(crate) async fn vip_device() -> anyhow::Result<u32> {
    // Without link-local addresses, which come with routes of their own a second later.
    sh("ip link add kube-ipvs0 type veth peer name unused
        ip link set kube-ipvs0 addrgenmode none; ip link set unused addrgenmode none
        ip link set kube-ipvs0 up; ip link set unused up")?;
    Links::open()?.index_of("kube-ipvs0").await?.context("no kube-ipvs0")
}

/// Waits up to 10 s for a condition.
pub(crate) fn wait_for(
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition()? {
        ensure!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
