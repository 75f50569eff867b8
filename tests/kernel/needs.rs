//! What a test needs of the machine, and whether it is there.

use std::{collections::HashMap, env, process::Command};

use proxy_userspace::kernel::{ipvs, module};

use crate::namespace::sh;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Need {
    /// User id 0, and leave to make network namespaces.
    Root,
    /// Module ip_vs.
    Ipvs,
    /// The command `ipvsadm`, as the second opinion.
    Ipvsadm,
    /// The command `nft`.
    Nft,
    /// The command `conntrack`, as the second opinion.
    Conntrack,
    /// Dummy devices.
    Dummy,
    /// VLAN devices.
    Vlan,
    /// Tunnel devices of IP in IP.
    Tunnel,
    /// Flowtables of nftables.
    Flowtables,
    /// The command `iptables` over nf_tables, and what the kernel needs for its rules.
    Iptables,
    /// The same over the kernel's older tables.
    IptablesLegacy,
    /// The command `ipset`, and ip sets in the kernel.
    IpSets,
}

/// Answers, asked for once.
#[derive(Default)]
pub(crate) struct Checked {
    answers: HashMap<Need, Option<String>>,
}

impl Checked {
    /// Returns why the test cannot run here. `None`: it can, or must: the environment variables
    /// `REQUIRE_ROOT` and `REQUIRE_IPVS` turn skips into failures.
    pub(crate) fn missing(&mut self, needs: &[Need]) -> Option<String> {
        needs
            .iter()
            .find_map(|need| self.answers.entry(*need).or_insert_with(|| check(*need)).clone())
    }
}

fn check(need: Need) -> Option<String> {
    let required = match need {
        Need::Ipvs | Need::Ipvsadm => "REQUIRE_IPVS",
        Need::Root
        | Need::Nft
        | Need::Conntrack
        | Need::Dummy
        | Need::Vlan
        | Need::Tunnel
        | Need::Flowtables => "REQUIRE_ROOT",
        // Kernels without them are no place for kube-proxy either.
        Need::Iptables | Need::IptablesLegacy | Need::IpSets => "REQUIRE_IPTABLES",
    };
    if env::var_os(required).is_some() {
        let _ = module::load("ip_vs");
        return None;
    }
    match need {
        Need::Root => {
            let works = Command::new("unshare").args(["--net", "true"]).status();
            (!works.is_ok_and(|status| status.success()))
                .then(|| "no leave to make network namespaces (needs root)".to_owned())
        }
        Need::Ipvs => {
            let _ = module::load("ip_vs");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime.map(|runtime| runtime.block_on(ipvs::Client::open())) {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            }
        }
        Need::Ipvsadm => command("ipvsadm", "--version"),
        Need::Nft => command("nft", "--version"),
        Need::Conntrack => command("conntrack", "--version"),
        Need::Flowtables => {
            let flowtable = "flowtable f { hook ingress priority 0; devices = { lo }; }";
            let script = format!("unshare --net nft 'table ip t {{ {flowtable}; }}'");
            sh(&script).is_err().then(|| "no flowtables in this kernel".to_owned())
        }
        Need::Iptables => rules("iptables-nft"),
        Need::IptablesLegacy => rules("iptables-legacy"),
        Need::IpSets => sh("unshare --net ipset create s hash:ip,port")
            .is_err()
            .then(|| "no ipset, or no ip sets in this kernel".to_owned()),
        Need::Dummy => device("d0 type dummy", "dummy"),
        // The loopback takes none.
        Need::Vlan => {
            device("v0 type veth peer name v1; ip link add link v0 name v2 type vlan id 7", "VLAN")
        }
        Need::Tunnel => device("t0 type ipip remote 127.0.0.2", "tunnel"),
    }
}

fn device(arguments: &str, name: &str) -> Option<String> {
    let script = format!("unshare --net sh -euc 'ip link add {arguments}'");
    sh(&script).is_err().then(|| format!("no {name} devices in this kernel"))
}

fn rules(program: &str) -> Option<String> {
    let rule = "-t nat -A POSTROUTING -m comment --comment x -m mark --mark 1/1 -j MASQUERADE";
    sh(&format!("unshare --net {program} {rule}"))
        .is_err()
        .then(|| format!("no {program}, or no such rules in this kernel"))
}

fn command(name: &str, argument: &str) -> Option<String> {
    Command::new(name).arg(argument).output().is_err().then(|| format!("no command {name}"))
}
