//! What the documents tell an operator to type on a node, typed on a node.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command as Process, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::documents::{self, Command, Place};
use proxy_tests::objects::WEB_FRONTEND;
use proxy_tests::stage::Stage;
use proxy_tests::{agent, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::scenario::{AGENT, Need, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "commands_of_the_documents_work_on_a_node",
        needs: NEEDS,
        run: commands_of_the_documents_work_on_a_node,
    },
    Scenario {
        name: "commands_within_sentences_of_the_documents_are_understood",
        needs: &[Need::Agent],
        run: commands_within_sentences_of_the_documents_are_understood,
    },
];

const NEEDS: &[Need] = &[
    AGENT[0],
    AGENT[1],
    AGENT[2],
    AGENT[3],
    AGENT[4],
    AGENT[5],
    Need::Program("bpftool"),
    Need::Program("curl"),
    Need::Program("ipset"),
];
/// The ConfigMap of kubeadm's clusters.
const KUBE_PROXY: &str = include_str!("../../proxy-userspace/src/config/golden/kubeadm.yaml");
/// Nobody is there: what is started with it waits for an API server.
const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'https://192.0.2.10:6443'}}]
users: [{name: a, user: {token: none}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
";

fn commands_of_the_documents_work_on_a_node() -> Result<()> {
    let mut desk = Desk::open()?;
    let on_nodes = documents::commands(Place::Cluster)?.into_iter().filter_map(Command::on_a_node);
    let mut typed = BTreeSet::new();
    for command in documents::commands(Place::Node)?.into_iter().chain(on_nodes) {
        // Several pages have it, with the same answer.
        if typed.insert((command.text.clone(), command.shown.clone())) {
            desk.type_in(&command)?;
        }
    }
    desk.start()?;
    // Nothing of all this was to harm anybody.
    desk.stage.short_requests(WEB_FRONTEND, 1).map(drop)
}

/// An operator's shell on the node.
struct Desk {
    stage: Stage,
    /// Where commands are typed.
    here: PathBuf,
    /// The agent was stopped for commands that need it gone.
    stopped: bool,
    /// Something was left to the next proxy.
    left: bool,
}

impl Desk {
    fn open() -> Result<Self> {
        let stage = Stage::start(&[])?;
        let here = stage.topology.directory().join("desk");
        fs::create_dir_all(here.join("bin"))?;
        let desk = Self { stage, here, stopped: false, left: false };
        let program = desk.here.join("bin/passlane");
        fs::write(&program, desk.script()?)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let kubeconfig = desk.here.join("kubeconfig");
        fs::write(&kubeconfig, KUBECONFIG)?;
        let shown = kubeconfig.display().to_string();
        let theirs = KUBE_PROXY.replace("/var/lib/kube-proxy/kubeconfig.conf", &shown);
        fs::write(desk.here.join("kube-proxy.yaml"), theirs)?;
        desk.traffic()?;
        Ok(desk)
    }

    /// The agent's program, which is told where this node keeps its things.
    fn script(&self) -> Result<String> {
        let topology = &self.stage.topology;
        let [state, bpffs, snapshots] =
            [topology.state_dir(), topology.bpffs(), topology.directory().join("snapshots")]
                .map(|path| path.display().to_string());
        Ok(format!(
            "#!/bin/sh\nverb=$1\ncase \"$verb\" in\n\
             completion|config|man|version) exec {program} \"$@\";;\n\
             esac\nshift\n\
             exec {program} \"$verb\" --state-dir {state} --bpffs {bpffs} \\\n\
             --snapshot-dir {snapshots} \"$@\"\n",
            program = agent::binary()?.display()
        ))
    }

    /// Where things are on this node.
    fn replaced(&self, text: &str) -> String {
        let file = |name: &str| self.here.join(name).display().to_string();
        let bpffs = self.stage.topology.bpffs().display().to_string();
        text.replace("/etc/passlane.conf", &file("kubeconfig"))
            .replace("file:/etc/passlane", &self.source())
            .replace("/etc/bash_completion.d/", &file(""))
            .replace("/sys/fs/bpf/passlane", &bpffs)
    }

    fn source(&self) -> String {
        format!("file:{}", self.stage.manifests.directory().display())
    }

    fn type_in(&mut self, command: &Command) -> Result<()> {
        let words = command.parts().into_iter().next().unwrap_or_default();
        let verb = words.get(1).map(String::as_str).filter(|_| words[0] == "passlane");
        let needs_it_gone = match verb {
            Some("run") => true,
            Some("cleanup") => !words.iter().any(|word| word == "--dry-run"),
            _ => false,
        };
        if needs_it_gone {
            self.stop()?
        } else {
            self.start()?
        }
        self.left |= verb == Some("cleanup") && needs_it_gone;
        let output = match verb {
            Some("run") => self.run_and_end(command)?,
            Some("top") if words.len() == 2 => return self.top(command),
            _ => self.shell(command)?,
        };
        command.judge(&output)
    }

    /// It draws on a terminal only, which this test is not.
    fn top(&self, command: &Command) -> Result<()> {
        let output = self.shell(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("needs a terminal"), "{}: {said}", command.at);
        Ok(())
    }

    fn shell(&self, command: &Command) -> Result<Output> {
        let mut shell = self.process(&command.text);
        self.stage.topology.node.enter(|| shell.output().context(command.text.clone()))
    }

    fn process(&self, text: &str) -> Process {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Process::new("sh");
        shell
            .args(["-c", &self.replaced(text)])
            .current_dir(&self.here)
            .env("PATH", format!("{}:{path}", self.here.join("bin").display()))
            .stdin(Stdio::null());
        shell
    }

    /// Stops the agent, unless it was.
    fn stop(&mut self) -> Result<()> {
        if !self.stopped {
            self.stage.agent.terminate()?;
        }
        self.stopped = true;
        Ok(())
    }

    /// Starts the agent again, unless it runs.
    fn start(&mut self) -> Result<()> {
        if !self.stopped {
            return Ok(());
        }
        if self.left {
            self.take_back()?;
        }
        self.stage.agent.spawn()?;
        self.stage.agent.wait_ready()?;
        (self.stopped, self.left) = (false, false);
        self.traffic()
    }

    /// There is no next proxy to take what one that leaves has left to it: it goes.
    fn take_back(&self) -> Result<()> {
        let node = &self.stage.topology.node;
        node.run("ipvsadm", &["-C"])?;
        // Not there after a cleanup of everything.
        node.output("ip", &["link", "del", "kube-ipvs0"]).map(drop)
    }

    /// Somebody has been served, and fast.
    fn traffic(&self) -> Result<()> {
        self.stage.fast_connection(WEB_FRONTEND).map(drop)
    }

    /// Starts another agent and ends it once it has reported, if it does not end by itself.
    fn run_and_end(&self, command: &Command) -> Result<Output> {
        let log = self.here.join("run.log");
        let mut shell = self.process(&format!("exec {}", command.text));
        shell.stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut child =
            self.stage.topology.node.enter(|| shell.spawn().context("start a shell"))?;
        let ended = wait::until("the agent starts or ends", wait::PATIENCE, || {
            let ended = child.try_wait()?.is_some();
            Ok((ended || self.has_reported(child.id())).then_some(ended))
        });
        if !matches!(ended, Ok(true)) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let signal = if ended.is_ok() { Signal::TERM } else { Signal::KILL };
            kill_process(pid.context("a process id")?, signal)?;
        }
        let status = child.wait()?;
        ended.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Output { status, stdout: Vec::new(), stderr: fs::read(&log)? })
    }

    /// Whether this process has come so far that it can be asked to end.
    fn has_reported(&self, pid: u32) -> bool {
        let file = self.stage.topology.state_dir().join("status.json");
        let report = fs::read_to_string(file).ok().and_then(|text| {
            let report: serde_json::Value = serde_json::from_str(&text).ok()?;
            report["pid"].as_u64()
        });
        report == Some(u64::from(pid))
    }
}

/// What stands between backticks in a sentence and begins as a command of ours is one.
fn commands_within_sentences_of_the_documents_are_understood() -> Result<()> {
    let program = agent::binary()?.display().to_string();
    let mut count = 0;
    for file in documents::files()? {
        for words in documents::in_sentences(&documents::read(&file)?, "passlane") {
            let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
            words.push("--help");
            let output = proxy_tests::process::output(&program, &words)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{file}: passlane {}: {said}", words.join(" "));
            count += 1;
        }
    }
    ensure!(count > 0, "no document has any");
    Ok(())
}
