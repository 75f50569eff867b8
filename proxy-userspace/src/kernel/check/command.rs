//! A command, in a process group of its own that ends with the try, however that ends.

use std::{
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    signal::{
        self,
        unix::{SignalKind, signal},
    },
    time::timeout,
};

use super::{Failure, Subject};

/// Bytes of what it prints that are kept for people; the rest is read and dropped.
const KEPT: usize = 256;
/// How long the rest of that is waited for.
const REST: Duration = Duration::from_millis(100);
/// Nothing of the agent's own environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The processes that a command and what it starts belong to. They are killed when it is dropped.
///
/// The first of them must not have been waited for before: until then its id is nobody else's.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Perhaps nobody is left.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Runs a program with its arguments, and waits for its end as long as it may take. What it started
/// in its group ends with it.
pub(super) async fn run(
    words: &[String],
    subject: &Subject,
    within: Duration,
) -> Result<String, Failure> {
    let program = words.first().map_or("", String::as_str);
    let failed = |source| Failure::Run { program: program.to_owned(), source };
    let (mut child, output) = start(program, words, subject).map_err(failed)?;
    let mut said = Vec::new();
    let status = follow(&mut child, output, &mut said, within).await.map_err(failed)?;
    let said = told(&said);
    match status {
        None => Err(Failure::Ended { within, said }),
        Some(status) if status.success() && said.is_empty() => Ok("exit status: 0".to_owned()),
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(Failure::Exit { status, said }),
    }
}

fn start(
    program: &str,
    words: &[String],
    subject: &Subject,
) -> io::Result<(Child, pipe::Receiver)> {
    let (addr, port) = (subject.addr.ip().to_string(), subject.addr.port().to_string());
    let filled = |word: &String| word.replace("%addr", &addr).replace("%port", &port);
    let (output, input) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(words.iter().skip(1).map(filled))
        .env_clear()
        .envs([("PATH", PATH), ("PASSLANE_ADDR", &addr), ("PASSLANE_PORT", &port)])
        .env("PASSLANE_SERVICE", &subject.service)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn()?;
    // `command` holds the other end: dropped here, so that the command's own are the last.
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(output))?))
}

/// Waits for the end of a command; `None` when its time was over before.
async fn follow(
    child: &mut Child,
    mut output: pipe::Receiver,
    said: &mut Vec<u8>,
    within: Duration,
) -> io::Result<Option<ExitStatus>> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let group = Group(pid.ok_or(io::ErrorKind::NotFound)?);
    let mut children = signal(SignalKind::child())?;
    let ended = timeout(within, async {
        let mut open = true;
        loop {
            tokio::select! {
                ended = wait_for_end(group.0, &mut children) => break ended,
                read = take(&mut output, said), if open => open = read,
            }
        }
    });
    let ended = ended.await;
    drop(group);
    // What it left in the pipe, which has an end unless somebody left the group.
    let _ = timeout(REST, async { while take(&mut output, said).await {} }).await;
    let status = child.wait().await?;
    match ended {
        Ok(result) => result.map(|()| Some(status)),
        Err(_) => Ok(None),
    }
}

/// Waits until a process has ended, and leaves it to be waited for: until then its id is its own.
async fn wait_for_end(pid: Pid, children: &mut signal::unix::Signal) -> io::Result<()> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(pid), look)?.is_none() {
        children.recv().await;
    }
    Ok(())
}

/// Reads what comes and keeps the begin of it. Says whether more may come.
async fn take(output: &mut pipe::Receiver, said: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4096];
    let Ok(read) = output.read(&mut bytes).await else { return false };
    let room = KEPT.saturating_sub(said.len());
    said.extend(bytes.iter().take(read.min(room)));
    read > 0
}

/// Makes one line of what a command printed.
fn told(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn subject() -> Subject {
        Subject { addr: "[2001:db8::1]:80".parse().unwrap(), service: "shop/web".into() }
    }

    async fn shell(script: &str, within: Duration) -> Result<String, Failure> {
        let words = ["/bin/sh", "-c", script, "sh", "%addr", "x%port"].map(str::to_owned);
        run(&words, &subject(), within).await
    }

    #[tokio::test]
    async fn a_command_is_told_the_backend_and_nothing_of_the_agent() {
        let said = shell("echo $1 $2 $PASSLANE_ADDR $PASSLANE_PORT $PASSLANE_SERVICE; pwd", LONG);
        assert_eq!(said.await.unwrap(), "2001:db8::1 x80 2001:db8::1 80 shop/web /");
        let names = shell("env | cut -d= -f1 | grep ^P.*_ | sort", LONG).await.unwrap();
        assert_eq!(names, "PASSLANE_ADDR PASSLANE_PORT PASSLANE_SERVICE");
        assert_eq!(
            shell("env | grep -c CARGO", LONG).await.unwrap_err().to_string(),
            "exit status: 1: 0"
        );
    }

    #[tokio::test]
    async fn what_fails_says_how_and_what_it_printed_on_one_line() {
        let failure = shell("echo no; echo 'such\tserver' >&2; exit 3", LONG).await.unwrap_err();
        assert_eq!(failure.to_string(), "exit status: 3: no such server");
        let failure = run(&["/no/such".into()], &subject(), LONG).await.unwrap_err();
        assert_eq!(failure.to_string(), "run /no/such: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn who_prints_without_end_is_neither_stuck_nor_kept() {
        let said = shell(
            "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; \
                          i=$((i+1)); done",
            LONG,
        )
        .await
        .unwrap();
        assert!(said.len() <= KEPT && said.starts_with("0123"), "{said}");
    }

    /// Says whether a process is there that is no zombie.
    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    async fn gone(pid: &str) -> bool {
        let until = Instant::now() + LONG;
        while lives(pid) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        !lives(pid)
    }

    #[tokio::test]
    async fn a_command_that_hangs_ends_at_its_time_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let script =
            format!("sleep 1000 & echo $! >{0}; echo $$ >>{0}; echo waits; wait", file.display());
        let failure = shell(&script, Duration::from_millis(1500)).await.unwrap_err();
        assert_eq!(failure.to_string(), "ended after 1500 ms: waits");
        let pids = fs::read_to_string(&file).unwrap();
        assert_eq!(pids.lines().count(), 2);
        for pid in pids.lines() {
            assert!(gone(pid).await, "{pid}");
        }
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_ends_with_it() {
        let pid = shell("sleep 1000 >/dev/null 2>&1 & echo $!", LONG).await.unwrap();
        assert!(gone(&pid).await, "{pid}");
    }

    #[tokio::test]
    async fn a_try_that_nobody_waits_for_any_more_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("echo $$ >{}; exec sleep 1000", file.display());
        let trying = tokio::spawn(async move { shell(&script, LONG).await.map(drop) });
        let until = Instant::now() + LONG;
        while fs::read_to_string(&file).unwrap_or_default().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        trying.abort();
        assert!(trying.await.unwrap_err().is_cancelled());
        assert!(gone(&fs::read_to_string(&file).unwrap()).await);
    }
}
