//! Which plane serves a frontend. XDP comes before netfilter: what nft is to judge, it must not send.

use std::fmt;

use proxy_common::hash::mh::Size;

use crate::{
    model::{Element, Forwarding, Frontend, Protocol, Scheduler, Thresholds},
    plan::{Admission, DesiredServer},
};

/// What the node offers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HashPlane {
    /// The operator asks for it.
    pub on: bool,
    /// Slots of the kernel's tables; `None` when that is not known, or the kernel chooses otherwise
    /// than foretold.
    pub size: Option<Size>,
}

/// Which plane serves a frontend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plane {
    /// XDP, where it is attached and the next hop is known; IPVS for the rest.
    Hash,
    /// IPVS alone.
    Ipvs(WhyIpvs),
}

/// Why a frontend is not the hash plane's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhyIpvs {
    /// Nobody asks for the hash plane, or the Service asks to be left alone.
    Off,
    /// Nothing of it is in IPVS: sockets are sent to this frontend.
    Leads(Frontend),
    /// Another protocol than TCP and UDP.
    Protocol(Protocol),
    /// Another scheduler than `mh`.
    Scheduler(Scheduler),
    /// Session affinity is kept in IPVS.
    Persistent,
    /// Destinations are masqueraded, and replies have to come back.
    Masq,
    /// Some are, some not.
    MixedForwarding,
    /// Connections are counted in IPVS.
    Thresholds,
    /// A destination is said to be on this host.
    LocalDestination,
    /// No destinations.
    NoDestinations,
    /// New connections are refused.
    Refused,
    /// New connections are dropped by a traffic policy.
    Dropped,
    /// Only some sources may reach it.
    SourceRanges,
    /// Sources inside the cluster are sent elsewhere, or come here from elsewhere only.
    Inside,
    /// The size of the kernel's tables is not known.
    NoTable,
    /// More destinations than slots: the kernel refuses them.
    TooManyDestinations,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash => f.write_str("hash"),
            Self::Ipvs(why) => write!(f, "ipvs ({why})"),
        }
    }
}

impl fmt::Display for WhyIpvs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "hash plane is off",
            Self::Leads(to) => return write!(f, "sockets are sent to {to}"),
            Self::Protocol(protocol) => return write!(f, "{protocol} is IPVS's"),
            Self::Scheduler(scheduler) => return write!(f, "scheduler {scheduler} is IPVS's"),
            Self::Persistent => "persistence is IPVS's",
            Self::Masq => "masq needs the replies",
            Self::MixedForwarding => "some destinations are masq, which needs the replies",
            Self::Thresholds => "counting connections is IPVS's",
            Self::LocalDestination => "a destination is on this host",
            Self::NoDestinations => "no destinations",
            Self::Refused => "refusing is nft's",
            Self::Dropped => "dropping is nft's",
            Self::SourceRanges => "source ranges are nft's",
            Self::Inside => "telling who is inside is nft's",
            Self::NoTable => "mh of this kernel cannot be foretold",
            Self::TooManyDestinations => "more destinations than slots",
        })
    }
}

/// Returns which plane serves the server, by what it is: what its destinations' next hops are, and
/// where XDP runs, is another question.
pub fn plane(server: &DesiredServer, offer: HashPlane) -> Plane {
    let why = offered(server, offer)
        .or_else(|| by_server(server))
        .or_else(|| by_destinations(server))
        .or_else(|| by_rules(server))
        .or_else(|| by_table(server, offer.size));
    why.map_or(Plane::Hash, Plane::Ipvs)
}

fn offered(server: &DesiredServer, offer: HashPlane) -> Option<WhyIpvs> {
    if !offer.on {
        return Some(WhyIpvs::Off);
    }
    server.leads_to.map(WhyIpvs::Leads)
}

fn by_server(server: &DesiredServer) -> Option<WhyIpvs> {
    let held = &server.virtual_server;
    match (held.frontend.protocol, held.scheduler) {
        (protocol @ Protocol::Sctp, _) => Some(WhyIpvs::Protocol(protocol)),
        (_, Scheduler::Mh) => (held.persistent_secs != 0).then_some(WhyIpvs::Persistent),
        (_, scheduler) => Some(WhyIpvs::Scheduler(scheduler)),
    }
}

fn by_destinations(server: &DesiredServer) -> Option<WhyIpvs> {
    let any = |wanted: fn(Forwarding) -> bool| {
        server.destinations.iter().any(|destination| wanted(destination.forwarding))
    };
    let masq = any(|forwarding| forwarding == Forwarding::Masq);
    let sent = any(|forwarding| matches!(forwarding, Forwarding::Route | Forwarding::Tunnel(_)));
    match (masq, sent) {
        (true, true) => Some(WhyIpvs::MixedForwarding),
        (true, false) => Some(WhyIpvs::Masq),
        _ if server.destinations.iter().any(|each| each.limits != Thresholds::default()) => {
            Some(WhyIpvs::Thresholds)
        }
        _ if any(|forwarding| forwarding == Forwarding::Local) => Some(WhyIpvs::LocalDestination),
        _ => None,
    }
}

/// Rules that masquerade do not matter: they are for replies that have to come back, and those of
/// what is sent on as it is do not.
fn by_rules(server: &DesiredServer) -> Option<WhyIpvs> {
    match server.admission {
        Admission::Serve => {}
        Admission::Drop => return Some(WhyIpvs::Dropped),
        Admission::Reject => return Some(WhyIpvs::Refused),
    }
    server.elements.iter().find_map(|element| match element {
        Element::Reject(_) => Some(WhyIpvs::Refused),
        Element::Drop(_) => Some(WhyIpvs::Dropped),
        Element::Ranged(_)
        | Element::RangedHost(_)
        | Element::Source(..)
        | Element::InterimSource(..) => Some(WhyIpvs::SourceRanges),
        Element::Inside(..) | Element::Shadow(_) => Some(WhyIpvs::Inside),
        Element::Vip(_)
        | Element::ClusterIp(_)
        | Element::Hairpin(_)
        | Element::Masquerade(_)
        | Element::PodCidr(_)
        | Element::ServiceCidr(_) => None,
    })
}

fn by_table(server: &DesiredServer, size: Option<Size>) -> Option<WhyIpvs> {
    let Some(size) = size else { return Some(WhyIpvs::NoTable) };
    let slots = usize::try_from(size.slots()).unwrap_or(usize::MAX);
    match server.destinations.iter().len() {
        0 => Some(WhyIpvs::NoDestinations),
        count if count > slots => Some(WhyIpvs::TooManyDestinations),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{
            Destination, DestinationKey, FastPath, SchedulerFlags, ServiceName, ServicePortName,
            Tunnel, VirtualServer,
        },
        plan::Origin,
    };

    const OFFER: HashPlane = HashPlane { on: true, size: Some(Size::DEFAULT) };
    const FRONTEND: Frontend = Frontend {
        addr: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)),
        port: 80,
        protocol: Protocol::Tcp,
    };

    fn server(ways: &[Forwarding]) -> DesiredServer {
        let destination = |(at, forwarding): (u8, &Forwarding)| {
            let key = DestinationKey { addr: [10, 1, 0, at].into(), port: 80 };
            Destination { limits: Default::default(), key, weight: 1, forwarding: *forwarding }
        };
        DesiredServer {
            virtual_server: VirtualServer {
                frontend: FRONTEND,
                scheduler: Scheduler::Mh,
                flags: SchedulerFlags::default(),
                persistent_secs: 0,
            },
            destinations: Arc::new((1..).zip(ways).map(destination).collect()),
            lingering: Arc::default(),
            cut: None,
            service: ServicePortName {
                service: ServiceName { namespace: "shop".into(), name: "web".into() },
                port: String::new(),
            },
            created_at: None,
            origin: Origin::LoadBalancerIp,
            admission: Admission::Serve,
            vip: true,
            fast_path: FastPath::Off,
            elements: vec![Element::Vip(FRONTEND.addr)],
            leads_to: None,
        }
    }

    fn direct() -> DesiredServer {
        server(&[Forwarding::Route, Forwarding::Route])
    }

    fn told(server: &DesiredServer) -> String {
        plane(server, OFFER).to_string()
    }

    #[test]
    fn mh_by_direct_routing_or_tunnel_is_the_hash_planes() {
        for forwarding in [
            Forwarding::Route,
            Forwarding::Tunnel(Tunnel::Ipip),
            Forwarding::Tunnel(Tunnel::Gue { port: 6080 }),
            Forwarding::Tunnel(Tunnel::Gre),
        ] {
            assert_eq!(plane(&server(&[forwarding]), OFFER), Plane::Hash);
        }
        let mixed = server(&[Forwarding::Route, Forwarding::Tunnel(Tunnel::Ipip)]);
        assert_eq!(told(&mixed), "hash");
        let mut udp = direct();
        udp.virtual_server.frontend.protocol = Protocol::Udp;
        assert_eq!(plane(&udp, OFFER), Plane::Hash);
    }

    #[test]
    fn nothing_is_the_hash_planes_that_nobody_asks_for() {
        let off = HashPlane { on: false, ..OFFER };
        assert_eq!(plane(&direct(), off).to_string(), "ipvs (hash plane is off)");
    }

    #[test]
    fn other_schedulers_and_persistence_and_sctp_stay_in_ipvs() {
        let with = |change: fn(&mut VirtualServer)| {
            let mut server = direct();
            change(&mut server.virtual_server);
            told(&server)
        };
        assert_eq!(
            with(|server| server.scheduler = Scheduler::Wrr),
            "ipvs (scheduler wrr is IPVS's)"
        );
        assert_eq!(with(|server| server.persistent_secs = 300), "ipvs (persistence is IPVS's)");
        assert_eq!(
            with(|server| server.frontend.protocol = Protocol::Sctp),
            "ipvs (SCTP is IPVS's)"
        );
    }

    #[test]
    fn what_needs_the_replies_stays_in_ipvs() {
        assert_eq!(told(&server(&[Forwarding::Masq])), "ipvs (masq needs the replies)");
        assert_eq!(
            plane(&server(&[Forwarding::Route, Forwarding::Masq]), OFFER),
            Plane::Ipvs(WhyIpvs::MixedForwarding)
        );
        assert_eq!(
            told(&server(&[Forwarding::Route, Forwarding::Local])),
            "ipvs (a destination is on this host)"
        );
    }

    #[test]
    fn what_nft_filters_stays_in_ipvs() {
        for (element, text) in [
            (Element::Ranged(FRONTEND), "ipvs (source ranges are nft's)"),
            (Element::RangedHost(FRONTEND), "ipvs (source ranges are nft's)"),
            (
                Element::Source(FRONTEND, "10.0.0.0/8".parse().unwrap()),
                "ipvs (source ranges are nft's)",
            ),
            (Element::Reject(FRONTEND), "ipvs (refusing is nft's)"),
            (Element::Drop(FRONTEND), "ipvs (dropping is nft's)"),
            (Element::Shadow(FRONTEND), "ipvs (telling who is inside is nft's)"),
            (
                Element::Inside(FRONTEND, [10, 96, 0, 1].into(), 80),
                "ipvs (telling who is inside is nft's)",
            ),
        ] {
            let mut server = direct();
            server.elements.push(element);
            assert_eq!(told(&server), text);
        }
        for (admission, why) in
            [(Admission::Drop, WhyIpvs::Dropped), (Admission::Reject, WhyIpvs::Refused)]
        {
            let server = DesiredServer { admission, ..direct() };
            assert_eq!(plane(&server, OFFER), Plane::Ipvs(why));
        }
    }

    #[test]
    fn masquerade_rules_do_not_matter_to_what_is_sent_on_as_it_is() {
        let mut server = direct();
        server.elements.extend([
            Element::ClusterIp(FRONTEND.addr),
            Element::Masquerade(FRONTEND),
            Element::Hairpin([10, 1, 0, 1].into()),
        ]);
        assert_eq!(plane(&server, OFFER), Plane::Hash);
    }

    #[test]
    fn a_table_that_cannot_be_foretold_is_the_kernels() {
        let unknown = HashPlane { size: None, ..OFFER };
        assert_eq!(plane(&direct(), unknown), Plane::Ipvs(WhyIpvs::NoTable));
        let smallest = HashPlane { size: Size::of_index(Size::LEAST_INDEX), ..OFFER };
        let fits = vec![Forwarding::Route; 251];
        assert_eq!(plane(&server(&fits), smallest), Plane::Hash);
        let mut too_many = direct();
        too_many.destinations = Arc::new(
            (0..252u32)
                .map(|at| Destination {
                    limits: Default::default(),
                    key: DestinationKey {
                        addr: std::net::Ipv4Addr::from(0x0a01_0000 + at).into(),
                        port: 80,
                    },
                    weight: 1,
                    forwarding: Forwarding::Route,
                })
                .collect(),
        );
        assert_eq!(plane(&too_many, smallest), Plane::Ipvs(WhyIpvs::TooManyDestinations));
        assert_eq!(plane(&server(&[]), OFFER), Plane::Ipvs(WhyIpvs::NoDestinations));
    }

    #[test]
    fn what_only_leads_elsewhere_has_no_plane_of_its_own() {
        let server = DesiredServer { leads_to: Some(FRONTEND), ..direct() };
        assert_eq!(told(&server), "ipvs (sockets are sent to 192.0.2.10:80/TCP)");
    }
}
