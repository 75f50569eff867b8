//! Typed access to the fields of one object: a value of another type is reported and left out.

use std::{fmt::Display, ops::RangeInclusive};

use serde_saphyr::{Location, Spanned};

use super::{
    super::{
        Fault, Found, Problem, document,
        manifest::{Array, Leaf, Loose, Object},
    },
    Rules, Strictness,
};

/// The object that is being converted.
pub(super) struct Scope<'a> {
    rules: Rules<'a>,
    object: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(rules: Rules<'a>, object: String, problems: &'a mut Vec<Problem>) -> Self {
        Self { rules, object, problems }
    }

    pub(super) fn strictness(&self) -> Strictness {
        self.rules.strictness
    }

    /// Returns the name that makes a Service ours, when not all are.
    pub(super) fn proxy_name(&self) -> Option<&'a str> {
        self.rules.proxy_name
    }

    /// Names the object in the problems to come.
    pub(super) fn name(&mut self, object: impl FnOnce() -> String) {
        self.object = object();
    }

    pub(super) fn report(&mut self, at: Location, field: impl Display, fault: Fault) {
        self.problems.push(Problem {
            place: document::place(self.rules.file, at),
            object: self.object.clone(),
            field: field.to_string(),
            fault,
        });
    }

    /// Reports in a file what changes nothing but is surely not meant: the API server refuses it,
    /// or removes it before it stores the object.
    pub(super) fn refuse(&mut self, at: Location, field: impl Display, fault: Fault) {
        if self.rules.strictness == Strictness::Strict {
            self.report(at, field, fault);
        }
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

    /// Returns a number of a range.
    pub(super) fn number(
        &mut self,
        node: &Option<Leaf>,
        field: impl Display,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let node = node.as_ref()?;
        let Loose::Scalar(Found::Number(found)) = node.value else {
            return self.wrong_type(node, node.value.found(), "a number", field);
        };
        let number = u32::try_from(found).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (*range.start(), *range.end());
            self.report(node.referenced, field, Fault::OutOfRange { found, least, most });
        }
        number
    }

    /// Returns what a text of a fixed set means. As to the API server, an empty text is none.
    pub(super) fn choice<T: Copy>(
        &mut self,
        node: &Option<Leaf>,
        field: impl Display,
        meanings: &[(&str, T)],
        choices: &'static str,
    ) -> Option<T> {
        let at = node.as_ref()?.referenced;
        let text = self.text(node, &field).filter(|text| !text.is_empty())?;
        let meaning = meanings.iter().find(|(name, _)| *name == text);
        if meaning.is_none() {
            let found = text.to_owned();
            self.report(at, field, Fault::UnknownValue { found, choices });
        }
        meaning.map(|(_, meaning)| *meaning)
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

    /// Returns the items of a list: none of them if it is not there, `None` if it is no list.
    pub(super) fn array<'m, T>(
        &mut self,
        node: &'m Option<Array<T>>,
        field: impl Display,
    ) -> Option<&'m [T]> {
        let Some(node) = node else { return Some(&[]) };
        match &node.value {
            Loose::Array(items) => Some(items),
            other => self.wrong_type(node, other.found(), "a list", field),
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
