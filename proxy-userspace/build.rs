//! Embeds the BPF objects, so that the agent is one file.

use std::{env, error::Error, fs, path::PathBuf};

/// A directory with the objects, instead of the target directory's.
const OBJECTS: &str = "PASSLANE_BPF_OBJECTS";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let objects = match env::var_os(OBJECTS) {
        Some(path) => PathBuf::from(path),
        // OUT_DIR is <target>/<profile>/build/<package>/out.
        None => out.ancestors().nth(4).ok_or("OUT_DIR is too short")?.join("bpf"),
    };
    println!("cargo::rerun-if-env-changed={OBJECTS}");
    for name in ["passlane.bpf.o", "localhost.bpf.o", "witness.bpf.o", "digest.bpf.o", "lb.bpf.o"] {
        let object = objects.join(name);
        println!("cargo::rerun-if-changed={}", object.display());
        let bytes = fs::read(&object).map_err(|error| {
            format!("{}: {error}: run `cargo xtask build-ebpf` first", object.display())
        })?;
        fs::write(out.join(name), bytes)?;
    }
    Ok(())
}
