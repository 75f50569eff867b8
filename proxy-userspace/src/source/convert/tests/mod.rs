//! One test a field: the values that are read, and what becomes of those that are not.

mod annotation;
mod cluster;
mod service;
mod slice;
mod stored;
mod watching;

use std::path::Path;

use super::{Converted, Outcome, Rules, Strictness, convert};
use crate::{
    model::{EndpointSlice, Notice, Service},
    source::{Problem, document},
};

/// What a manifest gives, as from a file.
struct Read {
    converted: Vec<Converted>,
    notices: Vec<Notice>,
    problems: Vec<String>,
}

fn read_for(proxy_name: Option<&str>, text: &str) -> Read {
    let file = Path::new("a.yaml");
    let rules = Rules { strictness: Strictness::Strict, file, proxy_name };
    let mut problems = Vec::new();
    let manifests = document::read(file, text.as_bytes(), &mut problems);
    let outcomes: Vec<Outcome> =
        manifests.iter().flat_map(|manifest| convert(rules, manifest, &mut problems)).collect();
    let (mut converted, mut notices) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        converted.extend(outcome.converted);
        notices.extend(outcome.notices);
    }
    Read { converted, notices, problems: problems.iter().map(without_place).collect() }
}

fn read(text: &str) -> Read {
    read_for(None, text)
}

fn without_place(problem: &Problem) -> String {
    format!("{}: {}", problem.field, problem.fault)
}

/// A Service of this type with these fields besides.
fn service_text(kind: &str, spec: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop{rest}}}\n\
         spec: {{type: {kind}, clusterIP: 10.96.0.10, ports: [{{port: 80, nodePort: 30080}}]{spec}}}\n"
    )
    .replace(if kind == "ClusterIP" { ", nodePort: 30080" } else { "\0" }, "")
}

/// Returns the one Service of a text without problems.
fn service_of(text: &str) -> Service {
    let mut read = read(text);
    assert!(read.problems.is_empty(), "{text}: {:?}", read.problems);
    match read.converted.pop() {
        Some(Converted::Service(service)) if read.converted.is_empty() => service,
        other => panic!("{text}: {other:?}"),
    }
}

fn service(kind: &str, spec: &str) -> Service {
    service_of(&service_text(kind, spec, ""))
}

/// Returns the problems of a Service, of which there is at least one.
fn problems(kind: &str, spec: &str) -> Vec<String> {
    problems_of(&service_text(kind, spec, ""))
}

fn problems_of(text: &str) -> Vec<String> {
    let read = read(text);
    assert!(read.converted.is_empty(), "{text}: {:?}", read.converted);
    assert!(!read.problems.is_empty(), "{text}");
    read.problems
}

fn slice_of(text: &str) -> EndpointSlice {
    let mut read = read(text);
    assert!(read.problems.is_empty(), "{text}: {:?}", read.problems);
    match read.converted.pop() {
        Some(Converted::Slice(slice)) if read.converted.is_empty() => slice,
        other => panic!("{text}: {other:?}"),
    }
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}
