//! `cargo xtask image`: the container image as an OCI archive, written here, without a daemon.
//!
//! The same sources, packages and compiler make the same bytes: entries are sorted, times and owners
//! are fixed, and nothing of this machine gets in. What is in it, and why:
//!
//! | part | for |
//! |---|---|
//! | `passlane` | |
//! | `nft` | the nft table |
//! | `modprobe` | `passlane run --init-only` and agents that may load modules |
//! | `xtables-legacy-multi`, its extensions | chains that kube-proxy left in the older iptables (`--adopt`) |
//! | shared libraries | exactly those that these name, and the loader |
//! | CA roots, `/etc/protocols` | API servers with public certificates; names of protocols in nft |
//! | `/usr/share/doc`, `/usr/share/common-licenses` | licences of all that, and what there is (SPDX) |
//!
//! There is no shell, and no user but root: without ambient capabilities, which no container runtime
//! sets, another user's process would have none of the three that the agent keeps.

mod base;
mod closure;
mod contents;
mod crates;
mod oci;
mod sbom;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Consent, progress};
use crate::{artifacts, build_ebpf, packages, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the archive goes [default: target/passlane-VERSION-ARCH.oci.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the root file system into a new directory instead, for a Containerfile
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    directory: Option<PathBuf>,
    /// Write the list of what is in it (SPDX, JSON) here too
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
    /// Cargo profile of the agent
    #[arg(long, default_value = "image")]
    profile: String,
    /// Take this executable of the agent instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    agent: Option<PathBuf>,
    /// Fail when a package is not to be had in the version that deploy/image lists
    #[arg(long)]
    locked: bool,
    /// List the newest versions of the packages in deploy/image, and end
    #[arg(long)]
    update: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn main(args: &Args) -> Result<()> {
    let consent = Consent::new(args.yes);
    if args.update {
        return base::update(consent);
    }
    packages::ensure(&[packages::BUILD, packages::STRIP], consent)?;
    let agent = match &args.agent {
        Some(agent) => agent.clone(),
        None => build_agent(&args.profile, consent)?,
    };
    let packages = base::obtain(args.locked, consent)?;
    let image = contents::assemble(&stripped(&agent)?, &packages)?;
    if let Some(path) = &args.sbom {
        fs::write(path, &image.sbom).with_context(|| format!("cannot write {}", path.display()))?;
    }
    contents::print_parts(&image.layers);
    if let Some(directory) = &args.directory {
        ensure!(!directory.exists(), "{} is there already; remove it", directory.display());
        for layer in &image.layers {
            layer.write_into(directory)?;
        }
        println!("directory {}", directory.display());
        return Ok(());
    }
    let name = format!("passlane-{}-{}.oci.tar", contents::VERSION, base::ARCHITECTURE.debian);
    let output = args.output.clone().unwrap_or_else(|| workspace::target().join(name));
    write(&image.layers, &output)
}

/// Writes an image of this executable of the agent, and returns the archive's path.
pub(crate) fn write_with(agent: &Path, output: &Path, consent: Consent) -> Result<PathBuf> {
    let packages = base::obtain(false, consent)?;
    let image = contents::assemble(&stripped(agent)?, &packages)?;
    let archive = oci::archive(&image.layers, contents::VERSION, base::ARCHITECTURE.oci)?;
    workspace::write_if_changed(output, &archive.bytes)?;
    Ok(output.to_owned())
}

fn write(layers: &[tree::Tree], output: &Path) -> Result<()> {
    progress("packing the layers");
    let archive = oci::archive(layers, contents::VERSION, base::ARCHITECTURE.oci)?;
    workspace::write_if_changed(output, &archive.bytes)?;
    println!("archive {} bytes sha256:{}", archive.bytes.len(), oci::sha256(&archive.bytes));
    println!("manifest {}", archive.manifest);
    println!("image {}", output.display());
    Ok(())
}

/// Builds the agent so that it does not depend on where: panics name source files.
fn build_agent(profile: &str, consent: Consent) -> Result<PathBuf> {
    build_ebpf::build(consent)?;
    let package = ["--package", "proxy-userspace", "--bin", "passlane", "--locked"];
    let arguments = [&package[..], &["--profile", profile]].concat();
    let built = artifacts::build_as(&arguments, |cargo| {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", remapping().join("\x1f")).env_remove("RUSTFLAGS");
    })?;
    artifacts::one(&built, "passlane")
}

fn remapping() -> Vec<String> {
    let remap = |from: PathBuf, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags =
        vec![remap(workspace::root(), "passlane"), remap(workspace::target(), "target")];
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    flags.extend(cargo_home.or(home).map(|dir| remap(dir.join("registry/src"), "registry")));
    flags
}

/// The executable without symbols, whatever its profile left of them.
fn stripped(agent: &Path) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new("strip");
    command::output(strip.arg("--strip-all").arg("-o").arg(file.path()).arg(agent))?;
    fs::read(file.path()).context("cannot read the stripped agent")
}
