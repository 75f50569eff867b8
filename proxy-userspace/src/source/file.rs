//! Services, endpoints, nodes and ranges from manifests in files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Fault, LoadError, Place, Problem,
    convert::{self, Converted, Identity, Outcome, Rules, Strictness},
    document::{self, about_file},
};
use crate::model::{Notice, Snapshot};

/// Names of manifests in a directory end in one of these.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Loads a manifest file, or all `*.yaml`, `*.yml` and `*.json` of a directory in the order of
/// their names, without its subdirectories. A directory without manifests is an empty snapshot;
/// an empty file is an error, since it may be half-written.
///
/// # Errors
/// Everything that is wrong in any file, as far as it can be found in one go. Nothing is loaded
/// then, and the caller keeps what it has.
pub fn load(path: &Path) -> Result<(Snapshot, Vec<Notice>), LoadError> {
    load_for(path, None)
}

/// Loads like [`load`], but only the Services that the label
/// `service.kubernetes.io/service-proxy-name` gives to this name; with `None`, those without the
/// label.
///
/// # Errors
/// As of [`load`].
pub fn load_for(
    path: &Path,
    proxy_name: Option<&str>,
) -> Result<(Snapshot, Vec<Notice>), LoadError> {
    let files = manifests(path)
        .map_err(|error| LoadError { problems: vec![about_file(path, Fault::Read(error))] })?;
    let mut loading = Loading::default();
    for file in &files {
        match fs::read(file) {
            Ok(text) => {
                loading.take_file(Rules { strictness: Strictness::Strict, file, proxy_name }, &text)
            }
            Err(error) => loading.problems.push(about_file(file, Fault::Read(error))),
        }
    }
    loading.finish()
}

/// Returns the files to read, sorted by name. Names that start with a dot are not manifests:
/// editors keep their drafts there, and a mounted ConfigMap its versions.
fn manifests(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = file.extension().and_then(|extension| extension.to_str());
        if hidden || !extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) {
            continue;
        }
        if !fs::metadata(&file).is_ok_and(|metadata| metadata.is_dir()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// A snapshot in the making.
#[derive(Default)]
struct Loading {
    snapshot: Snapshot,
    seen: BTreeMap<Identity, Place>,
    notices: Vec<Notice>,
    problems: Vec<Problem>,
}

impl Loading {
    fn take_file(&mut self, rules: Rules<'_>, text: &[u8]) {
        if str::from_utf8(text).is_err() {
            self.problems.push(about_file(rules.file, Fault::NotText));
            return;
        }
        for manifest in document::read(rules.file, text, &mut self.problems) {
            for outcome in convert::convert(rules, &manifest, &mut self.problems) {
                self.take(outcome);
            }
        }
    }

    fn take(&mut self, outcome: Outcome) {
        let Outcome { identity, place, converted, notices } = outcome;
        if let Some(first) = self.seen.get(&identity) {
            self.problems.push(Problem {
                place,
                object: identity.to_string(),
                field: "metadata.name".to_owned(),
                fault: Fault::DuplicateObject { first: first.clone() },
            });
            return;
        }
        self.seen.insert(identity, place);
        self.notices.extend(notices);
        match converted {
            Some(Converted::Service(service)) => {
                self.snapshot.services.insert(service.name.clone(), service);
            }
            Some(Converted::Slice(slice)) => {
                self.snapshot.slices.insert(slice.name.clone(), slice);
            }
            Some(Converted::Node(node)) => {
                self.snapshot.nodes.insert(node.name.clone(), node);
            }
            Some(Converted::ServiceCidr(cidrs)) => self.snapshot.service_cidrs.extend(cidrs),
            None => {}
        }
    }

    fn finish(mut self) -> Result<(Snapshot, Vec<Notice>), LoadError> {
        if self.problems.is_empty() {
            self.notices.sort();
            return Ok((self.snapshot, self.notices));
        }
        let position = |problem: &Problem| {
            let Place { file, line, column } = &problem.place;
            (file.clone(), *line, *column)
        };
        self.problems.sort_by_key(position);
        Err(LoadError { problems: self.problems })
    }
}
