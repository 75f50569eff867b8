//! Settings of the network namespace.

use anyhow::ensure;
use proxy_userspace::kernel::sysctl::{self, Key};

use crate::{Case, namespace::sh, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![&[Need::Root]; a_setting_of_an_interface_with_a_dot_is_written_and_read]
}

async fn a_setting_of_an_interface_with_a_dot_is_written_and_read() -> anyhow::Result<()> {
    sh("ip link add e.7 type veth peer name f")?;
    let key = Key::from_segments(&["net", "ipv4", "conf", "e.7", "rp_filter"]);
    sysctl::write(&key, "2")?;
    ensure!(sysctl::read(&key)? == "2");
    ensure!(sh("cat /proc/sys/net/ipv4/conf/e.7/rp_filter")? == "2\n");
    ensure!(sysctl::write(&key, "nonsense").is_err());
    Ok(())
}
