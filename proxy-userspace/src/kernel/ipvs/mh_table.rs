//! How large the tables of scheduler `mh` are: what the kernel was built with, and tells nobody.
//!
//! It is seen by a virtual server of eight destinations in a network namespace of its own: of the sizes
//! that there are, one only leads from 32 clients to where the kernel sends them. Where that cannot be
//! done, the kernel's configuration is read.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
};

use proxy_common::hash::{
    Family,
    mh::{self, Size},
    word,
};

use super::{Client, Error as IpvsError, connections};
use crate::{
    kernel::{inspect, link, namespace},
    model::{
        Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler, SchedulerFlags,
        VirtualServer,
    },
};

/// The option that says it.
const OPTION: &str = "CONFIG_IP_VS_MH_TAB_INDEX=";
const DESTINATIONS: u8 = 8;
const CLIENTS: u8 = 32;

/// Why the size could not be seen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no leave to make a namespace.
    #[error("make a network namespace to look at scheduler mh in (needs CAP_SYS_ADMIN)")]
    Namespace(#[source] io::Error),
    /// Its loopback device cannot be put up.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The virtual server cannot be made.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// What became of the datagrams cannot be read.
    #[error(transparent)]
    Connections(#[from] connections::Error),
    /// The datagrams cannot be sent.
    #[error("send datagrams to look at scheduler mh")]
    Send(#[source] io::Error),
    /// IPVS did not take them up.
    #[error("of {CLIENTS} datagrams to look at scheduler mh, IPVS made connections of {0} only")]
    Untaken(usize),
    /// The kernel is not the one that we know.
    #[error(
        "scheduler mh of this kernel chooses as no table of the known sizes does: what it chooses \
         cannot be foretold"
    )]
    Unlike,
}

/// What was found out.
#[derive(Debug)]
pub struct Finding {
    /// What the kernel does.
    pub seen: Result<Size, Error>,
    /// What its configuration says, and where that was read.
    pub configured: Option<(Size, String)>,
}

impl Finding {
    /// Returns the size; `None` when it is not known.
    pub fn size(&self) -> Option<Size> {
        match &self.seen {
            Ok(size) => Some(*size),
            Err(Error::Unlike) => None,
            Err(_) => self.configured.as_ref().map(|(size, _)| *size),
        }
    }

    /// Returns what speaks against it; `None` when nothing does.
    pub fn doubt(&self) -> Option<String> {
        match (&self.seen, &self.configured) {
            (Err(error @ Error::Unlike), _) => Some(error.to_string()),
            (Ok(seen), Some((configured, place))) if seen != configured => Some(format!(
                "scheduler mh has tables of {} slots, and {place} says {}: what the kernel does counts",
                seen.slots(),
                configured.slots()
            )),
            _ => None,
        }
    }
}

/// Finds it out. Takes a few milliseconds, and loads module `ip_vs_mh`.
pub fn find() -> Finding {
    Finding { seen: see(), configured: configured() }
}

/// Sees what the kernel does. Needs CAP_SYS_ADMIN.
///
/// # Errors
///
/// [`Error`].
pub fn see() -> Result<Size, Error> {
    namespace::in_new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Error::Namespace)?.block_on(look())
    })
    .map_err(Error::Namespace)?
}

async fn look() -> Result<Size, Error> {
    link::Links::open()?.raise_loopback().await?;
    let client = Client::open().await?;
    let frontend = Frontend { addr: Ipv4Addr::LOCALHOST.into(), port: 1, protocol: Protocol::Udp };
    let (scheduler, flags) = (Scheduler::Mh, SchedulerFlags::default());
    let server = VirtualServer { frontend, scheduler, flags, persistent_secs: 0 };
    client.put_virtual_server(&server).await?;
    for host in 1..=DESTINATIONS {
        let key = DestinationKey { addr: [127, 0, 1, host].into(), port: 9 };
        let destination = Destination {
            limits: Default::default(),
            key,
            weight: 1,
            forwarding: Forwarding::Masq,
        };
        client.put_destination(&frontend, &destination).await?;
    }
    let states = client.destinations(&frontend).await?;
    let order: Vec<DestinationKey> = states.iter().map(|state| state.destination.key).collect();
    for host in 1..=CLIENTS {
        let from = SocketAddr::from(([127, 0, 2, host], 0));
        let socket = UdpSocket::bind(from).map_err(Error::Send)?;
        socket.send_to(&[], SocketAddr::new(frontend.addr, frontend.port)).map_err(Error::Send)?;
    }
    let choices: Vec<Choice> = connections::read()?
        .into_iter()
        .map(|connection| (connection.client_addr, connection.destination))
        .collect();
    // Otherwise the scheduler's module was seen in use long after the namespace was left.
    client.remove_virtual_server(&frontend).await?;
    match choices.len() == usize::from(CLIENTS) {
        true => fitting(&order, &choices).ok_or(Error::Unlike),
        false => Err(Error::Untaken(choices.len())),
    }
}

/// A client and where it was sent.
type Choice = (IpAddr, DestinationKey);

/// Returns the one size by which the kernel, with destinations in this order, made these choices.
fn fitting(order: &[DestinationKey], choices: &[Choice]) -> Option<Size> {
    let destinations: Vec<_> =
        order.iter().map(|key| mh::Destination::new(key.addr, key.port, Family::Ipv4, 1)).collect();
    let fits = |size: &Size| {
        mh::Table::build(*size, &destinations).is_ok_and(|table| {
            choices.iter().all(|(client, chosen)| {
                let position = table.choose(word(*client, Family::Ipv4), false, |_| true);
                position.and_then(|position| order.get(position as usize)) == Some(chosen)
            })
        })
    };
    let mut fitting = Size::all().filter(fits);
    let only = fitting.next()?;
    fitting.next().is_none().then_some(only)
}

/// Reads the kernel's configuration, where that is kept.
fn configured() -> Option<(Size, String)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let release = release.trim();
    let places = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    for place in places {
        let text = inspect::file(Path::new(&place)).unwrap_or_default();
        if let Some(size) = option(&text) {
            return Some((size, place));
        }
    }
    let place = "/proc/config.gz";
    let text = Path::new(place).exists().then(|| inspect::command("gzip", &["-dc", place]))?;
    Some((option(&text.ok()?)?, place.to_owned()))
}

fn option(text: &str) -> Option<Size> {
    let value = text.lines().find_map(|line| line.strip_prefix(OPTION))?;
    Size::of_index(value.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Vec<DestinationKey> {
        let hosts = (1..=DESTINATIONS).rev();
        hosts.map(|host| DestinationKey { addr: [127, 0, 1, host].into(), port: 9 }).collect()
    }

    fn choices(size: Size) -> Vec<Choice> {
        let order = order();
        let places: Vec<_> = order
            .iter()
            .map(|key| mh::Destination::new(key.addr, key.port, Family::Ipv4, 1))
            .collect();
        let table = mh::Table::build(size, &places).unwrap();
        let choice = |host| {
            let client = IpAddr::from([127, 0, 2, host]);
            let chosen = table.choose(word(client, Family::Ipv4), false, |_| true).unwrap();
            (client, order[chosen as usize])
        };
        (1..=CLIENTS).map(choice).collect()
    }

    #[test]
    fn every_size_is_told_from_all_others() {
        for size in Size::all() {
            assert_eq!(fitting(&order(), &choices(size)), Some(size));
        }
    }

    #[test]
    fn what_fits_no_size_or_several_is_no_answer() {
        let mut choices = choices(Size::DEFAULT);
        assert_eq!(fitting(&order(), &choices[..1]), None, "one client says little");
        choices.rotate_left(1);
        let moved: Vec<_> = (1..)
            .zip(&choices)
            .map(|(host, choice)| (IpAddr::from([127, 0, 2, host]), choice.1))
            .collect();
        assert_eq!(fitting(&order(), &moved), None);
    }

    #[test]
    fn the_option_is_read_and_nonsense_is_not() {
        let text =
            "CONFIG_IP_VS_SH_TAB_BITS=8\nCONFIG_IP_VS_MH_TAB_INDEX=10\n# CONFIG_X is not set\n";
        assert_eq!(option(text), Size::of_index(10));
        assert_eq!(option("CONFIG_IP_VS_MH_TAB_INDEX=99\n"), None);
        assert_eq!(option("# CONFIG_IP_VS_MH is not set\n"), None);
    }

    #[test]
    fn what_the_kernel_does_counts_more_than_what_is_written() {
        let (ten, twelve) = (Size::of_index(10), Size::DEFAULT);
        let configured = ten.map(|size| (size, "/boot/config-6.12".to_owned()));
        let finding = Finding { seen: Ok(twelve), configured: configured.clone() };
        assert_eq!(finding.size(), Some(twelve));
        let doubt = finding.doubt().unwrap();
        assert!(doubt.contains("4093 slots, and /boot/config-6.12 says 1021"), "{doubt}");
        let denied = || Error::Namespace(io::Error::from(io::ErrorKind::PermissionDenied));
        let finding = Finding { seen: Err(denied()), configured: configured.clone() };
        assert_eq!((finding.size(), finding.doubt()), (ten, None));
        let finding = Finding { seen: Err(Error::Unlike), configured };
        assert_eq!(finding.size(), None, "its configuration does not help then");
        assert!(finding.doubt().is_some());
        let finding = Finding { seen: Err(denied()), configured: None };
        assert_eq!((finding.size(), finding.doubt()), (None, None));
    }
}
