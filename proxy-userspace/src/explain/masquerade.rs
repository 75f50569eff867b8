//! Which source address the backend sees, by the rules of chain `postrouting`, in their order.

use std::net::SocketAddr;

use super::{
    admission::{is_inside, is_pod},
    dump::Dump,
    packet::Packet,
};
use crate::model::{Element, Frontend, Inside, Masquerade};

/// Whether the source becomes an address of the node, and by which rule.
pub(super) struct Verdict {
    /// `None`: it depends on what is not known.
    pub(super) masqueraded: Option<bool>,
    pub(super) words: String,
}

/// Judges a connection that was dialled at `dialled` and goes to `backend`, or to one of
/// `candidates` when that is not known yet.
pub(super) fn judge(
    dump: &Dump,
    packet: &Packet,
    dialled: &Frontend,
    backend: Option<SocketAddr>,
    candidates: &[SocketAddr],
) -> Verdict {
    let source = packet.source.ip();
    let hairpin = dump.has(Element::Hairpin(source));
    let yes = |words: &str| Verdict {
        masqueraded: Some(true),
        words: format!("yes, the backend sees an address of this node: {words}"),
    };
    if hairpin && backend.is_some_and(|backend| backend.ip() == source) {
        return yes("the client is the backend itself (rule hairpin)");
    }
    if dump.has(Element::Masquerade(*dialled)) {
        return yes(
            "connections to this frontend come from anywhere, and must come back here (rule external)",
        );
    }
    if dump.has(Element::Vip(source)) {
        return yes(
            "a process of this node sends from an address of a Service (rule host process to vip)",
        );
    }
    if let Some(verdict) = by_cluster_ip(dump, packet, dialled) {
        return verdict;
    }
    let own = backend.is_none() && candidates.iter().any(|candidate| candidate.ip() == source);
    if hairpin && own {
        let words = "only if the choice falls on the client itself (rule hairpin)";
        return Verdict { masqueraded: None, words: words.to_owned() };
    }
    Verdict { masqueraded: Some(false), words: format!("no, the backend sees {source}") }
}

fn by_cluster_ip(dump: &Dump, packet: &Packet, dialled: &Frontend) -> Option<Verdict> {
    if !dump.has(Element::ClusterIp(dialled.addr)) {
        return None;
    }
    let yes = |words: &str| {
        let words = format!("yes, the backend sees an address of this node: {words}");
        Some(Verdict { masqueraded: Some(true), words })
    };
    let rules = &dump.table.as_ref()?.rules;
    let by_address = rules.inside == Inside::Cidrs;
    match rules.masquerade {
        Masquerade::Needed => None,
        Masquerade::All => yes("all connections to cluster IPs are masqueraded (rule cluster ip)"),
        // By then a process of the node is told by its address as well.
        Masquerade::OffCluster if by_address => match is_pod(dump, packet.source.ip()) {
            true => None,
            false => yes("the source is outside the cluster (rule cluster ip)"),
        },
        Masquerade::OffCluster => match is_inside(dump, packet) {
            Ok(true) => None,
            Ok(false) => yes("the source is outside the cluster (rule cluster ip)"),
            Err(missing) => Some(Verdict {
                masqueraded: None,
                words: format!("only if the source is outside the cluster; {missing}"),
            }),
        },
    }
}
