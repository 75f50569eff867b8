//! A tree of files in memory, and its tar archive: sorted, of root, and of no time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File { bytes: Vec<u8>, mode: u32 },
    Link(String),
}

/// Files by their path, without a slash at the start. Directories come by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
    parts: BTreeMap<String, usize>,
}

impl Tree {
    /// Adds a file that `part` brings; an executable one where `program` says so.
    pub(super) fn add(&mut self, part: &str, path: &str, bytes: Vec<u8>, program: bool) {
        *self.parts.entry(part.to_owned()).or_default() += bytes.len();
        let mode = if program { 0o755 } else { 0o644 };
        self.put(path, Node::File { bytes, mode });
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link(target.to_owned()));
    }

    /// Adds a directory that may stay empty: a place to mount something.
    pub(super) fn directory(&mut self, path: &str) {
        self.put(path, Node::Directory);
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// The bytes that each part brings.
    pub(super) fn parts(&self) -> &BTreeMap<String, usize> {
        &self.parts
    }

    fn put(&mut self, path: &str, node: Node) {
        let parents = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        for parent in parents {
            self.nodes.entry(parent.to_owned()).or_insert(Node::Directory);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// The tar archive of everything.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, node) in &self.nodes {
            append(&mut builder, path, node).with_context(|| format!("cannot pack {path}"))?;
        }
        Ok(builder.into_inner()?)
    }

    /// Writes everything into a directory.
    pub(super) fn write_into(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        for (name, node) in &self.nodes {
            let path = directory.join(name);
            match node {
                // Layers share directories.
                Node::Directory => fs::create_dir_all(&path),
                Node::Link(target) => symlink(target, &path),
                Node::File { bytes, mode } => write(&path, bytes, *mode),
            }
            .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, node: &Node) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch()?);
    header.set_size(0);
    match node {
        Node::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            builder.append_data(&mut header, format!("{path}/"), io::empty())?;
        }
        Node::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, path, target)?;
        }
        Node::File { bytes, mode } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice())?;
        }
    }
    Ok(())
}

/// The time of everything in the image, in seconds since 1970: that of `SOURCE_DATE_EPOCH`, or 0.
pub(super) fn epoch() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(0),
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(seconds),
            Err(_) => bail!("SOURCE_DATE_EPOCH: {text} is no number of seconds"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for name in names {
            tree.add("part", name, name.as_bytes().to_vec(), name.starts_with("bin"));
        }
        tree.link("lib", "usr/lib");
        tree
    }

    #[test]
    fn the_order_of_making_changes_nothing() {
        let one = tree(&["bin/a", "etc/x/y", "b"]).tar().unwrap();
        assert_eq!(one, tree(&["b", "etc/x/y", "bin/a"]).tar().unwrap());
        assert_ne!(one, tree(&["b", "etc/x/z", "bin/a"]).tar().unwrap());
    }

    #[test]
    fn an_archive_has_directories_before_files_and_only_root_owns_anything() {
        let bytes = tree(&["etc/x/y", "bin/a"]).tar().unwrap();
        let mut seen = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 0);
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            seen.push((path, header.mode().unwrap()));
        }
        let seen: Vec<_> = seen.iter().map(|(path, mode)| (path.as_str(), *mode)).collect();
        let expected = [
            ("bin/", 0o755),
            ("bin/a", 0o755),
            ("etc/", 0o755),
            ("etc/x/", 0o755),
            ("etc/x/y", 0o644),
            ("lib", 0o777),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn parts_are_added_up() {
        assert_eq!(tree(&["abc", "de"]).parts().get("part"), Some(&5));
    }
}
