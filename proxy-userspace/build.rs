//! Embeds the BPF object, so that the agent is one file.

use std::{env, error::Error, fs, path::PathBuf};

const OBJECT: &str = "PASSLANE_BPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = match env::var_os(OBJECT) {
        Some(path) => PathBuf::from(path),
        // OUT_DIR is <target>/<profile>/build/<package>/out.
        None => out.ancestors().nth(4).ok_or("OUT_DIR is too short")?.join("bpf/passlane.bpf.o"),
    };
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| {
        format!("{}: {error}: run `cargo xtask build-ebpf` first", object.display())
    })?;
    fs::write(out.join("passlane.bpf.o"), bytes)?;
    Ok(())
}
