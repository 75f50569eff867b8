//! Which driver an interface has.

use std::{fs, path::Path};

use crate::model::interface::{Interface, InterfaceKind};

/// Where the kernel shows interfaces: those of the network namespace that mounted it.
const CLASS: &str = "/sys/class/net";

/// Returns the name of the driver: `veth`, `ixgbe`. `None` when it cannot be told.
pub fn driver(interface: &Interface) -> Option<String> {
    match &interface.kind {
        InterfaceKind::Veth => Some("veth".into()),
        InterfaceKind::Other(kind) => Some(kind.clone()),
        InterfaceKind::Physical => of_device(Path::new(CLASS), interface),
        InterfaceKind::Loopback => None,
    }
}

fn of_device(class: &Path, interface: &Interface) -> Option<String> {
    let directory = class.join(&interface.name);
    // Another namespace's sysfs may show another interface by this name.
    let index = fs::read_to_string(directory.join("ifindex")).ok()?;
    if index.trim().parse() != Ok(interface.index) {
        return None;
    }
    let link = fs::read_link(directory.join("device/driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_driver_of_a_nic_is_told_only_where_its_index_fits() {
        let class = tempfile::tempdir().unwrap();
        let directory = class.path().join("eth0");
        fs::create_dir_all(directory.join("device")).unwrap();
        fs::write(directory.join("ifindex"), "4\n").unwrap();
        symlink("../../../bus/pci/drivers/ixgbe", directory.join("device/driver")).unwrap();
        let mut interface = Interface {
            index: 4,
            name: "eth0".into(),
            kind: InterfaceKind::Physical,
            up: true,
            mtu: 1500,
            ethernet: true,
            mac: [2, 0, 0, 0, 0, 1],
            master: None,
            lower: None,
            peer_elsewhere: false,
            qdisc: "mq".into(),
            xdp_program: None,
            vlan: None,
            addrs: Vec::new(),
        };
        assert_eq!(of_device(class.path(), &interface).as_deref(), Some("ixgbe"));
        interface.index = 5;
        assert_eq!(of_device(class.path(), &interface), None);
    }
}
