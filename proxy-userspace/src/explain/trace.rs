//! The way of one packet, step by step.

use std::net::SocketAddr;

use proxy_common::reason::Reason;
use serde::Serialize;

use super::{
    admission::{self, Decision, is_host_process},
    choice::{self, Choice},
    direction::{Direction, Standing, matching, reverse, standing, why},
    dump::{Dump, Flow, Maps, Server},
    masquerade,
    packet::Packet,
};
use crate::model::Frontend;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is translated and goes to a backend, or back to a client.
    Forwarded,
    /// It is dropped, and nobody is told.
    Dropped,
    /// It is refused, and the sender is told.
    Refused,
    /// It is to no Service: the kernel treats it as any other.
    NotService,
}

/// Who carries it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// BPF, past netfilter, conntrack and IPVS.
    Fast,
    /// The kernel.
    Slow,
}

/// Why a backend gets it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// IPVS has the connection.
    Connection,
    /// IPVS has sent the client there before.
    Affinity,
    /// The scheduler would choose.
    Scheduler,
    /// The flow entry of a reply says so.
    Flow,
    /// No destination takes it.
    Nobody,
}

/// One step of the way, in words.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Step {
    /// What it is about.
    pub topic: &'static str,
    /// What happens.
    pub says: String,
}

/// The way of a packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// The packet.
    pub packet: Packet,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What it dialled, or what its connection was dialled at.
    pub frontend: Option<String>,
    /// The Service port.
    pub service: Option<String>,
    /// Where it goes, or comes from; absent when the scheduler decides and cannot be foreseen.
    pub backend: Option<SocketAddr>,
    /// Why that one.
    pub chosen_by: Option<Chosen>,
    /// Which ones could be chosen.
    pub candidates: Vec<SocketAddr>,
    /// Whether the backend sees an address of the node; absent when that depends on the choice.
    pub masqueraded: Option<bool>,
    /// Who carries it; absent when it goes nowhere.
    pub plane: Option<Plane>,
    /// What it is counted under in `passlane stats`; absent when it never meets the datapath.
    pub reason: Option<&'static str>,
    /// What is known of both directions.
    pub directions: Vec<Direction>,
    /// The same in words.
    pub steps: Vec<Step>,
}

/// Says what becomes of a packet.
pub fn trace(dump: &Dump, packet: &Packet) -> Trace {
    let mut trace = Trace::of(packet);
    trace.say("Packet", packet.to_string());
    if dump.table.as_ref().is_some_and(|table| !table.whole) {
        trace.say("Doubt", "table inet passlane holds what another hand or version wrote");
    }
    if let Some(server) = dump.server(&packet.dials()) {
        trace.request(dump, server);
    } else if !trace.reply(dump) {
        trace.unserved(dump);
    }
    trace
}

impl Trace {
    fn of(packet: &Packet) -> Self {
        Self {
            packet: packet.clone(),
            verdict: Verdict::NotService,
            frontend: None,
            service: None,
            backend: None,
            chosen_by: None,
            candidates: Vec::new(),
            masqueraded: None,
            plane: None,
            reason: None,
            directions: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn say(&mut self, topic: &'static str, says: impl Into<String>) {
        self.steps.push(Step { topic, says: says.into() });
    }

    /// From a client to what IPVS serves.
    fn request(&mut self, dump: &Dump, server: &Server) {
        let packet = self.packet.clone();
        let dialled = server.virtual_server.frontend;
        self.name(dump, &dialled);
        let Some(choice) = self.choose(dump, &packet, server) else { return };
        self.say("Backend", choice.words);
        self.backend = choice.backend;
        self.chosen_by = Some(choice.by);
        self.candidates = choice.candidates;
        if choice.by == Chosen::Nobody {
            self.verdict = Verdict::Refused;
            return;
        }
        self.verdict = Verdict::Forwarded;
        let verdict = masquerade::judge(dump, &packet, &dialled, self.backend, &self.candidates);
        self.masqueraded = verdict.masqueraded;
        self.say("Masquerade", verdict.words);
        self.carried(dump, &dialled);
    }

    fn name(&mut self, dump: &Dump, dialled: &Frontend) {
        self.frontend = Some(dialled.to_string());
        self.service = dump.service_of(dialled).map(str::to_owned);
        let words = match &self.service {
            Some(service) => format!("{dialled} of Service {service}"),
            None => format!("{dialled}, a virtual server that somebody else made"),
        };
        self.say("Frontend", words);
    }

    /// Asks the rules, then IPVS; `None` when the packet got no further.
    fn choose(&mut self, dump: &Dump, packet: &Packet, server: &Server) -> Option<Choice> {
        let dialled = server.virtual_server.frontend;
        if let Some(connection) = choice::connection(dump, packet.source, &dialled) {
            self.say("Admission", "the connection was let in when it began");
            return Some(choice::held(connection));
        }
        let admission = admission::judge(dump, packet);
        self.say("Admission", admission.words);
        let target = match admission.decision {
            Decision::Served => server,
            Decision::Redirected(to) => {
                if let Some(connection) = choice::connection(dump, packet.source, &to) {
                    return Some(choice::held(connection));
                }
                let Some(target) = dump.server(&to) else {
                    self.verdict = Verdict::Refused;
                    self.say("Backend", format!("none: IPVS has no virtual server {to}"));
                    return None;
                };
                target
            }
            Decision::Dropped => {
                self.verdict = Verdict::Dropped;
                return None;
            }
            Decision::Refused => {
                self.verdict = Verdict::Refused;
                return None;
            }
        };
        Some(choice::fresh(dump, target, packet.source))
    }

    /// From a backend to a client; false when it is no such packet.
    fn reply(&mut self, dump: &Dump) -> bool {
        let packet = self.packet.clone();
        let entry = dump
            .maps
            .as_ref()
            .and_then(|maps| entries(dump, maps, &packet).find(|flow| flow.reply));
        let held =
            choice::connection_of_reply(dump, packet.protocol, packet.source, packet.destination);
        let (frontend, client, by) = match (held, entry) {
            (Some(held), _) => (held.frontend, held.client, Chosen::Connection),
            (None, Some(flow)) => {
                let (addr, port) = (flow.new_source.ip(), flow.new_source.port());
                let frontend = Frontend { addr, port, protocol: flow.protocol };
                (frontend, flow.new_destination, Chosen::Flow)
            }
            (None, None) => return false,
        };
        self.name(dump, &frontend);
        self.verdict = Verdict::Forwarded;
        self.backend = Some(packet.source);
        self.chosen_by = Some(by);
        self.candidates = vec![packet.source];
        let known = match by {
            Chosen::Connection => "IPVS has the connection",
            _ => "the flow entry says so",
        };
        self.say(
            "Reply",
            format!(
                "from backend {} to client {client}, as {known}; the client sees {} as sender",
                packet.source,
                SocketAddr::new(frontend.addr, frontend.port)
            ),
        );
        self.carried(dump, &frontend);
        true
    }

    /// To what IPVS does not serve.
    fn unserved(&mut self, dump: &Dump) {
        let packet = self.packet.clone();
        let dialled = packet.dials();
        if let Some(admission) = admission::guard(dump, &packet) {
            self.say("Frontend", format!("none: IPVS has no virtual server {dialled}"));
            self.say("Admission", admission.words);
            self.verdict = match admission.decision {
                Decision::Dropped => Verdict::Dropped,
                _ => Verdict::Refused,
            };
            return;
        }
        let from = SocketAddr::new(packet.source.ip(), packet.source.port());
        let of = dump.servers.iter().find(|server| {
            server.virtual_server.frontend.protocol == packet.protocol
                && server.destinations.iter().any(|target| {
                    let key = target.destination.key;
                    SocketAddr::new(key.addr, key.port) == from
                })
        });
        let words = match of {
            Some(server) => format!(
                "none: the sender is a backend of {}, and IPVS has no connection of it with {}",
                server.service.as_deref().unwrap_or("a foreign virtual server"),
                packet.destination
            ),
            None => format!("none: {dialled} is no frontend of a Service"),
        };
        self.say("Frontend", words);
        self.say("Path", "the kernel routes it as any other packet");
    }

    /// Which plane carries it, and what is known of both directions.
    fn carried(&mut self, dump: &Dump, frontend: &Frontend) {
        let packet = self.packet.clone();
        let entry = dump.maps.as_ref().and_then(|maps| entries(dump, maps, &packet).next());
        let (plane, reason, words) = path(dump, &packet, frontend, entry);
        self.plane = Some(plane);
        self.reason = reason.map(Reason::name);
        self.say("Path", words);
        let Some(maps) = dump.maps.as_ref().filter(|_| !is_host_process(dump, &packet)) else {
            return;
        };
        let back = entry.and_then(|flow| reverse(maps, flow));
        let is_reply = dump.server(&packet.dials()).is_none();
        let (request, reply) = if is_reply { (back, entry) } else { (entry, back) };
        for (topic, flow, reply) in [("Request", request, false), ("Reply", reply, true)] {
            let direction = Direction::new(dump, maps, flow, reply);
            let topic = if topic == "Reply" { "Way back" } else { "Way there" };
            self.say(topic, direction.words(dump));
            self.directions.push(direction);
        }
    }
}

/// The entries that a packet would meet: one an interface that it may come in by.
fn entries<'a>(
    dump: &Dump,
    maps: &'a Maps,
    packet: &Packet,
) -> impl Iterator<Item = &'a Flow> + use<'a> {
    let index = packet.interface.as_ref().map(|name| {
        let found = dump.interfaces.iter().find(|interface| interface.name == *name);
        found.map_or(0, |interface| interface.index)
    });
    let packet = packet.clone();
    matching(maps, move |flow| {
        flow.protocol == packet.protocol
            && flow.source == packet.source
            && flow.destination == packet.destination
            && index.is_none_or(|index| flow.interface == index)
    })
}

fn slow(reason: Option<Reason>, words: impl Into<String>) -> (Plane, Option<Reason>, String) {
    let words: String = words.into();
    (Plane::Slow, reason, format!("slow, by the kernel: {words}"))
}

/// Asks in the order of the datapath: does a program see the packet, does it know the Service, is
/// there an entry, does that hold.
fn path(
    dump: &Dump,
    packet: &Packet,
    frontend: &Frontend,
    entry: Option<&Flow>,
) -> (Plane, Option<Reason>, String) {
    if is_host_process(dump, packet) {
        return slow(None, "packets of the node's own processes come in by no interface");
    }
    let because =
        |reason: &str| if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let fast_path = &dump.fast_path;
    if fast_path.mode == "off" {
        return slow(None, format!("the fast path is off{}", because(&fast_path.reason)));
    }
    let Some(maps) = &dump.maps else {
        return slow(None, "this node has no fast path: its maps are not there");
    };
    let name =
        packet.interface.clone().or_else(|| entry.map(|flow| dump.interface_name(flow.interface)));
    let interface = dump.interfaces.iter().find(|known| Some(&known.name) == name.as_ref());
    if let Some(interface) = interface.filter(|known| known.mode.as_deref() == Some("off")) {
        let words =
            format!("the fast path is off on {}{}", interface.name, because(&interface.reason));
        return slow(None, words);
    }
    match maps.frontends.iter().find(|known| known.frontend == *frontend) {
        None => {
            let words = "the datapath does not know the frontend: its map is full, or it is somebody else's";
            return slow(Some(Reason::NotService), words);
        }
        Some(known) if !known.learn => {
            let words = "flows of this frontend are not learned: SCTP, a forwarding method other than masq, or annotation passlane.io/fast-path";
            return slow(Some(Reason::NoFlow), words);
        }
        Some(_) => {}
    }
    let Some(flow) = entry else { return slow(Some(Reason::NoFlow), why(Reason::NoFlow)) };
    let standing = standing(dump, maps, flow);
    match standing.reason {
        Reason::Hit if fast_path.mode == "observe" => slow(
            Some(Reason::Observed),
            format!(
                "it would be fast, but the fast path only observes{}",
                because(&fast_path.reason)
            ),
        ),
        Reason::Hit if flow.observed => slow(
            Some(Reason::Observed),
            "it would be fast, but an interface of its way or its Service is in mode observe",
        ),
        Reason::Hit => (Plane::Fast, Some(Reason::Hit), fast(dump, flow, &standing)),
        reason => slow(Some(reason), why(reason)),
    }
}

fn fast(dump: &Dump, flow: &Flow, standing: &Standing) -> String {
    let out = dump.interface_name(flow.out_interface);
    let way = if flow.peer { "into the pod behind" } else { "out by" };
    let renewal = match (standing.age_ms, dump.fast_path.lease) {
        (Some(age), Some(lease)) if age >= lease.soft_ms => {
            "; one packet a moment takes the kernel's path to renew the lease"
        }
        _ => "",
    };
    format!(
        "fast, rewritten and redirected {way} {out}; slow are SYN, FIN and RST, fragments, packets \
         above {} bytes or of TTL 1{renewal}",
        flow.mtu
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{CLIENT, VIP, WEB_A, node, packet},
        *,
    };

    #[test]
    fn as_json_it_says_the_same_for_programs() {
        let json = serde_json::to_value(trace(&node(), &packet(CLIENT, VIP))).unwrap();
        assert_eq!(json["verdict"], "forwarded");
        assert_eq!(json["chosen_by"], "connection");
        assert_eq!(json["plane"], "fast");
        assert_eq!(json["backend"], WEB_A);
        assert_eq!(json["directions"][0]["standing"]["reason"], "hit");
        assert_eq!(json["directions"][0]["standing"]["left_ms"], 4000);
        assert_eq!(json["steps"][1]["topic"], "Frontend");
    }

    #[test]
    fn a_dump_from_a_file_gives_the_same_words() {
        let dump = node();
        let read: Dump = serde_json::from_str(&serde_json::to_string(&dump).unwrap()).unwrap();
        assert_eq!(read, dump);
        for asked in [packet(CLIENT, VIP), packet(WEB_A, CLIENT), packet("10.1.1.32:1", VIP)] {
            assert_eq!(trace(&read, &asked), trace(&dump, &asked));
        }
    }
}
