//! What each verb needs from the machine, and its installation.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, Consent};

/// A program and the Debian package that brings it. Several places mean any one of them.
pub(crate) struct Need {
    programs: &'static [&'static str],
    package: &'static str,
}

const fn need(programs: &'static [&'static str], package: &'static str) -> Need {
    Need { programs, package }
}

/// The file system daemon that shows the host's root to a guest, where the distributions put it.
pub(crate) const VIRTIOFSD: &[&str] = &["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// To compile anything: the linker driver that rustc calls.
pub(crate) const BUILD: &[Need] = &[need(&["cc"], "gcc")];

/// To take symbols out of the agent of an image.
pub(crate) const STRIP: &[Need] = &[need(&["strip"], "binutils")];

/// To unpack packages of other suites.
pub(crate) const DEBIAN: &[Need] =
    &[need(&["apt-get"], "apt"), need(&["apt-cache"], "apt"), need(&["dpkg-deb"], "dpkg")];

/// To boot guests. The guest sees the host's programs, so its needs are installed on the host.
pub(crate) const GUEST: &[Need] = &[
    need(&["qemu-system-x86_64"], "qemu-system-x86"),
    need(VIRTIOFSD, "qemu-system-common"),
    need(&["depmod"], "kmod"),
    need(&["modprobe"], "kmod"),
    need(&["xz"], "xz-utils"),
    need(&["setpriv"], "util-linux"),
    need(&["setsid"], "util-linux"),
    need(&["ip"], "iproute2"),
];

/// What owns the VIPs of a gateway in tests.
pub(crate) const GATEWAY: &[Need] = &[need(&["keepalived"], "keepalived")];

/// What the tests and the demo look at the kernel with, what kube-proxy writes its rules with, and what
/// the documents ask the agent with.
pub(crate) const NETWORK: &[Need] = &[
    need(&["ip"], "iproute2"),
    need(&["modprobe"], "kmod"),
    need(&["nft"], "nftables"),
    need(&["ipvsadm"], "ipvsadm"),
    need(&["bpftool"], "bpftool"),
    need(&["conntrack"], "conntrack"),
    need(&["ethtool"], "ethtool"),
    need(&["wg"], "wireguard-tools"),
    need(&["teamnl"], "libteam-utils"),
    need(&["iptables"], "iptables"),
    need(&["ipset"], "ipset"),
    need(&["curl"], "curl"),
];

/// To run a test cluster: its certificates and tokens, and words with etcd.
pub(crate) const CLUSTER: &[Need] =
    &[need(&["openssl"], "openssl"), need(&["curl"], "curl"), need(&["setpriv"], "util-linux")];

/// Installs what is missing of `needs`, after asking where somebody can be asked.
pub(crate) fn ensure(needs: &[&[Need]], consent: Consent) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().copied().flatten().filter(|need| absent(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let programs: Vec<&str> =
        missing.iter().filter_map(|need| need.programs.first().copied()).collect();
    let packages_line = packages.join(" ");
    let by_hand = format!("apt-get install --no-install-recommends {packages_line}");
    if !Path::new("/etc/debian_version").exists() {
        bail!("{} missing; install what Debian calls `{packages_line}`", programs.join(", "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{} missing and we are not root; run `sudo {by_hand}`", programs.join(", "));
    }
    let what = format!("installing Debian packages {packages_line} ({})", programs.join(", "));
    consent.ask(&what, &by_hand)?;
    apt_get(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&packages);
    apt_get(&install)?;
    match missing.iter().find(|need| absent(need)) {
        Some(need) => bail!("{} is not in package {}", need.programs.join(" or "), need.package),
        None => Ok(()),
    }
}

fn absent(need: &Need) -> bool {
    !need.programs.iter().any(|program| command::find(program).is_some())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    // Recovery of a half-configured package must not stop to ask either.
    command::run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}
