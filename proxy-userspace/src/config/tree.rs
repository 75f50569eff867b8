//! YAML as it stands in a file, with the line of everything.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};
use serde_saphyr::{NonFiniteFloatPolicy, Options, Spanned};

/// Bytes of one file; kubeadm's has about 2,000.
const MAX_FILE_BYTES: usize = 1 << 20;

/// A value of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i128),
    /// A number with a fraction.
    Fraction(f64),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Node, Node)>),
}

/// A value and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line, from 1; 0 when it comes from no file.
    pub line: u64,
    /// The value.
    pub value: Value,
}

impl Node {
    /// Makes a node that comes from no file.
    pub fn new(value: Value) -> Self {
        Self { line: 0, value }
    }
}

impl Value {
    /// Makes a list of texts.
    pub fn texts(texts: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        let nodes = texts.into_iter().map(|text| Node::new(Self::Text(text.to_string())));
        Self::List(nodes.collect())
    }

    /// Names the type, with its article.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Whole(_) => "a whole number",
            Self::Fraction(_) => "a number with a fraction",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

/// Prints as it would stand in one line of YAML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Fraction(number) => number.fmt(f),
            Self::Text(text) if text.is_empty() => f.write_str("\"\""),
            Self::Text(text) => f.write_str(text),
            Self::List(nodes) => {
                let texts: Vec<_> = nodes.iter().map(|node| node.value.to_string()).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Self::Map(entries) => {
                let texts: Vec<_> = entries
                    .iter()
                    .map(|(key, node)| format!("{}: {}", key.value, node.value))
                    .collect();
                write!(f, "{{{}}}", texts.join(", "))
            }
        }
    }
}

/// Reads one YAML document; JSON is a kind of YAML. Nothing at all is [`Value::Null`].
///
/// # Errors
///
/// The parser's: bad syntax, a key that is there twice, a second document.
pub fn parse(text: &str) -> Result<Node, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_FILE_BYTES),
            max_total_scalar_bytes: MAX_FILE_BYTES,
        },
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Value, E> {
        Ok(Value::Whole(number.try_into().unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Fraction(number))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Whole(number) => match i64::try_from(*number) {
                Ok(number) => serializer.serialize_i64(number),
                Err(_) => serializer.serialize_i128(*number),
            },
            Self::Fraction(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(nodes) => serializer.collect_seq(nodes.iter().map(|node| &node.value)),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(&key.value, &node.value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_lines() {
        let node = parse("a: 1\nb:\n  c: 10.0.0.0/8\n  d:\n  - x\n").unwrap();
        let Value::Map(entries) = &node.value else { panic!("{node:?}") };
        let [(_, a), (b_key, b)] = entries.as_slice() else { panic!("{node:?}") };
        assert_eq!(a, &Node { line: 1, value: Value::Whole(1) });
        assert_eq!(b_key.line, 2);
        let Value::Map(entries) = &b.value else { panic!("{b:?}") };
        assert_eq!(entries[0].1, Node { line: 3, value: Value::Text("10.0.0.0/8".into()) });
        assert_eq!(entries[1].0.line, 4);
        assert_eq!(b.value.to_string(), "{c: 10.0.0.0/8, d: [x]}");
    }

    #[test]
    fn scalars_keep_their_types() {
        let node = parse("[null, true, -3, 1.5, \"1\", fd00::/8, '', ~]").unwrap();
        let Value::List(nodes) = node.value else { panic!() };
        let values: Vec<Value> = nodes.into_iter().map(|node| node.value).collect();
        let text = |text: &str| Value::Text(text.into());
        let expected = [
            Value::Null,
            Value::Flag(true),
            Value::Whole(-3),
            Value::Fraction(1.5),
            text("1"),
            text("fd00::/8"),
            text(""),
            Value::Null,
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_key_twice_and_a_second_document_are_errors() {
        assert!(parse("a: 1\na: 2\n").is_err());
        assert!(parse("a: 1\n---\na: 2\n").is_err());
        assert_eq!(parse("").unwrap().value, Value::Null);
    }
}
