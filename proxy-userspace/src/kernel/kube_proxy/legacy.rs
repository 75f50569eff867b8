//! kube-proxy's chains in the kernel's older iptables, which only its own programs can change.

use std::{
    fs, io,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use super::chains::{self, Removal};
use crate::kernel::nft::{FoundChain, FoundJump};

/// The programs and the kernel's list of tables, by family.
const FAMILIES: [Family; 2] = [
    Family {
        ipv6: false,
        names: "/proc/net/ip_tables_names",
        save: "iptables-legacy-save",
        restore: "iptables-legacy-restore",
    },
    Family {
        ipv6: true,
        names: "/proc/net/ip6_tables_names",
        save: "ip6tables-legacy-save",
        restore: "ip6tables-legacy-restore",
    },
];
/// Those that kube-proxy has chains in.
const TABLES: [&str; 2] = ["nat", "filter"];

struct Family {
    ipv6: bool,
    names: &'static str,
    save: &'static str,
    restore: &'static str,
}

/// A program of iptables-legacy that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run.
    #[error("run {program}")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It refused.
    #[error("{program}: {complaint}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What it said.
        complaint: String,
    },
}

/// A table as its program saves it.
struct Saved {
    chains: Vec<FoundChain>,
    /// The handle of each is its place in `rules`.
    jumps: Vec<FoundJump>,
    rules: Vec<String>,
}

/// Returns the tables that have chains of kube-proxy, as `ip nat`. One that cannot be read is left
/// out: [`clear_away`] tells of it.
pub fn tables() -> Vec<String> {
    let mut found = Vec::new();
    for family in &FAMILIES {
        for table in present(family) {
            if read(family, table).is_ok_and(|saved| saved.has_ours()) {
                let name = if family.ipv6 { "ip6" } else { "ip" };
                found.push(format!("{name} {table}"));
            }
        }
    }
    found
}

/// Removes kube-proxy's chains, each table at one moment. Returns what stays, a sentence each.
///
/// # Errors
///
/// The first refusal.
pub fn clear_away() -> Result<Vec<String>, Error> {
    let mut kept = Vec::new();
    for family in &FAMILIES {
        let mut saved = Vec::new();
        for table in present(family) {
            match read(family, table) {
                Ok(table) => saved.push(table),
                Err(Error::Run { program, cause }) if cause.kind() == io::ErrorKind::NotFound => {
                    kept.push(format!(
                        "table {table} of iptables-legacy was not looked at: no {program} here"
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        if !saved.iter().any(Saved::has_ours) {
            continue;
        }
        let chains: Vec<_> = saved.iter().flat_map(|table| table.chains.clone()).collect();
        let jumps: Vec<_> = saved.iter().flat_map(|table| table.jumps.clone()).collect();
        let removal = Removal::of(&chains, &jumps);
        restore(family, &script(&removal, &saved))?;
        kept.extend(removal.kept);
    }
    Ok(kept)
}

impl Saved {
    fn has_ours(&self) -> bool {
        self.chains.iter().any(|chain| chains::is_of_ipvs_mode(&chain.table, &chain.name))
    }

    /// Reads what the program of a table saved.
    fn of(text: &str, ipv6: bool, table: &str) -> Self {
        let (mut chains, mut jumps, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some(word) if word.starts_with(':') => chains.push(FoundChain {
                    ipv6,
                    table: table.to_owned(),
                    name: word.trim_start_matches(':').to_owned(),
                    drops: words.next() == Some("DROP"),
                }),
                Some("-A") => {
                    let from = words.next().unwrap_or_default().to_owned();
                    let mut rest = words.skip_while(|word| !["-j", "-g"].contains(word));
                    if let Some(to) = rest.nth(1) {
                        jumps.push(FoundJump {
                            ipv6,
                            table: table.to_owned(),
                            from,
                            handle: rules.len() as u64,
                            to: to.to_owned(),
                        });
                    }
                    rules.push(line.trim_start_matches("-A ").to_owned());
                }
                _ => {}
            }
        }
        jumps.retain(|jump| chains.iter().any(|chain| chain.name == jump.to));
        Self { chains, jumps, rules }
    }
}

/// Returns what tells the program to carry a removal out: one transaction a table.
fn script(removal: &Removal, saved: &[Saved]) -> String {
    let mut lines = Vec::new();
    for table in saved {
        let Some(name) = table.chains.first().map(|chain| chain.table.as_str()) else { continue };
        lines.push(format!("*{name}"));
        let links = removal.rules.iter().filter(|jump| jump.table == name);
        let links = links.filter_map(|jump| table.rules.get(usize::try_from(jump.handle).ok()?));
        lines.extend(links.map(|rule| format!("-D {rule}")));
        let chains = || removal.chains.iter().filter(|chain| chain.table == name);
        lines.extend(chains().map(|chain| format!("-F {}", chain.name)));
        lines.extend(chains().map(|chain| format!("-X {}", chain.name)));
        lines.push("COMMIT".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn present(family: &Family) -> Vec<&'static str> {
    let names = fs::read_to_string(family.names).unwrap_or_default();
    TABLES.into_iter().filter(|table| names.lines().any(|name| name == *table)).collect()
}

fn read(family: &Family, table: &str) -> Result<Saved, Error> {
    let program = family.save;
    let output = Command::new(program)
        .args(["-t", table])
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| Error::Run { program, cause })?;
    let text = judge(program, output)?;
    Ok(Saved::of(&text, family.ipv6, table))
}

fn restore(family: &Family, script: &str) -> Result<(), Error> {
    let program = family.restore;
    let failed = |cause| Error::Run { program, cause };
    let mut child = Command::new(program)
        // Others who change the tables at this moment are waited for.
        .args(["--noflush", "--wait", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    judge(program, output).map(drop)
}

fn judge(program: &'static str, output: Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Refused { program, complaint })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAT: &str = "*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [1:2]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:OTHERS - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A POSTROUTING -j OTHERS
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
";

    #[test]
    fn a_saved_table_is_read_and_only_kube_proxys_part_goes() {
        let saved = Saved::of(NAT, false, "nat");
        assert!(saved.has_ours());
        let removal = Removal::of(&saved.chains, &saved.jumps);
        let expected = "*nat
-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-D POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-F KUBE-SERVICES
-F KUBE-POSTROUTING
-F KUBE-MARK-MASQ
-X KUBE-SERVICES
-X KUBE-POSTROUTING
-X KUBE-MARK-MASQ
COMMIT
";
        assert_eq!(script(&removal, &[saved]), expected);
    }

    #[test]
    fn a_table_of_others_has_nothing_of_kube_proxy() {
        let text = ":INPUT DROP [0:0]\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n";
        let saved = Saved::of(text, false, "filter");
        assert!(!saved.has_ours() && saved.chains.iter().any(|chain| chain.drops));
    }
}
