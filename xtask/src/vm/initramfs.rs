//! The small first file system: loads what the host's root needs, mounts it, and goes there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kernels::Kernel;
use crate::command::{self, Consent};
use crate::debian::Suite;
use crate::workspace;

/// Modules needed before the host's root is there, in loading order; built-in ones are skipped.
const MODULES: &[&str] = &["virtio_pci", "virtiofs", "virtio_console", "overlay"];

/// Marker on the console: this kernel got as far as user space under this accelerator.
pub(super) const MARKER: &str = "passlane: initramfs runs";

/// The archive for one kernel. `init` is the program that the mounted root is handed to.
pub(super) fn build(kernel: &Kernel, init: &Path, consent: Consent) -> Result<Vec<u8>> {
    let mut archive = Newc::default();
    for dir in ["bin", "dev", "proc", "host", "rw", "newroot", "modules"] {
        archive.directory(dir);
    }
    archive.file("bin/busybox", 0o755, &fs::read(busybox(consent)?)?);
    let mut names = String::new();
    for path in wanted_modules(kernel)? {
        let file = path.file_stem().context("a module has a name")?.to_string_lossy();
        let name = file.split('.').next().unwrap_or_default().to_owned();
        archive.file(&format!("modules/{name}.ko"), 0o644, &module_bytes(&path)?);
        names.push_str(&name);
        names.push(' ');
    }
    archive.file("init", 0o755, script(&names, init).as_bytes());
    Ok(archive.finish())
}

/// The host's root is never written: what the guest writes goes to memory.
fn script(modules: &str, init: &Path) -> String {
    let init = init.display();
    format!(
        "#!/bin/busybox sh
set -e
b=/bin/busybox
$b mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
echo '{MARKER}'
for module in {modules}; do $b insmod /modules/$module.ko; done
$b mount -t virtiofs -o ro root /host
$b mount -t tmpfs -o mode=755 rw /rw
$b mkdir /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /newroot
$b mount --move /dev /newroot/dev
exec $b switch_root /newroot '{init}' guest-init
"
    )
}

/// Returns the path of a busybox that needs no library.
pub(crate) fn busybox(consent: Consent) -> Result<PathBuf> {
    let dir = match workspace::cached("busybox") {
        Some(dir) => dir,
        None => workspace::cache("busybox", |dir| {
            Suite::open("bookworm", consent)?.unpack("busybox-static", dir)
        })?,
    };
    ["bin/busybox", "usr/bin/busybox"]
        .map(|path| dir.join(path))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("no busybox in {}; remove that directory", dir.display()))
}

/// The files of [`MODULES`] and what they depend on, dependencies first.
fn wanted_modules(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let path = kernel.modules.join("modules.dep");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for file in MODULES.iter().flat_map(|name| with_dependencies(&text, name)) {
        if seen.insert(file) {
            files.push(kernel.modules.join(file));
        }
    }
    Ok(files)
}

/// A line of modules.dep reads `file: dependency dependency`, the deepest dependency last.
fn with_dependencies<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_wanted = |file: &str| {
        let stem = file.rsplit('/').next().and_then(|last| last.split('.').next());
        stem.is_some_and(|stem| stem.replace('-', "_") == name)
    };
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(file, _)| is_wanted(file))
        .map(|(file, rest)| rest.split_whitespace().rev().chain(std::iter::once(file)).collect())
        .unwrap_or_default()
}

/// busybox loads uncompressed modules only.
fn module_bytes(path: &Path) -> Result<Vec<u8>> {
    let unpack = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut command = Command::new(unpack);
    let output = command.arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("cannot start `{}`", command::shown(&command)))?;
    anyhow::ensure!(output.status.success(), "cannot unpack {}", path.display());
    Ok(output.stdout)
}

/// The `newc` cpio format that the kernel unpacks: a header of hexadecimal fields, name, content.
#[derive(Default)]
struct Newc {
    bytes: Vec<u8>,
    inode: usize,
}

impl Newc {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let (inode, size, name_size) = (self.inode, content.len(), name.len() + 1);
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}\
             {0:08x}{0:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_named() {
        let mut archive = Newc::default();
        archive.file("init", 0o755, b"x");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(bytes[116], b'x');
    }

    #[test]
    fn dependencies_come_first() {
        let text = "k/fs/fuse/virtiofs.ko: k/fuse.ko k/virtio.ko k/ring.ko\nk/fuse.ko:\n";
        let files = with_dependencies(text, "virtiofs");
        assert_eq!(files, ["k/ring.ko", "k/virtio.ko", "k/fuse.ko", "k/fs/fuse/virtiofs.ko"]);
        assert!(with_dependencies(text, "overlay").is_empty());
    }
}
