//! What goes into the image, and from where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};

use super::base::{ARCHITECTURE, Package};
use super::tree::Tree;
use super::{closure, crates, sbom};
use crate::command::progress;
use crate::workspace;

/// Of the image and of what is in it.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an image is made of.
pub(super) struct Image {
    /// The lowest first. That of Debian's files changes seldom, and is then not sent again.
    pub(super) layers: [Tree; 2],
    pub(super) sbom: String,
}

/// Programs that the agent starts.
const PROGRAMS: &[&str] = &["usr/sbin/nft", "usr/bin/kmod", "usr/sbin/xtables-legacy-multi"];

/// Other names of these programs, by which they know what to do.
const LINKS: &[(&str, &str)] = &[
    ("usr/sbin/ip6tables-legacy-restore", "xtables-legacy-multi"),
    ("usr/sbin/ip6tables-legacy-save", "xtables-legacy-multi"),
    ("usr/sbin/iptables-legacy-restore", "xtables-legacy-multi"),
    ("usr/sbin/iptables-legacy-save", "xtables-legacy-multi"),
    ("usr/sbin/modprobe", "../bin/kmod"),
    // As Debian has merged them: the loader's path begins with one of these.
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
];

/// Where something may be mounted, on a root that cannot be written.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc/passlane",
    "proc",
    "run/passlane",
    "sys",
    "tmp",
    "usr/lib/modules",
    "var/lib/passlane",
];

/// Puts the image together.
pub(super) fn assemble(agent: &[u8], packages: &[Package]) -> Result<Image> {
    progress("putting the image together");
    let crates = crates::collect(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))?;
    let mut base = Base { packages, tree: Tree::default(), used: BTreeSet::new() };
    base.add_programs(agent)?;
    base.add_data()?;
    base.add_licences()?;
    let Base { tree: mut lower, used, .. } = base;
    LINKS.iter().for_each(|(path, target)| lower.link(path, target));
    DIRECTORIES.iter().for_each(|path| lower.directory(path));
    let taken: Vec<Package> =
        packages.iter().filter(|package| used.contains(&package.name)).cloned().collect();
    let sbom = sbom::document(agent, &crates, &taken)?;
    let mut upper = Tree::default();
    upper.add("passlane", "usr/bin/passlane", agent.to_vec(), true);
    let documents = "usr/share/doc/passlane";
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let bytes = fs::read(workspace::root().join(name)).with_context(|| format!("no {name}"))?;
        upper.add("licences", &format!("{documents}/{name}"), bytes, false);
    }
    let notices = crates::notices(&crates)?.into_bytes();
    upper.add("licences", &format!("{documents}/THIRD-PARTY"), notices, false);
    upper.add("sbom", &format!("{documents}/sbom.spdx.json"), sbom.clone().into_bytes(), false);
    Ok(Image { layers: [lower, upper], sbom })
}

/// Prints how many bytes each part brings, the largest first.
pub(super) fn print_parts(layers: &[Tree]) {
    let parts: BTreeMap<_, _> = layers.iter().flat_map(Tree::parts).collect();
    let mut parts: Vec<_> = parts.into_iter().map(|(part, bytes)| (bytes, part)).collect();
    parts.sort_by(|one, other| other.cmp(one));
    for (bytes, part) in &parts {
        println!("{bytes:>10}  {part}");
    }
    println!("{:>10}  unpacked", parts.iter().map(|(bytes, _)| *bytes).sum::<usize>());
}

/// The layer of Debian's files, while it grows.
struct Base<'a> {
    packages: &'a [Package],
    tree: Tree,
    /// Names of the packages that something is from.
    used: BTreeSet<String>,
}

impl Base<'_> {
    /// The programs, and what they and the agent need to be loaded.
    fn add_programs(&mut self, agent: &[u8]) -> Result<()> {
        self.add_wanted("passlane", agent)?;
        for path in PROGRAMS {
            let bytes = self.take(path, true)?;
            self.add_wanted(path, &bytes)?;
        }
        // Programs of the older iptables load an extension for each match that a rule has.
        let directory = format!("usr/lib/{}/xtables", ARCHITECTURE.triplet);
        for name in self.package("iptables")?.list(&directory)? {
            if ["libxt_", "libipt_", "libip6t_"].iter().any(|start| name.starts_with(start)) {
                let path = format!("{directory}/{name}");
                let bytes = self.take(&path, false)?;
                self.add_wanted(&path, &bytes)?;
            }
        }
        Ok(())
    }

    /// Adds the libraries and the loader that an ELF file names, and theirs.
    fn add_wanted(&mut self, who: &str, bytes: &[u8]) -> Result<()> {
        let wants = closure::wants(bytes).with_context(|| format!("cannot read {who}"))?;
        let library = |name: String| format!("usr/lib/{}/{name}", ARCHITECTURE.triplet);
        let loader = wants.loader.map(|path| format!("usr{path}"));
        for path in loader.into_iter().chain(wants.libraries.into_iter().map(library)) {
            // The loader is a library as well.
            if !self.tree.has(&path) {
                let bytes = self.take(&path, true).with_context(|| format!("{who} needs it"))?;
                self.add_wanted(&path, &bytes)?;
            }
        }
        Ok(())
    }

    fn add_data(&mut self) -> Result<()> {
        self.take("etc/protocols", false)?;
        let authorities = self.package("ca-certificates")?.clone();
        let directory = "usr/share/ca-certificates/mozilla";
        let mut bundle = Vec::new();
        for name in authorities.list(directory)? {
            bundle.extend(authorities.read(&format!("{directory}/{name}"))?.unwrap_or_default());
        }
        self.used.insert(authorities.name.clone());
        self.tree.add(&authorities.name, "etc/ssl/certs/ca-certificates.crt", bundle, false);
        let root = b"root:x:0:0:root:/:/usr/sbin/nologin\n".to_vec();
        self.tree.add("base-files", "etc/passwd", root, false);
        self.tree.add("base-files", "etc/group", b"root:x:0:\n".to_vec(), false);
        Ok(())
    }

    /// The licences of all packages that something is from, and the texts that they refer to.
    fn add_licences(&mut self) -> Result<()> {
        let common = "usr/share/common-licenses";
        for name in self.package("base-files")?.list(common)? {
            self.take(&format!("{common}/{name}"), false)?;
        }
        for name in self.used.clone() {
            let path = format!("usr/share/doc/{name}/copyright");
            let bytes = self.copyright(&name)?.with_context(|| format!("no {path}"))?;
            self.tree.add("licences", &path, bytes, false);
        }
        Ok(())
    }

    /// The copyright file of a package; a library's documentation may be that of another package.
    fn copyright(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let own = self.package(name)?.read(&format!("usr/share/doc/{name}/copyright"))?;
        if own.is_some() {
            return Ok(own);
        }
        let Some(other) = self.package(name)?.linked(&format!("usr/share/doc/{name}")) else {
            return Ok(None);
        };
        self.package(&other)?.read(&format!("usr/share/doc/{other}/copyright"))
    }

    /// Copies a file from the package that has it.
    fn take(&mut self, path: &str, program: bool) -> Result<Vec<u8>> {
        for package in self.packages {
            if let Some(bytes) = package.read(path)? {
                self.used.insert(package.name.clone());
                self.tree.add(&package.name, path, bytes.clone(), program);
                return Ok(bytes);
            }
        }
        anyhow::bail!("no package of deploy/image has {path}; add the one that does")
    }

    fn package(&self, name: &str) -> Result<&Package> {
        let found = self.packages.iter().find(|package| package.name == name);
        found.with_context(|| format!("deploy/image does not list {name}"))
    }
}
