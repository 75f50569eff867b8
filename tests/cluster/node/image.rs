//! The image of all pods of the test: one static program, links to it, and a file to serve.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proxy_tests::{process, transfer::Blob};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Its name. It is in no registry.
pub(crate) const NAME: &str = "passlane.test/box:1";
/// What it can do.
const APPLETS: &[&str] = &["sh", "httpd", "sleep"];
/// Where what is served is.
pub(crate) const SERVED: &str = "/srv";
/// Bytes of the file that is worth the fast path.
pub(crate) const BULK: u64 = 8 << 20;

/// Writes the image as an OCI archive and returns its path.
pub(crate) fn write(directory: &Path) -> Result<PathBuf> {
    let busybox = std::env::var_os("PASSLANE_BUSYBOX").context(
        "PASSLANE_BUSYBOX names no static busybox; `cargo xtask test --level L5` gets one",
    )?;
    let (root, layout) = (directory.join("root"), directory.join("layout"));
    fs::create_dir_all(root.join("bin"))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let served = root.join(SERVED.trim_start_matches('/'));
    fs::create_dir(&served)?;
    Blob::of(BULK).write_to(&mut fs::File::create(served.join("blob"))?)?;
    let blobs = Blobs(layout.join("blobs/sha256"));
    fs::create_dir_all(&blobs.0)?;
    let layer = directory.join("layer.tar");
    archive(&root, &layer)?;
    let layer = blobs.add(&fs::read(layer)?, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        // As the sandbox of a pod it holds the namespaces, and that is all.
        "config": {"Entrypoint": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config =
        blobs.add(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = blobs.add(manifest.to_string().as_bytes(), kind)?;
    manifest["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let file = directory.join("box.tar");
    archive(&layout, &file)?;
    Ok(file)
}

/// The contents of an OCI layout, each under its digest.
struct Blobs(PathBuf);

impl Blobs {
    /// Adds one and returns its descriptor.
    fn add(&self, bytes: &[u8], kind: &str) -> Result<Value> {
        let digest: String =
            Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.0.join(&digest), bytes)?;
        Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
    }
}

fn archive(directory: &Path, file: &Path) -> Result<()> {
    let text = |path: &Path| path.display().to_string();
    process::run("tar", &["-C", &text(directory), "-cf", &text(file), "."]).map(drop)
}
