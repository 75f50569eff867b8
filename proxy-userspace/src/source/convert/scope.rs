//! Typed access to the fields of one object: a value of another type is reported and left out.

use std::{fmt::Display, path::Path};

use serde_saphyr::{Location, Spanned};

use super::super::{
    Fault, Found, Problem, document,
    manifest::{Array, Leaf, Loose, Object},
};

/// The object that is being converted.
pub(super) struct Scope<'a> {
    file: &'a Path,
    object: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(file: &'a Path, object: String, problems: &'a mut Vec<Problem>) -> Self {
        Self { file, object, problems }
    }

    /// Names the object in the problems to come.
    pub(super) fn name(&mut self, object: impl FnOnce() -> String) {
        self.object = object();
    }

    pub(super) fn report(&mut self, at: Location, field: impl Display, fault: Fault) {
        self.problems.push(Problem {
            place: document::place(self.file, at),
            object: self.object.clone(),
            field: field.to_string(),
            fault,
        });
    }

    pub(super) fn text<'m>(
        &mut self,
        node: &'m Option<Leaf>,
        field: impl Display,
    ) -> Option<&'m str> {
        self.leaf_text(node.as_ref()?, field)
    }

    pub(super) fn leaf_text<'m>(&mut self, node: &'m Leaf, field: impl Display) -> Option<&'m str> {
        match &node.value {
            Loose::Scalar(Found::Text(text)) => Some(text),
            other => self.wrong_type(node, other.found(), "a string", field),
        }
    }

    /// Returns a string that must be there and not be empty; `parent` is where it is missing.
    pub(super) fn required_text<'m>(
        &mut self,
        node: &'m Option<Leaf>,
        parent: Location,
        field: impl Display,
        cure: &'static str,
    ) -> Option<&'m str> {
        let Some(at) = node.as_ref().map(|node| node.referenced) else {
            self.report(parent, field, Fault::Missing { cure });
            return None;
        };
        let text = self.text(node, &field)?;
        if text.is_empty() {
            self.report(at, field, Fault::Missing { cure });
            return None;
        }
        Some(text)
    }

    pub(super) fn flag(&mut self, node: &Option<Leaf>, field: impl Display) -> Option<bool> {
        let node = node.as_ref()?;
        match &node.value {
            Loose::Scalar(Found::Flag(flag)) => Some(*flag),
            other => self.wrong_type(node, other.found(), "true or false", field),
        }
    }

    /// Returns a port number, 1 to 65535.
    pub(super) fn port(&mut self, node: &Option<Leaf>, field: impl Display) -> Option<u16> {
        let node = node.as_ref()?;
        let Loose::Scalar(Found::Number(number)) = &node.value else {
            return self.wrong_type(node, node.value.found(), "a number", field);
        };
        let port = u16::try_from(*number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.report(node.referenced, field, Fault::NotAPort { found: *number });
        }
        port
    }

    pub(super) fn object<'m, T>(
        &mut self,
        node: Option<&'m Object<T>>,
        field: impl Display,
    ) -> Option<&'m T> {
        let node = node?;
        match &node.value {
            Loose::Object(object) => Some(object),
            other => self.wrong_type(node, other.found(), "an object", field),
        }
    }

    /// Returns the items of a list; none if it is not there.
    pub(super) fn array<'m, T>(
        &mut self,
        node: &'m Option<Array<T>>,
        field: impl Display,
    ) -> &'m [T] {
        let Some(node) = node else { return &[] };
        match &node.value {
            Loose::Array(items) => items,
            other => self.wrong_type(node, other.found(), "a list", field).unwrap_or_default(),
        }
    }

    fn wrong_type<T, R>(
        &mut self,
        node: &Spanned<T>,
        found: Found,
        expected: &'static str,
        field: impl Display,
    ) -> Option<R> {
        self.report(node.referenced, field, Fault::WrongType { expected, found });
        None
    }
}

/// Returns the text of a leaf if it is one, without a report.
pub(super) fn text_of(node: &Option<Leaf>) -> Option<&str> {
    match &node.as_ref()?.value {
        Loose::Scalar(Found::Text(text)) => Some(text),
        _ => None,
    }
}

/// Returns the fields of an object if it is one, without a report.
pub(super) fn object_of<T>(node: &Object<T>) -> Option<&T> {
    match &node.value {
        Loose::Object(object) => Some(object),
        _ => None,
    }
}
