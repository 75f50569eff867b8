//! What is in a BPF object: programs with their sizes, maps with their shapes.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use aya_obj::{Map, Object};

/// Lines for programs, then for maps, each sorted by name.
pub(super) fn describe(bytes: &[u8]) -> Result<String> {
    let object = Object::parse(bytes).context("the BPF object cannot be parsed")?;
    let mut programs: Vec<_> = object.programs.iter().collect();
    programs.sort_by_key(|(name, _)| name.as_str());
    let mut text = String::new();
    for (name, program) in programs {
        let own = object.functions.get(&program.function_key());
        let instructions = own.map_or(0, |function| function.instructions.len());
        writeln!(text, "program {name} {:?} {instructions} instructions", program.section)?;
    }
    let mut maps: Vec<_> = object.maps.iter().filter(|(name, _)| !name.starts_with('.')).collect();
    maps.sort_by_key(|(name, _)| name.as_str());
    for (name, map) in maps {
        describe_map(&mut text, name, map)?;
    }
    Ok(text)
}

fn describe_map(text: &mut String, name: &str, map: &Map) -> Result<()> {
    let kind = aya_obj::generated::bpf_map_type::try_from(map.map_type())
        .map_or_else(|_| format!("type {}", map.map_type()), |kind| format!("{kind:?}"));
    let kind = kind.strip_prefix("BPF_MAP_TYPE_").unwrap_or(&kind).to_lowercase();
    writeln!(
        text,
        "map {name} {kind} key {} value {} entries {}",
        map.key_size(),
        map.value_size(),
        map.max_entries()
    )?;
    Ok(())
}
