//! Where `unsafe` may be, and why. A file that no longer needs its entry loses it.

use super::Violation;
use super::source::Token;

/// Every file with `unsafe`, and the reason why it has to be there.
const ALLOWED: &[(&str, &str)] = &[
    ("bench-ebpf/src/frame.rs", "raw packet access; helper calls"),
    ("bench-ebpf/src/ladder.rs", "reads a flow entry in its map"),
    ("bench-ebpf/src/main.rs", "the license section that the kernel reads by name"),
    ("bench-ebpf/src/restore.rs", "tail calls; writes map entries in place"),
    ("bench-ebpf/src/xdp.rs", "tail calls; walks through flows in a map entry"),
    ("proxy-ebpf/src/atomic.rs", "compare-and-swap for BPF is only an intrinsic"),
    ("proxy-ebpf/src/close.rs", "reads and marks a flow entry in its map"),
    ("proxy-ebpf/src/count.rs", "adds to a counter in its per-CPU map"),
    ("proxy-ebpf/src/ctx.rs", "the only raw packet access; helper calls"),
    ("proxy-ebpf/src/digest/main.rs", "a helper call; the license section"),
    ("proxy-ebpf/src/generation.rs", "reads a counter that the agent writes"),
    ("proxy-ebpf/src/hit.rs", "reads and renews a flow entry in its map"),
    ("proxy-ebpf/src/key.rs", "a key is a key by bytes and by words"),
    ("proxy-ebpf/src/learn.rs", "reads and writes map entries in place"),
    ("proxy-ebpf/src/lb/adopt.rs", "reads the seed in its map"),
    ("proxy-ebpf/src/lb/choose.rs", "map look-ups return references into the map"),
    ("proxy-ebpf/src/lb/count.rs", "adds to counters in their per-CPU maps"),
    ("proxy-ebpf/src/lb/entry.rs", "the only raw access to flow entries in their maps"),
    ("proxy-ebpf/src/lb/flow.rs", "reads the seed and a backend in their maps"),
    ("proxy-ebpf/src/lb/frame.rs", "fields of a frame; helper calls"),
    ("proxy-ebpf/src/lb/key.rs", "a key is a key by bytes and by words"),
    ("proxy-ebpf/src/lb/limit.rs", "counts in its per-CPU map"),
    ("proxy-ebpf/src/lb/main.rs", "the license section that the kernel reads by name"),
    ("proxy-ebpf/src/lb/outer.rs", "addresses of a map entry by words"),
    ("proxy-ebpf/src/lb/send.rs", "reads a backend in its map"),
    ("proxy-ebpf/src/lb/settings.rs", "globals that the loader finds by name"),
    ("proxy-ebpf/src/lb/skb.rs", "the only raw frame access at tc; helper calls"),
    ("proxy-ebpf/src/lb/tags.rs", "the only raw access to the tags of flow entries in their maps"),
    ("proxy-ebpf/src/lb/uplink.rs", "reads an uplink in its map"),
    ("proxy-ebpf/src/lb/xdp.rs", "the only raw frame access at XDP; helper calls"),
    ("proxy-ebpf/src/localhost/address.rs", "the only access to a socket's address"),
    ("proxy-ebpf/src/localhost/main.rs", "map look-ups; symbols that the loader reads by name"),
    ("proxy-ebpf/src/witness/main.rs", "the clock; a symbol that the loader reads by name"),
    ("proxy-ebpf/src/witness/task.rs", "the only access to the kernel's memory"),
    ("proxy-ebpf/src/main.rs", "the license section that the kernel reads by name"),
    ("proxy-ebpf/src/served.rs", "adds to counters in their maps"),
    ("proxy-ebpf/src/service.rs", "map look-ups return references into the map"),
    ("proxy-ebpf/src/settings.rs", "globals that the loader finds by name"),
    ("proxy-ebpf/src/limit.rs", "counts in a map entry in place"),
    ("proxy-ebpf/src/token.rs", "writes a pending entry in its map"),
    ("proxy-ebpf/src/transit.rs", "reads a flow entry and an uplink in their maps"),
    ("proxy-ebpf/src/warmup.rs", "counts in a map entry in place"),
    ("proxy-userspace/src/kernel/bpf/fingerprint.rs", "a system call that no library has"),
    ("proxy-userspace/src/kernel/bpf/hash_plane/batch.rs", "a system call that no library has"),
    ("proxy-userspace/src/kernel/bpf/hash_plane/mapped.rs", "a map that is mapped into memory"),
    ("proxy-userspace/src/kernel/bpf/maps.rs", "the one claim that ABI types are plain bytes"),
    ("proxy-userspace/src/kernel/bpf/query.rs", "a system call that a library asks too much with"),
    ("proxy-userspace/src/kernel/namespace.rs", "a socket option and a namespace for a thread"),
    ("tests/src/bin/bench_control/allocations.rs", "a global allocator that counts"),
    ("tests/src/tap.rs", "a request to a TAP device that no library has"),
];

/// Finds `unsafe` in a file that has no entry.
pub(super) fn check(file: &str, tokens: &[Token<'_>]) -> Vec<Violation> {
    if ALLOWED.iter().any(|(allowed, _)| *allowed == file) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for token in tokens.iter().filter(|token| token.text == "unsafe") {
        let text =
            "`unsafe` here needs an entry, with its reason, in xtask/src/lint/unsafe_code.rs";
        found.push(Violation { file: file.to_owned(), line: token.line, text: text.to_owned() });
    }
    found
}

/// Finds entries whose file has no `unsafe`, or has gone. `is_unsafe` looks into a file.
pub(super) fn stale(is_unsafe: impl Fn(&str) -> bool) -> Vec<Violation> {
    let stale = ALLOWED.iter().filter(|(file, _)| !is_unsafe(file));
    stale
        .map(|(file, _)| Violation {
            file: "xtask/src/lint/unsafe_code.rs".to_owned(),
            line: 1,
            text: format!("{file} has no `unsafe` any more: remove its entry"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::source::tokens;

    #[test]
    fn unsafe_is_found_outside_the_list() {
        let text = "fn a() {\n    unsafe { b() }\n}\n// unsafe\nconst C: &str = \"unsafe\";";
        let found = check("proxy-userspace/src/plan/diff.rs", &tokens(text));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
        assert_eq!(check("proxy-ebpf/src/ctx.rs", &tokens(text)), []);
    }

    #[test]
    fn an_entry_without_unsafe_is_stale() {
        assert_eq!(stale(|_| true), []);
        assert_eq!(stale(|file| file != "proxy-ebpf/src/ctx.rs").len(), 1);
    }
}
