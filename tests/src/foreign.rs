//! Programs that belong to somebody else: each passes every packet on, and uses none of our maps.
//!
//! Their object is put together here, so that no compiler is needed where tests run.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode, tc};

use crate::netns::Namespace;

/// A program on an interface. Dropping it takes the program off.
#[derive(Debug)]
pub struct Attached {
    namespace: Namespace,
    object: Option<Ebpf>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // A filter is taken off by the index of its interface, which means another one elsewhere.
        let object = self.object.take();
        let dropped = self.namespace.enter(|| {
            drop(object);
            Ok(())
        });
        if let Err(error) = dropped {
            eprintln!("a foreign program stays: {error:#}");
        }
    }
}

/// Attaches a classifier to the ingress of an interface: by TCX where the kernel has it.
pub fn classifier(namespace: &Namespace, interface: &str) -> Result<Attached> {
    namespace.enter(|| {
        let mut object = Ebpf::load(&object())?;
        // It may be there already, and TCX needs none.
        let _exists = tc::qdisc_add_clsact(interface);
        let program: &mut SchedClassifier =
            object.program_mut(CLASSIFIER).context("no classifier in the object")?.try_into()?;
        program.load()?;
        program.attach(interface, TcAttachType::Ingress)?;
        Ok(Attached { namespace: namespace.clone(), object: Some(object) })
    })
}

/// Attaches an XDP program to an interface, in the mode that every driver has.
pub fn xdp(namespace: &Namespace, interface: &str) -> Result<Attached> {
    namespace.enter(|| {
        let mut object = Ebpf::load(&object())?;
        let program: &mut Xdp =
            object.program_mut(XDP).context("no XDP program in the object")?.try_into()?;
        program.load()?;
        program.attach(interface, XdpMode::Skb)?;
        Ok(Attached { namespace: namespace.clone(), object: Some(object) })
    })
}

const CLASSIFIER: &str = "foreign_tc";
const XDP: &str = "foreign_xdp";

/// `TCX_NEXT`, also `TC_ACT_UNSPEC`.
const NEXT: i32 = -1;
/// `XDP_PASS`.
const PASS: i32 = 2;

const HEADER: usize = 64;
const SECTION: usize = 64;

/// What a section header says, beside where the section is.
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    /// For the symbols, the section of their names and the number of local ones.
    link: (u32, u32),
    entry_size: u64,
    bytes: Vec<u8>,
}

/// Returns an ELF object with the two programs.
fn object() -> Vec<u8> {
    const CODE: (u32, u64) = (1, 0x6);
    const DATA: (u32, u64) = (1, 0x3);
    let mut names = vec![0];
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.extend(text.as_bytes());
        names.push(0);
        at
    };
    let symbols = [vec![0; 24], symbol(name(CLASSIFIER), 1), symbol(name(XDP), 2)].concat();
    let section = |name, (kind, flags), bytes| Section {
        name,
        kind,
        flags,
        link: (0, 0),
        entry_size: 0,
        bytes,
    };
    let mut sections = vec![
        section("", (0, 0), Vec::new()),
        section("classifier", CODE, returning(NEXT)),
        section("xdp", CODE, returning(PASS)),
        section("license", DATA, b"GPL\0".to_vec()),
        Section { link: (5, 1), entry_size: 24, ..section(".symtab", (2, 0), symbols) },
        section(".strtab", (3, 0), Vec::new()),
    ];
    let named: Vec<u32> = sections.iter().map(|section| name(section.name)).collect();
    sections[5].bytes = names;
    let mut file = header(sections.len() as u16);
    let mut at = HEADER + SECTION * sections.len();
    for (section, name) in sections.iter().zip(named) {
        file.extend(section.header(name, at as u64));
        at += section.bytes.len().next_multiple_of(8);
    }
    for section in &mut sections {
        section.bytes.resize(section.bytes.len().next_multiple_of(8), 0);
        file.append(&mut section.bytes);
    }
    file
}

/// Returns the instructions `r0 = value; exit`.
fn returning(value: i32) -> Vec<u8> {
    [&[0xb7, 0, 0, 0][..], &value.to_le_bytes(), &[0x95, 0, 0, 0, 0, 0, 0, 0]].concat()
}

/// Returns a global function of 16 bytes at the start of a section.
fn symbol(name: u32, section: u16) -> Vec<u8> {
    const GLOBAL_FUNCTION: u8 = 0x12;
    let (value, size) = (0_u64.to_le_bytes(), 16_u64.to_le_bytes());
    let place = section.to_le_bytes();
    [&name.to_le_bytes()[..], &[GLOBAL_FUNCTION, 0], &place, &value, &size].concat()
}

/// Returns the header of a relocatable object for BPF, with this many sections behind it.
fn header(sections: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(1_u16.to_le_bytes()); // relocatable
    bytes.extend(247_u16.to_le_bytes()); // BPF
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0; 16]); // no entry, no segments
    bytes.extend((HEADER as u64).to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    for half in [HEADER as u16, 0, 0, SECTION as u16, sections, sections - 1] {
        bytes.extend(half.to_le_bytes());
    }
    bytes
}

impl Section {
    fn header(&self, name: u32, at: u64) -> Vec<u8> {
        let mut bytes = name.to_le_bytes().to_vec();
        bytes.extend(self.kind.to_le_bytes());
        for word in [self.flags, 0, at, self.bytes.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.link.0.to_le_bytes());
        bytes.extend(self.link.1.to_le_bytes());
        bytes.extend(8_u64.to_le_bytes());
        bytes.extend(self.entry_size.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_holds_both_programs() {
        let object = aya_obj::Object::parse(&object()).unwrap();
        let mut names: Vec<&str> = object.programs.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, [CLASSIFIER, XDP]);
    }
}
