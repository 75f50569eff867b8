//! Which chains and rules of iptables are kube-proxy's, and which of them may go. No I/O.

use std::collections::BTreeSet;

use crate::kernel::nft::{FoundChain, FoundJump};

/// The chains of the `ipvs` mode, by table. The kubelet's (`KUBE-FIREWALL`,
/// `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`) are not among them.
const CHAINS: [(&str, &[&str]); 2] = [
    ("nat", &["KUBE-SERVICES", POSTROUTING, "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", MARK]),
    (
        "filter",
        &[
            FORWARD,
            "KUBE-NODE-PORT",
            "KUBE-PROXY-FIREWALL",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
        ],
    ),
];
const MARK: &str = "KUBE-MARK-MASQ";
const POSTROUTING: &str = "KUBE-POSTROUTING";
const FORWARD: &str = "KUBE-FORWARD";

/// The rules by which its chains hang on iptables' own.
const LINKS: [(&str, &str, &str); 9] = [
    ("nat", "PREROUTING", "KUBE-SERVICES"),
    ("nat", "OUTPUT", "KUBE-SERVICES"),
    ("nat", "POSTROUTING", POSTROUTING),
    ("filter", "FORWARD", FORWARD),
    ("filter", "INPUT", "KUBE-NODE-PORT"),
    ("filter", "INPUT", "KUBE-PROXY-FIREWALL"),
    ("filter", "FORWARD", "KUBE-PROXY-FIREWALL"),
    ("filter", "INPUT", "KUBE-IPVS-FILTER"),
    ("filter", "OUTPUT", "KUBE-IPVS-OUT-FILTER"),
];

/// Says whether a chain is one of those that the `ipvs` mode makes.
pub fn is_of_ipvs_mode(table: &str, chain: &str) -> bool {
    CHAINS.iter().any(|(of, names)| *of == table && names.contains(&chain))
}

/// Says whether a rule is one of those that its chains hang on.
pub fn is_link(table: &str, from: &str, to: &str) -> bool {
    LINKS.contains(&(table, from, to))
}

/// Returns which other mode of kube-proxy has left chains or tables, if one has.
pub(super) fn other_mode(chains: &[FoundChain], tables: &[String]) -> Option<String> {
    let iptables = chains.iter().any(|chain| {
        chain.table == "nat"
            && ["KUBE-SVC-", "KUBE-SEP-"].iter().any(|prefix| chain.name.starts_with(prefix))
    });
    let nftables = tables.iter().any(|table| table.ends_with(" kube-proxy"));
    let mode = if iptables { "iptables" } else { "nftables" };
    (iptables || nftables).then(|| mode.to_owned())
}

/// What goes, and what has to stay.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Removal {
    pub(super) rules: Vec<FoundJump>,
    pub(super) chains: Vec<FoundChain>,
    /// A sentence for each chain that stays.
    pub(super) kept: Vec<String>,
}

/// A chain in its table and family.
type Place<'a> = (bool, &'a str, &'a str);

impl Removal {
    /// Decides, given all chains and all rules that lead to chains of Kubernetes.
    pub(super) fn of(chains: &[FoundChain], jumps: &[FoundJump]) -> Self {
        let ours: Vec<&FoundChain> =
            chains.iter().filter(|chain| is_of_ipvs_mode(&chain.table, &chain.name)).collect();
        let kept = kept(chains, jumps);
        let stays = |place: Place<'_>| kept.iter().any(|(chain, _)| *chain == place);
        let rules = jumps.iter().filter(|jump| {
            is_link(&jump.table, &jump.from, &jump.to) && !stays((jump.ipv6, &jump.table, &jump.to))
        });
        let gone = ours.iter().filter(|chain| !stays((chain.ipv6, &chain.table, &chain.name)));
        let tell = |((ipv6, table, chain), why): &(Place<'_>, &str)| {
            let family = if *ipv6 { "ip6" } else { "ip" };
            format!("chain {family} {table} {chain} stays: {why}")
        };
        Self {
            rules: rules.cloned().collect(),
            chains: gone.map(|chain| (*chain).clone()).collect(),
            kept: kept.iter().map(tell).collect(),
        }
    }
}

/// Returns the chains that stay, each with the reason.
fn kept<'a>(chains: &'a [FoundChain], jumps: &'a [FoundJump]) -> Vec<(Place<'a>, &'static str)> {
    let is_there = |place: Place<'_>| {
        chains.iter().any(|chain| (chain.ipv6, chain.table.as_str(), chain.name.as_str()) == place)
    };
    let mut kept: Vec<(Place<'a>, &'static str)> = Vec::new();
    for jump in jumps {
        let others = !is_of_ipvs_mode(&jump.table, &jump.from)
            && is_of_ipvs_mode(&jump.table, &jump.to)
            && !is_link(&jump.table, &jump.from, &jump.to);
        if others {
            kept.push(((jump.ipv6, &jump.table, &jump.to), "rules of others lead to it"));
        }
    }
    for ipv6 in [false, true] {
        let drops = chains.iter().any(|chain| {
            chain.ipv6 == ipv6 && chain.table == "filter" && chain.name == "FORWARD" && chain.drops
        });
        if drops {
            let why = "the policy of FORWARD is DROP, and it lets replies through";
            kept.push(((ipv6, "filter", FORWARD), why));
        }
        // A mark that others set would masquerade nothing any more.
        if kept.iter().any(|(place, _)| *place == (ipv6, "nat", MARK)) {
            kept.push(((ipv6, "nat", POSTROUTING), "it masquerades what others mark"));
        }
    }
    // What a chain that stays leads to stays as well.
    while let Some(next) = jumps.iter().find_map(|jump| {
        let reached = (jump.ipv6, jump.table.as_str(), jump.to.as_str());
        let from = (jump.ipv6, jump.table.as_str(), jump.from.as_str());
        let is_new = !kept.iter().any(|(place, _)| *place == reached);
        let leads = kept.iter().any(|(place, _)| *place == from);
        (is_new && leads && is_of_ipvs_mode(&jump.table, &jump.to)).then_some(reached)
    }) {
        kept.push((next, "a chain that stays leads to it"));
    }
    let mut seen = BTreeSet::new();
    kept.retain(|(place, _)| is_there(*place) && seen.insert(*place));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(table: &str, name: &str) -> FoundChain {
        FoundChain { ipv6: false, table: table.into(), name: name.into(), drops: false }
    }

    fn jump(table: &str, from: &str, to: &str) -> FoundJump {
        let handle = u64::try_from(from.len() + to.len()).unwrap();
        FoundJump { ipv6: false, table: table.into(), from: from.into(), to: to.into(), handle }
    }

    /// What kube-proxy makes, and a kubelet and a CNI plugin beside it.
    fn node() -> (Vec<FoundChain>, Vec<FoundJump>) {
        let mut chains: Vec<_> = CHAINS
            .iter()
            .flat_map(|(table, names)| names.iter().map(|name| chain(table, name)))
            .collect();
        chains.extend(["FORWARD", "INPUT", "KUBE-FIREWALL"].map(|name| chain("filter", name)));
        chains.extend(["POSTROUTING", "CNI-HOSTPORT"].map(|name| chain("nat", name)));
        let mut jumps: Vec<_> =
            LINKS.iter().map(|(table, from, to)| jump(table, from, to)).collect();
        jumps.extend([
            jump("nat", "KUBE-SERVICES", "KUBE-NODE-PORT"),
            jump("nat", "KUBE-NODE-PORT", MARK),
            jump("filter", "INPUT", "KUBE-FIREWALL"),
        ]);
        (chains, jumps)
    }

    fn names(removal: &Removal) -> BTreeSet<&str> {
        removal.chains.iter().map(|chain| chain.name.as_str()).collect()
    }

    #[test]
    fn all_of_kube_proxy_goes_and_nothing_of_the_kubelet() {
        let (chains, jumps) = node();
        let removal = Removal::of(&chains, &jumps);
        assert_eq!((removal.chains.len(), removal.rules.len()), (11, LINKS.len()));
        assert!(!names(&removal).contains("KUBE-FIREWALL"));
        assert!(removal.kept.is_empty(), "{:?}", removal.kept);
    }

    #[test]
    fn chains_that_others_lead_to_stay_with_what_makes_them_work() {
        let (chains, mut jumps) = node();
        jumps.push(jump("nat", "CNI-HOSTPORT", MARK));
        let removal = Removal::of(&chains, &jumps);
        assert!(!names(&removal).contains(MARK) && !names(&removal).contains(POSTROUTING));
        assert!(names(&removal).contains("KUBE-SERVICES"));
        assert!(removal.rules.iter().all(|rule| rule.to != POSTROUTING));
        assert_eq!(removal.kept.len(), 2, "{:?}", removal.kept);
    }

    #[test]
    fn the_chain_that_lets_replies_through_stays_where_nothing_else_does() {
        let (mut chains, jumps) = node();
        for chain in chains.iter_mut().filter(|chain| chain.name == "FORWARD") {
            chain.drops = true;
        }
        let removal = Removal::of(&chains, &jumps);
        assert!(!names(&removal).contains(FORWARD));
        assert!(removal.rules.iter().all(|rule| rule.to != FORWARD));
        assert_eq!(
            removal.kept,
            ["chain ip filter KUBE-FORWARD stays: the policy of FORWARD is DROP, and it lets \
                 replies through"]
        );
    }

    #[test]
    fn a_chain_of_the_same_name_in_another_table_is_not_kube_proxys() {
        let removal = Removal::of(&[chain("mangle", MARK)], &[]);
        assert_eq!(removal, Removal::default());
    }

    #[test]
    fn other_modes_are_known_by_their_chains_and_tables() {
        let mine = [chain("nat", "KUBE-SVC-ABCDEF")];
        assert_eq!(other_mode(&mine, &[]).as_deref(), Some("iptables"));
        assert_eq!(other_mode(&[], &["ip kube-proxy".into()]).as_deref(), Some("nftables"));
        assert_eq!(other_mode(&node().0, &["inet passlane".into()]), None);
    }
}
