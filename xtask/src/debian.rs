//! Debian packages fetched and unpacked without installing them, from any suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{self, progress};
use crate::packages;
use crate::workspace;

/// A suite of the Debian archive, read through the machine's own mirror.
pub(crate) struct Suite {
    name: String,
    /// apt options that make it see only this suite; none when the machine has the suite itself.
    options: Vec<String>,
}

impl Suite {
    /// Opens a suite by code name. The machine's own sources are never changed: another suite gets
    /// its lists below target/.
    pub(crate) fn open(name: &str, consent: command::Consent) -> Result<Self> {
        packages::ensure(&[packages::DEBIAN], consent)?;
        let own = codename()?;
        if name == own {
            return Ok(Self { name: name.to_owned(), options: Vec::new() });
        }
        let state = workspace::target().join("apt").join(name);
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(dir))
                .with_context(|| format!("cannot create {}", state.display()))?;
        }
        fs::write(state.join("sources.list"), sources(name, &own)?)?;
        let option = |key: &str, value: &Path| format!("-o{key}={}", value.display());
        let suite = Self {
            name: name.to_owned(),
            options: vec![
                option("Dir::Etc::sourcelist", &state.join("sources.list")),
                "-oDir::Etc::sourceparts=-".to_owned(),
                option("Dir::State::lists", &state.join("lists")),
                option("Dir::Cache", &state.join("cache")),
                "-oAPT::Sandbox::User=root".to_owned(),
            ],
        };
        suite.update()?;
        Ok(suite)
    }

    /// Reads the archive's index again.
    pub(crate) fn update(&self) -> Result<()> {
        progress(&format!("reading the package index of {}", self.name));
        command::run(self.apt("apt-get").args(["update", "-qq"]))
            .with_context(|| format!("cannot read Debian suite {}; check the network", self.name))
    }

    /// Names of all packages that start with `prefix`.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let text = command::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The versions of a package, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let text = command::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|version| version.trim().to_owned())
            .collect())
    }

    /// Downloads `package` (or `package=version`) and unpacks it into `into`.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let downloads = tempfile::tempdir()?;
        let deb = self.download(package, downloads.path())?;
        Self::unpack_file(&deb, into)
    }

    /// Downloads `package` (or `package=version`) into an empty directory and returns its file.
    pub(crate) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        progress(&format!("downloading Debian package {package} from {}", self.name));
        command::output(
            self.apt("apt-get")
                .args(["download", "-qq", "-oAPT::Sandbox::User=root", package])
                .current_dir(into),
        )?;
        only_file(into).with_context(|| format!("apt-get download {package} left no file"))
    }

    /// Unpacks the file of a package.
    pub(crate) fn unpack_file(deb: &Path, into: &Path) -> Result<()> {
        progress(&format!("unpacking {}", deb.file_name().unwrap_or_default().display()));
        command::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(into)).map(|_| ())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

fn only_file(dir: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(dir).ok()?.next()?.ok()?.path())
}

/// The code name of the machine's own Debian release.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
    };
    if value("ID") != "debian" {
        bail!("packages of other suites are only fetched on Debian, this is `{}`", value("ID"));
    }
    Ok(value("VERSION_CODENAME").trim_matches('"').to_owned())
}

/// One-line style sources for `suite` on the mirrors that the machine already uses.
fn sources(suite: &str, own: &str) -> Result<String> {
    let mirror = mirror(own).with_context(|| format!("apt has no sources for {own}"))?;
    let mut lines = format!("deb {mirror} {suite} main\n");
    // Kernels live in the security archive until the next point release.
    let has_security = suite != "sid" && !suite.contains('-');
    if has_security && let Some(mirror) = self::mirror(&format!("{own}-security")) {
        lines.push_str(&format!("deb {mirror} {suite}-security main\n"));
    }
    Ok(lines)
}

fn mirror(codename: &str) -> Option<String> {
    let filter = format!("Codename: {codename}");
    let text = command::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        &filter,
    ]));
    Some(text.ok()?.lines().next()?.to_owned())
}
