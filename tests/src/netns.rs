//! A named network namespace and work done inside it.
//!
//! Only a thread made for the purpose ever changes its namespace. A socket stays in the namespace
//! it was made in, and a child process in that of the thread that started it, so both can be made
//! inside and used from anywhere. The mount namespace never changes (unlike `ip netns exec`), so
//! `/sys/fs/bpf` stays in sight.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, anyhow};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process;

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

/// A network namespace that exists under a name. Whoever made it deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Names a namespace; it need not exist yet.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The name `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    /// Runs `work` inside, on a thread of its own, and returns what it returned.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("namespace {}", self.name))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter namespace {}", self.name))?;
                work()
            });
            thread.join().map_err(|_| anyhow!("work in namespace {} panicked", self.name))?
        })
    }

    /// Runs a program inside; see [`process::run`].
    pub fn run<S: AsRef<OsStr> + Sync>(&self, program: &str, args: &[S]) -> Result<String> {
        self.enter(|| process::run(program, args))
    }

    /// Runs a program inside to its end, whatever its exit code.
    pub fn output<S: AsRef<OsStr> + Sync>(&self, program: &str, args: &[S]) -> Result<Output> {
        self.enter(|| process::output(program, args))
    }

    /// Runs a program inside with `input` on its standard input.
    pub fn feed<S: AsRef<OsStr> + Sync>(
        &self,
        program: &str,
        args: &[S],
        input: &str,
    ) -> Result<String> {
        self.enter(|| process::feed(program, args, input))
    }

    /// Adds to the nft ruleset of the namespace.
    pub fn nft(&self, rules: &str) -> Result<String> {
        self.feed("nft", &["-f", "-"], rules)
    }

    /// Writes a sysctl of the namespace, e.g. `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("{key}={value}")))
    }

    /// Reads a sysctl of the namespace.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        self.enter(|| {
            let text = std::fs::read_to_string(&path).with_context(|| key.to_owned())?;
            Ok(text.trim().to_owned())
        })
    }
}

/// `/proc/sys/net` shows the namespace of the thread that looks.
fn sysctl_path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
