//! The fixed part of the table: chains and rules.
//!
//! ```text
//! sources       prerouting -150   new connections from sources that a Service excludes -> drop
//! sources_host  output     -150   the same for processes of this node
//! inside        prerouting -100   sources inside the cluster: LB IP -> where all endpoints are
//! inside_host   output     -100   the same for processes of this node
//! unserved      input        90   no endpoint -> reject; none here, policy Local -> drop
//! unserved_host output      -99   `unassigned` and `unserved` for processes of this node
//!               (ip_vs takes what it serves: output -98, input 98 and 99)
//! unassigned    forward       0   addresses of the service CIDRs that no Service has -> refuse
//! refuse        -                 reject as each protocol has it
//! input         input       110   what ip_vs did not take, to a VIP -> reject
//! postrouting   postrouting 100   hairpin, external traffic, host process to VIP -> masquerade
//! ```
//!
//! ip_vs sends what it forwards through input, output and postrouting, each packet of it. So a chain
//! that is about new connections lets the others go by its first rule.

use nftables::{
    schema::{Chain, NfListObject, Rule},
    stmt::Statement,
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use super::{
    elements::protocol_name,
    expression::{
        Family, concat, counter, ct_original, direction, dnat, drop, frontend, go_on,
        header_protocol, input_name, ip, is, is_not, jump, l4proto, marked, masquerade, reject,
        set, set_mark, state_new, state_not_new, status_dnat, text,
    },
    sets::{self, Kind},
};
use crate::model::{Inside, Masquerade, Protocol, RuleOptions};

/// Name of the table, of family `inet`.
pub const TABLE: &str = "passlane";
/// Version of sets, chains and rules together; every rule's comment carries it.
pub const VERSION: u32 = 6;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// What has no hook of its own.
const REFUSE: &str = "refuse";

/// Returns the chains. A base chain without a rule costs every packet its hook.
pub(super) fn chains(options: &RuleOptions) -> Vec<Chain<'static>> {
    use NfChainType::{Filter, NAT};
    use NfHook::{Forward, Input, Output, Postrouting, Prerouting};
    let mut chains: Vec<_> = [
        ("sources", Filter, Prerouting, -150),
        ("sources_host", Filter, Output, -150),
        ("inside", NAT, Prerouting, -100),
        ("inside_host", NAT, Output, -100),
        ("unserved", Filter, Input, 90),
        ("unserved_host", Filter, Output, -99),
        ("unassigned", Filter, Forward, 0),
        ("input", Filter, Input, 110),
        ("postrouting", NAT, Postrouting, 100),
    ]
    .into_iter()
    .filter(|(name, ..)| options.reject_unassigned || *name != "unassigned")
    .map(|(name, kind, hook, priority)| Chain {
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..chain(name)
    })
    .collect();
    chains.extend(options.reject_unassigned.then(|| chain(REFUSE)));
    chains
}

fn chain(name: &'static str) -> Chain<'static> {
    Chain { family: NfFamily::INet, table: TABLE.into(), name: name.into(), ..Chain::default() }
}

/// Returns the rules, in their order within each chain.
pub(super) fn rules(options: &RuleOptions) -> Vec<Rule<'static>> {
    // What nobody has is refused in the middle of a connection too.
    let mut rules = unassigned(options);
    rules.extend(["sources", "sources_host", "unserved", "unserved_host"].map(known_connections));
    for family in FAMILIES {
        rules.extend(of_family(family, options));
    }
    rules
}

fn of_family(family: Family, options: &RuleOptions) -> Vec<Rule<'static>> {
    let mut rules = sources(family);
    rules.extend(inside(family, options));
    rules.extend(["unserved", "unserved_host"].map(|chain| unserved(family, chain)).concat());
    rules.extend(guard(family));
    rules.extend(postrouting(family, options));
    rules
}

/// What ends a chain that is about new connections only.
fn known_connections(chain: &'static str) -> Rule<'static> {
    rule(chain, "known connections", vec![state_not_new(), go_on()])
}

/// Returns everything fixed, sets first because rules refer to them.
pub(super) fn objects(options: &RuleOptions) -> Vec<NfListObject<'static>> {
    let chains = chains(options).into_iter().map(NfListObject::Chain);
    let rules = rules(options).into_iter().map(NfListObject::Rule);
    sets::all().into_iter().chain(chains).chain(rules).collect()
}

/// Returns the options of a table whose rules have these comments.
pub(super) fn options(comments: &[&str]) -> RuleOptions {
    let names =
        comments.iter().filter_map(|comment| comment.split_once(": ")).map(|(_, name)| name);
    let (mut options, mut inside) = (RuleOptions::default(), None);
    for name in names {
        match name {
            "cluster ip all" => options.masquerade = Masquerade::All,
            "cluster ip by cidr" | "cluster ip by mark" => {
                options.masquerade = Masquerade::OffCluster;
            }
            _ if name.starts_with("unassigned ") => options.reject_unassigned = true,
            _ => {
                let by = name.strip_prefix("inside by ").and_then(|rest| rest.rsplit_once(' '));
                inside = inside.or(by.map(|(by, _)| by).filter(|by| *by != "host"));
            }
        }
    }
    options.inside = match inside {
        None => Inside::Unknown,
        Some("cidr") => Inside::Cidrs,
        Some(name) => Inside::Interface(name.to_owned()),
    };
    options
}

/// Only new connections: who is in stays in, as with kube-proxy.
fn sources(family: Family) -> Vec<Rule<'static>> {
    // The protocol comes out of the header here: nft 1.0.6 puts a conversion of one byte before a
    // `meta l4proto` among ranges, which Linux 6.12.117 refuses. What follows an IPv6
    // extension header is in no range so.
    let [daddr, _, port] = frontend(family);
    let with_source = vec![daddr, header_protocol(family), port, ip(family, "saddr")];
    vec![
        rule(
            "sources",
            "source ranges",
            vec![
                state_new(),
                is(concat(frontend(family)), set(family, Kind::Ranged)),
                is_not(concat(with_source.clone()), set(family, Kind::Sources)),
                is_not(concat(with_source), set(family, Kind::InterimSources)),
                counter(),
                drop(),
            ],
        ),
        rule(
            "sources_host",
            "source ranges",
            vec![
                state_new(),
                is(concat(frontend(family)), set(family, Kind::RangedHost)),
                counter(),
                drop(),
            ],
        ),
    ]
}

fn inside(family: Family, options: &RuleOptions) -> Vec<Rule<'static>> {
    let sources = match &options.inside {
        Inside::Unknown => None,
        Inside::Cidrs => Some(is(ip(family, "saddr"), set(family, Kind::Pods))),
        Inside::Interface(name) => Some(is(input_name(), text(name.clone()))),
    };
    let by = match &options.inside {
        Inside::Interface(name) => name.as_str(),
        _ => "cidr",
    };
    let split = |chain, sources: Option<&Statement<'static>>, by: &str| {
        PROTOCOLS.map(|protocol| {
            let name = protocol_name(protocol);
            let mut statements: Vec<_> = sources.cloned().into_iter().collect();
            // nft translates ports only behind a match of one protocol.
            statements.extend([is(l4proto(), text(name)), counter(), dnat(family)]);
            rule(chain, &format!("inside by {by} {name}"), statements)
        })
    };
    let mut rules = Vec::new();
    if let Some(sources) = &sources {
        rules.extend(split("inside", Some(sources), by));
        if let (Inside::Interface(name), Masquerade::OffCluster) =
            (&options.inside, options.masquerade)
        {
            // The interface is not known any more where masquerade happens.
            let statements = vec![
                is_not(input_name(), text(name.clone())),
                state_new(),
                is(ip(family, "daddr"), set(family, Kind::Clusters)),
                counter(),
                set_mark(),
            ];
            rules.push(rule("sources", &format!("off cluster {name}"), statements));
        }
    }
    rules.extend(split("inside_host", None, "host"));
    rules
}

/// Only new connections: those of an endpoint that leaves go on until they end.
fn unserved(family: Family, chain: &'static str) -> Vec<Rule<'static>> {
    let to = |kind| is(concat(frontend(family)), set(family, kind));
    let mut rules = Vec::new();
    let mut refused = vec![(Kind::Reject, "no endpoint")];
    // Sockets of this node's processes are sent to shadow ports as they dial, without a trace in
    // the packet.
    if chain == "unserved" {
        let statements = vec![state_new(), to(Kind::Shadows), status_dnat(), go_on()];
        rules.push(rule(chain, "sent inside", statements));
        refused.insert(0, (Kind::Shadows, "shadow"));
    }
    for (kind, name) in refused {
        rules.extend(PROTOCOLS.map(|protocol| {
            let name = format!("{name} {}", protocol_name(protocol));
            let statements = vec![
                state_new(),
                is(l4proto(), text(protocol_name(protocol))),
                to(kind),
                counter(),
                reject(protocol),
            ];
            rule(chain, &name, statements)
        }));
    }
    rules.push(rule(
        chain,
        "no local endpoint",
        vec![state_new(), to(Kind::Drop), counter(), drop()],
    ));
    rules
}

/// Every packet that ip_vs sends comes by, so the protocols are told apart behind the addresses.
fn unassigned(options: &RuleOptions) -> Vec<Rule<'static>> {
    if !options.reject_unassigned {
        return Vec::new();
    }
    let addresses = |chain, family| {
        let statements = vec![
            direction("original"),
            is(ip(family, "daddr"), set(family, Kind::ServiceCidrs)),
            is_not(ip(family, "daddr"), set(family, Kind::Vips)),
            jump(REFUSE),
        ];
        rule(chain, "unassigned addresses", statements)
    };
    let chains = ["unassigned", "unserved_host"].into_iter();
    let to_them = chains.flat_map(|chain| FAMILIES.map(|family| addresses(chain, family)));
    let refusals = PROTOCOLS.map(|protocol| {
        let name = protocol_name(protocol);
        let statements = vec![is(l4proto(), text(name)), counter(), reject(protocol)];
        rule(REFUSE, &format!("unassigned {name}"), statements)
    });
    to_them.chain(refusals).collect()
}

/// Replies to host processes also have a VIP as destination: only the original direction is a
/// client's.
fn guard(family: Family) -> Vec<Rule<'static>> {
    let rules = PROTOCOLS.map(|protocol| {
        let statements = vec![
            direction("original"),
            is(ip(family, "daddr"), set(family, Kind::Vips)),
            is(l4proto(), text(protocol_name(protocol))),
            counter(),
            reject(protocol),
        ];
        rule("input", &format!("vip guard {}", protocol_name(protocol)), statements)
    });
    rules.into()
}

fn postrouting(family: Family, options: &RuleOptions) -> Vec<Rule<'static>> {
    const CHAIN: &str = "postrouting";
    let pair = vec![ip(family, "saddr"), ip(family, "daddr")];
    let mut rules = vec![rule(
        CHAIN,
        "hairpin",
        vec![is(concat(pair), set(family, Kind::Hairpin)), counter(), masquerade()],
    )];
    // ip_vs leaves the original tuple of the connection alone, so that still names what the client
    // dialed when the packet already has the backend's address: no packet mark is needed. nft
    // knows the width of a conntrack port only behind a match of one protocol.
    rules.extend(PROTOCOLS.map(|protocol| {
        let name = protocol_name(protocol);
        let dialed = vec![ct_original(family.daddr()), l4proto(), ct_original("proto-dst")];
        let statements = vec![
            is(l4proto(), text(name)),
            is(concat(dialed), set(family, Kind::Masquerade)),
            counter(),
            masquerade(),
        ];
        rule(CHAIN, &format!("external {name}"), statements)
    }));
    // The route to a VIP is local, so the kernel gives a host process the VIP itself as source.
    rules.push(rule(
        CHAIN,
        "host process to vip",
        vec![is(ip(family, "saddr"), set(family, Kind::Vips)), counter(), masquerade()],
    ));
    let cluster_ip = || is(ct_original(family.daddr()), set(family, Kind::Clusters));
    let (by, which) = match (options.masquerade, &options.inside) {
        (Masquerade::Needed, _) | (Masquerade::OffCluster, Inside::Unknown) => return rules,
        (Masquerade::All, _) => ("all", vec![cluster_ip()]),
        (Masquerade::OffCluster, Inside::Cidrs) => {
            ("by cidr", vec![cluster_ip(), is_not(ip(family, "saddr"), set(family, Kind::Pods))])
        }
        (Masquerade::OffCluster, Inside::Interface(_)) => ("by mark", vec![cluster_ip(), marked()]),
    };
    let statements = [which, vec![counter(), masquerade()]].concat();
    rules.push(rule(CHAIN, &format!("cluster ip {by}"), statements));
    rules
}

fn rule(chain: &'static str, name: &str, statements: Vec<Statement<'static>>) -> Rule<'static> {
    Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into(),
        comment: Some(format!("passlane v{VERSION}: {name}").into()),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comments_of_its_rules_tell_the_options_of_a_table() {
        let masquerades = [Masquerade::Needed, Masquerade::OffCluster, Masquerade::All];
        let insides = [
            Inside::Unknown,
            Inside::Cidrs,
            Inside::Interface("br0".into()),
            Inside::Interface("veth*".into()),
        ];
        for inside in &insides {
            for masquerade in masquerades {
                // Nothing can be told to be outside where nothing tells what is inside.
                if *inside == Inside::Unknown && masquerade == Masquerade::OffCluster {
                    continue;
                }
                for reject_unassigned in [false, true] {
                    let inside = inside.clone();
                    let wanted = RuleOptions { masquerade, inside, reject_unassigned };
                    let rules = rules(&wanted);
                    let comments: Vec<&str> =
                        rules.iter().filter_map(|rule| rule.comment.as_deref()).collect();
                    assert_eq!(options(&comments), wanted);
                }
            }
        }
    }
}
