//! Where the running kernel keeps a field of one of its structures, from its own types (BTF,
//! `Documentation/bpf/btf.rst`). Only what is asked for is looked at: a whole model of the types
//! takes seconds on a slow machine.

use std::{collections::BTreeMap, fs, io};

use memchr::memmem;

/// The types of the kernel itself, without those of modules.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;

/// A structure and a field of it.
pub(super) type Field = (&'static str, &'static str);

/// Returns the offset of each field, in bytes.
///
/// # Errors
///
/// The kernel has no types (`CONFIG_DEBUG_INFO_BTF`), or a structure or a field is not there.
pub(super) fn offsets(fields: &[Field]) -> io::Result<BTreeMap<Field, u32>> {
    find(&fs::read(TYPES)?, fields)
}

fn find(blob: &[u8], fields: &[Field]) -> io::Result<BTreeMap<Field, u32>> {
    let types = Types::of(blob).ok_or_else(|| invalid("no BTF of this machine"))?;
    let missing =
        |(structure, field): &Field| invalid(&format!("the kernel has no {structure}.{field}"));
    let mut wanted = Vec::new();
    for field in fields {
        let names = types.name(field.0).zip(types.name(field.1));
        wanted.push((*field, names.ok_or_else(|| missing(field))?));
    }
    let mut found = BTreeMap::new();
    types.walk(|structure, members| {
        for (field, names) in wanted.iter().filter(|(_, names)| names.0 == structure) {
            if let Some(offset) = members.offset(names.1) {
                found.entry(*field).or_insert(offset);
            }
        }
        found.len() < wanted.len()
    });
    match fields.iter().find(|field| !found.contains_key(*field)) {
        Some(field) => Err(missing(field)),
        None => Ok(found),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

struct Types<'a> {
    types: &'a [u8],
    /// Names, each once, with a zero before and behind it.
    strings: &'a [u8],
}

/// The members of a structure.
struct Members<'a> {
    raw: &'a [u8],
    /// The upper byte of an offset is the width of a bit field.
    bit_fields: bool,
}

impl<'a> Types<'a> {
    fn of(blob: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(blob.get(..2)?.try_into().ok()?);
        let word = |at: usize| Some(word(blob, at)? as usize);
        let rest = blob.get(word(4)?..)?;
        let section = |offset: usize, length: usize| rest.get(offset..offset.checked_add(length)?);
        let (types, strings) = (section(word(8)?, word(12)?)?, section(word(16)?, word(20)?)?);
        (magic == MAGIC).then_some(Self { types, strings })
    }

    /// Returns what stands for a name in the types.
    fn name(&self, name: &str) -> Option<u32> {
        let before = memmem::find(self.strings, format!("\0{name}\0").as_bytes())?;
        u32::try_from(before + 1).ok()
    }

    /// Calls `visit` with the name and members of each structure, until it says that it has enough.
    /// Ends at what it does not know.
    fn walk(&self, mut visit: impl FnMut(u32, Members<'a>) -> bool) {
        let mut at = 0;
        while let (Some(name), Some(info)) = (word(self.types, at), word(self.types, at + 4)) {
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let Some(length) = tail(kind, count) else { return };
            let start = at + 12;
            let Some(raw) = self.types.get(start..start + length) else { return };
            let members = Members { raw, bit_fields: info >> 31 == 1 };
            if kind == STRUCT && !visit(name, members) {
                return;
            }
            at = start + length;
        }
    }
}

impl Members<'_> {
    /// Returns the offset of a member, in bytes.
    fn offset(&self, name: u32) -> Option<u32> {
        let mut members = self.raw.chunks_exact(12);
        let bits = word(members.find(|member| word(member, 0) == Some(name))?, 8)?;
        Some(if self.bit_fields { bits & 0x00ff_ffff } else { bits } / 8)
    }
}

/// Returns the bytes that follow `struct btf_type` for a kind (`include/uapi/linux/btf.h`).
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG.
        1 | 14 | 17 => 4,
        // ARRAY.
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64.
        STRUCT | 5 | 15 | 19 => 12 * count,
        // ENUM, FUNC_PROTO.
        6 | 13 => 8 * count,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `int`, a pointer to it, and `struct s { int a; int *b; int c:4; }`.
    fn blob() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0c\0";
        #[rustfmt::skip]
        let types: Vec<u32> = vec![
            1, 1 << 24, 4, 32,
            0, 2 << 24, 1,
            5, 1 << 31 | 4 << 24 | 3, 24,
            7, 1, 0,
            9, 2, 64,
            11, 1, 4 << 24 | 128,
        ];
        let length = types.len() as u32 * 4;
        let mut blob = Vec::from(MAGIC.to_ne_bytes());
        blob.extend([1, 0]);
        for number in [24, 0, length, length, strings.len() as u32].into_iter().chain(types) {
            blob.extend(number.to_ne_bytes());
        }
        blob.extend(strings);
        blob
    }

    #[test]
    fn a_field_is_found_at_its_offset_also_behind_bit_fields() {
        let fields = [("s", "b"), ("s", "c")];
        let expected = BTreeMap::from([(("s", "b"), 8), (("s", "c"), 16)]);
        assert_eq!(find(&blob(), &fields).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |blob: &[u8]| find(blob, &[("s", "d")]).unwrap_err().to_string();
        assert_eq!(error(&blob()), "the kernel has no s.d");
        assert_eq!(error(b"text"), "no BTF of this machine");
        assert_eq!(error(&blob()[..40]), "no BTF of this machine");
    }

    #[test]
    fn this_kernel_says_where_tasks_keep_their_namespaces() {
        if let Ok(offsets) = offsets(&[("task_struct", "nsproxy"), ("task_struct", "tgid")]) {
            assert!(offsets.values().all(|offset| (1..65_536).contains(offset)), "{offsets:?}");
        }
    }
}
