//! What kube-proxy leaves in iptables and ip sets: found, told from what is others', and removed.

use anyhow::ensure;
use proxy_userspace::{
    kernel::{
        kube_proxy::{self, Remains},
        nft::Ruleset,
    },
    model::{Frontend, Protocol},
};

use crate::{Case, namespace::sh, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        &[Need::Root, Need::Nft, Need::Iptables];
        chains_of_kube_proxy_go_and_those_of_others_stay,
        a_chain_that_others_lead_to_stays_and_so_does_what_it_needs,
        replies_go_on_through_where_the_policy_is_to_drop,
    ];
    cases.extend(crate::cases![
        &[Need::Root, Need::Nft, Need::IptablesLegacy];
        chains_in_the_older_iptables_go_as_well,
    ]);
    cases.extend(crate::cases![
        &[Need::Root, Need::Nft, Need::Iptables, Need::IpSets];
        sets_say_what_is_kube_proxys_and_go_when_no_rule_uses_them,
    ]);
    cases
}

/// The rules that kube-proxy 1.37 writes without Services, less those with ip sets; and a kubelet's
/// and an operator's.
const RULES: &str = r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:OPERATORS - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -j OPERATORS
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
-A KUBE-SERVICES -j KUBE-NODE-PORT
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A OUTPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
-A KUBE-FIREWALL -s 192.0.2.0/24 -j DROP
COMMIT
"#;
const OTHERS: [&str; 5] = [
    ":OPERATORS ",
    ":KUBE-FIREWALL ",
    "-A POSTROUTING -j OPERATORS",
    "-A INPUT -j KUBE-FIREWALL",
    "-A KUBE-FIREWALL -s 192.0.2.0/24 -j DROP",
];

fn write(program: &str) -> anyhow::Result<()> {
    let rules = if program.starts_with("ip6") {
        RULES.replace("127.0.0.0/8", "::1/128").replace("192.0.2.0/24", "2001:db8::/32")
    } else {
        RULES.to_owned()
    };
    sh(&format!("{program}-restore <<'EOF'\n{rules}EOF")).map(drop)
}

/// Returns the lines that speak of kube-proxy's chains.
fn left(program: &str) -> anyhow::Result<Vec<String>> {
    let saved = sh(&format!("{program}-save"))?;
    for line in OTHERS {
        ensure!(saved.contains(line), "{line} is gone: {saved}");
    }
    let kube = saved.lines().filter(|line| line.contains("KUBE-"));
    Ok(kube.filter(|line| !line.contains("KUBE-FIREWALL")).map(str::to_owned).collect())
}

async fn chains_of_kube_proxy_go_and_those_of_others_stay() -> anyhow::Result<()> {
    let ruleset = Ruleset::open()?;
    ensure!(Remains::find(&ruleset).await?.is_empty(), "on an empty node");
    write("iptables-nft")?;
    write("ip6tables-nft")?;
    let found = Remains::find(&ruleset).await?;
    ensure!(found.chains.len() == 22 && found.other_mode.is_none(), "{found:?}");

    let kept = kube_proxy::clear_away(&ruleset).await?;
    ensure!(kept.is_empty(), "{kept:?}");
    ensure!(left("iptables-nft")?.is_empty(), "{:?}", left("iptables-nft")?);
    ensure!(Remains::find(&ruleset).await?.is_empty());
    kube_proxy::clear_away(&ruleset).await?;
    Ok(())
}

async fn a_chain_that_others_lead_to_stays_and_so_does_what_it_needs() -> anyhow::Result<()> {
    let ruleset = Ruleset::open()?;
    write("iptables-nft")?;
    sh("iptables-nft -t nat -A OPERATORS -p tcp -j KUBE-MARK-MASQ")?;
    let kept = kube_proxy::clear_away(&ruleset).await?;
    ensure!(kept.len() == 2 && kept[0].contains("KUBE-MARK-MASQ"), "{kept:?}");
    let left = left("iptables-nft")?.join("\n");
    for line in ["-A POSTROUTING", "-A KUBE-POSTROUTING -j MASQUERADE", "-A KUBE-MARK-MASQ -j MARK"]
    {
        ensure!(left.contains(line), "{line}: {left}");
    }
    ensure!(!left.contains("KUBE-SERVICES") && !left.contains("KUBE-FORWARD"), "{left}");
    Ok(())
}

async fn replies_go_on_through_where_the_policy_is_to_drop() -> anyhow::Result<()> {
    let ruleset = Ruleset::open()?;
    write("iptables-nft")?;
    sh("iptables-nft -P FORWARD DROP")?;
    let kept = kube_proxy::clear_away(&ruleset).await?;
    ensure!(kept.len() == 1 && kept[0].contains("KUBE-FORWARD"), "{kept:?}");
    let left = left("iptables-nft")?.join("\n");
    ensure!(left.contains("-j KUBE-FORWARD") && left.contains("-A KUBE-FORWARD -m mark"), "{left}");
    ensure!(!left.contains("KUBE-IPVS-FILTER"), "{left}");
    Ok(())
}

async fn chains_in_the_older_iptables_go_as_well() -> anyhow::Result<()> {
    let ruleset = Ruleset::open()?;
    write("iptables-legacy")?;
    let found = Remains::find(&ruleset).await?;
    ensure!(found.legacy == ["ip nat", "ip filter"] && !found.is_empty(), "{found:?}");
    let kept = kube_proxy::clear_away(&ruleset).await?;
    ensure!(kept.is_empty(), "{kept:?}");
    ensure!(left("iptables-legacy")?.is_empty(), "{:?}", left("iptables-legacy")?);
    ensure!(Remains::find(&ruleset).await?.is_empty());
    Ok(())
}

async fn sets_say_what_is_kube_proxys_and_go_when_no_rule_uses_them() -> anyhow::Result<()> {
    let ruleset = Ruleset::open()?;
    sh("ipset create KUBE-CLUSTER-IP hash:ip,port
        ipset add KUBE-CLUSTER-IP 10.96.0.10,tcp:80
        ipset create KUBE-6-CLUSTER-IP hash:ip,port family inet6
        ipset add KUBE-6-CLUSTER-IP fd00:96::10,udp:53
        ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
        ipset add KUBE-NODE-PORT-TCP 30080
        ipset create KUBE-IPVS-IPS hash:ip
        ipset add KUBE-IPVS-IPS 10.96.0.10
        ipset create operators hash:ip,port
        ipset add operators 192.0.2.1,tcp:1
        iptables-nft -A INPUT -m set --match-set KUBE-IPVS-IPS dst -j ACCEPT")?;
    let estate = kube_proxy::estate().await?;
    let frontend = |addr: &str, port, protocol| -> anyhow::Result<Frontend> {
        Ok(Frontend { addr: addr.parse()?, port, protocol })
    };
    let web = frontend("10.96.0.10", 80, Protocol::Tcp)?;
    let dns = frontend("fd00:96::10", 53, Protocol::Udp)?;
    ensure!(estate.frontends == [web, dns].into(), "{estate:?}");
    ensure!(estate.node_ports == [(Protocol::Tcp, 30080)].into(), "{estate:?}");
    ensure!(estate.addrs == [web.addr].into(), "{estate:?}");

    let kept = kube_proxy::clear_away(&ruleset).await?;
    ensure!(kept == ["ip set KUBE-IPVS-IPS stays: rules use it"], "{kept:?}");
    let names = sh("ipset list -n")?;
    ensure!(names.split_whitespace().eq(["KUBE-IPVS-IPS", "operators"]), "{names}");
    sh("iptables-nft -F INPUT")?;
    ensure!(kube_proxy::clear_away(&ruleset).await?.is_empty());
    ensure!(sh("ipset list -n")?.trim() == "operators");
    Ok(())
}
