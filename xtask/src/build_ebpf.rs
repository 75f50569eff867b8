//! `cargo xtask build-ebpf`: the BPF object, on the stable toolchain, from a bare machine.

mod linker;
mod report;
mod rust_src;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::command::{self, Consent, progress};
use crate::{packages, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn main(args: &Args) -> Result<()> {
    let object = build(Consent::new(args.yes))?;
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    print!("{}", report::describe(&bytes)?);
    println!("object {} bytes {}", bytes.len(), object.display());
    Ok(())
}

/// Builds the BPF object and returns its path.
pub(crate) fn build(consent: Consent) -> Result<PathBuf> {
    build_object(consent, "proxy-ebpf", "passlane")
}

/// Builds the programs that the datapath is measured against and returns their object's path.
pub(crate) fn build_ladder(consent: Consent) -> Result<PathBuf> {
    build_object(consent, "bench-ebpf", "ladder")
}

fn build_object(consent: Consent, package: &str, name: &str) -> Result<PathBuf> {
    packages::ensure(&[packages::BUILD], consent)?;
    let library = rust_src::find_or_obtain(consent)?;
    let linker = linker::find_or_obtain(consent)?;
    progress(&format!("compiling {package}"));
    let target = workspace::target().join("bpf-build");
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--quiet", "--package", package, "--bin", name, "--release"])
        .args(["--target", TRIPLE, "-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        // build-std is a nightly flag; what it does to `core` is the same on this stable release.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker, &library))
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        // bpf-linker sees the whole program anyway and does its own link-time optimisation.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env_remove("RUSTFLAGS")
        // clippy's wrapper must not end up in the build of another target.
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    if !library.in_sysroot {
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", &library.dir);
    }
    command::run(&mut cargo)?;
    let built = target.join(TRIPLE).join("release").join(name);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = workspace::target().join("bpf").join(format!("{name}.bpf.o"));
    workspace::write_if_changed(&object, &bytes)?;
    Ok(object)
}

const TRIPLE: &str = "bpfel-unknown-none";

fn rustflags(linker: &std::path::Path, library: &rust_src::Library) -> String {
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // v3 has 32-bit jumps and atomic compare-and-swap; kernel 5.12 is the oldest with both.
        "-Ctarget-cpu=v3".to_owned(),
    ];
    // BTF carries source paths: the object must not depend on where it was built.
    let mut remap = |from: PathBuf, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(workspace::root(), "passlane");
    remap(library.dir.clone(), "rust");
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    if let Some(registry) = cargo_home.or(home) {
        remap(registry.join("registry/src"), "registry");
    }
    flags.join("\x1f")
}
