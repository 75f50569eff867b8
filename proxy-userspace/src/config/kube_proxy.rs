//! A `KubeProxyConfiguration` v1alpha1 as a file: alone, or in a ConfigMap as kubeadm writes it.

use std::{fs, path::Path};

use super::{
    fields,
    problem::{Error, Fault, Problem},
    suggest::suggest,
    tree::{self, Node, Value},
};

const KIND: &str = "KubeProxyConfiguration";
const VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// The key of kubeadm's ConfigMap.
const KEY: &str = "config.conf";

/// A configuration file whose fields are all known.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Its name in messages.
    name: String,
    entries: Vec<(String, Node)>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with its form, but for the values of fields.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => Err(Problem::of(name, "", Fault::Read(error)).into()),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// As [`ConfigFile::read`].
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let mut document = document(name, text)?;
        let mut name = name.to_owned();
        let inner = match get(&document, "kind") {
            Some(Value::Text(kind)) if kind == "ConfigMap" => Some(configuration(&document)),
            _ => None,
        };
        if let Some(inner) = inner {
            let Some(inner) = inner else {
                return Err(Problem::of(name, "data", Fault::NoConfig).into());
            };
            name = format!("{name}: data.{KEY}");
            document = self::document(&name, &inner)?;
        }
        let mut problems = Vec::new();
        check_type(&name, &document, &mut problems);
        let mut entries = Vec::new();
        if let Value::Map(fields) = document.value {
            let own = |(key, _): &(Node, Node)| !matches!(&key.value, Value::Text(key) if key == "apiVersion" || key == "kind");
            let fields = fields.into_iter().filter(own).collect();
            walk(&name, "", fields, &mut entries, &mut problems);
        }
        if problems.is_empty() { Ok(Self { name, entries }) } else { Err(Error { problems }) }
    }

    /// Returns the value of a field.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.entries.iter().find_map(|(known, node)| (known == path).then_some(node))
    }

    /// Returns the place of a value.
    pub(super) fn place(&self, node: &Node) -> String {
        place(&self.name, node.line)
    }

    /// Returns the place of a field, or the file when it does not have it.
    pub(super) fn place_of(&self, path: &str) -> String {
        self.get(path).map_or_else(|| self.name.clone(), |node| self.place(node))
    }
}

fn place(name: &str, line: u64) -> String {
    format!("{name}:{line}")
}

fn document(name: &str, text: &str) -> Result<Node, Error> {
    tree::parse(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        Problem::of(place(name, line), "", Fault::Syntax(Box::new(error))).into()
    })
}

/// Returns the configuration within a ConfigMap.
fn configuration(document: &Node) -> Option<String> {
    let Value::Map(entries) = get(document, "data")? else { return None };
    entries.iter().find_map(|(key, node)| match (&key.value, &node.value) {
        (Value::Text(key), Value::Text(text)) if key == KEY => Some(text.clone()),
        _ => None,
    })
}

fn get<'a>(document: &'a Node, name: &str) -> Option<&'a Value> {
    let Value::Map(entries) = &document.value else { return None };
    let named = |key: &Node| matches!(&key.value, Value::Text(key) if key == name);
    entries.iter().find_map(|(key, node)| named(key).then_some(&node.value))
}

fn check_type(name: &str, document: &Node, problems: &mut Vec<Problem>) {
    let found = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
    let kind = found(get(document, "kind"));
    if kind != KIND {
        problems.push(Problem::of(name, "kind", Fault::UnknownKind { found: kind }));
    }
    let version = found(get(document, "apiVersion"));
    if version != VERSION {
        problems.push(Problem::of(name, "apiVersion", Fault::UnknownVersion { found: version }));
    }
}

/// Takes the fields of a section apart, down to those that the table has.
fn walk(
    name: &str,
    section: &str,
    fields: Vec<(Node, Node)>,
    entries: &mut Vec<(String, Node)>,
    problems: &mut Vec<Problem>,
) {
    for (key, node) in fields {
        let path = match section {
            "" => key.value.to_string(),
            section => format!("{section}.{}", key.value),
        };
        if fields::all().any(|field| field.path == path) {
            entries.push((path, node));
            continue;
        }
        let prefix = format!("{path}.");
        if !fields::all().any(|field| field.path.starts_with(&prefix)) {
            let fault = Fault::UnknownField { suggestion: suggest(&path) };
            problems.push(Problem::of(place(name, key.line), path, fault));
            continue;
        }
        match node.value {
            Value::Map(fields) => walk(name, &path, fields, entries, problems),
            Value::Null => {}
            value => {
                let (found, kind) = (value.to_string(), value.kind());
                let fault = Fault::WrongType { found, kind, expected: "an object" };
                problems.push(Problem::of(place(name, node.line), path, fault));
            }
        }
    }
}
