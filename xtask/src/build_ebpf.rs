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
    for object in build(Consent::new(args.yes))? {
        let bytes =
            fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        print!("{}", report::describe(&bytes)?);
        println!("object {} bytes {}", bytes.len(), object.display());
    }
    Ok(())
}

/// The objects that the agent embeds, a binary of `proxy-ebpf` each: the fast path, what serves
/// node ports at loopback addresses, what sees who changes the node, what sums up maps, and the hash
/// plane.
const OBJECTS: &[&str] = &["passlane", "localhost", "witness", "digest", "lb"];

/// Builds the BPF objects of the agent and returns their paths.
pub(crate) fn build(consent: Consent) -> Result<Vec<PathBuf>> {
    build_objects(consent, "proxy-ebpf", OBJECTS)
}

/// Builds the programs that the datapath is measured against and returns their object's path.
pub(crate) fn build_ladder(consent: Consent) -> Result<PathBuf> {
    build_objects(consent, "bench-ebpf", &["ladder"])?.pop().context("no object was built")
}

fn build_objects(consent: Consent, package: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    packages::ensure(&[packages::BUILD], consent)?;
    let library = rust_src::find_or_obtain(consent)?;
    let linker = linker::find_or_obtain(consent)?;
    progress(&format!("compiling {package}"));
    let target = workspace::target().join("bpf-build");
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--quiet", "--package", package, "--bins", "--release"])
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
    let copy = |name: &&str| {
        let built = target.join(TRIPLE).join("release").join(name);
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let object = workspace::target().join(format!("bpf/{name}.bpf.o"));
        workspace::write_if_changed(&object, &bytes)?;
        Ok(object)
    };
    names.iter().map(copy).collect()
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
