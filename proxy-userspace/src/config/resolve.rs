//! Defaults, then the file, then the flags: one result, and a word on every field that was set.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{
    ConfigFile, FieldReport, RunFlags, Settings, Verdict,
    duration::GoDuration,
    fields::{self, Draft, Field, LocalMode, Role},
    problem::{Error, Fault, Problem},
    settings::{DetectLocal, HEALTHZ_PORT, METRICS_PORT},
    tree::{Node, Value},
};

/// IPVS and conntrack may give the ports of a connection to another one 10 s after its end (state
/// CLOSE): a lease must be over by then.
const LEASE_LIMIT: Duration = Duration::from_secs(10);

impl Settings {
    /// Merges defaults, file and flags; flags win. Reads the file that `--config` names.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with either.
    pub fn load(flags: &RunFlags) -> Result<(Self, Vec<FieldReport>), Error> {
        let file = flags.config.as_deref().map(ConfigFile::read).transpose()?;
        Self::resolve(flags, file.as_ref())
    }

    /// Merges defaults, file and flags; flags win. The reports are in the order of the table of
    /// fields, those of the file first.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with either, and with the two together.
    pub fn resolve(
        flags: &RunFlags,
        file: Option<&ConfigFile>,
    ) -> Result<(Self, Vec<FieldReport>), Error> {
        let mut merge =
            Merge { draft: Draft::default(), reports: Vec::new(), problems: Vec::new() };
        if let Some(file) = file {
            for field in fields::all().filter(|field| !field.path.is_empty()) {
                if let Some(node) = file.get(field.path) {
                    let overruled = flags.given.get(field.flag).is_some();
                    merge.take_from_file(field, file.place(node), node, overruled);
                }
            }
        }
        for field in fields::all() {
            if let Some(text) = flags.given.get(field.flag) {
                merge.take_from_flag(field, text);
            }
        }
        let Merge { draft, mut reports, mut problems } = merge;
        let places = Places { flags, file };
        let settings = finish(draft, &places, &mut reports, &mut problems);
        if problems.is_empty() { Ok((settings, reports)) } else { Err(Error { problems }) }
    }

    /// Returns path, value and flag of every field that is used.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, Value, &'static str)> {
        let in_both = |field: &&Field| !field.path.is_empty() && !field.flag.is_empty();
        fields::all().filter(in_both).filter_map(|field| match field.role {
            Role::Used { get, .. } => Some((field.path, get(self), field.flag)),
            _ => None,
        })
    }

    /// Returns the configuration as a file that gives these settings again.
    pub fn to_value(&self) -> Value {
        let mut root = Vec::new();
        put(&mut root, "apiVersion", Value::Text("kubeproxy.config.k8s.io/v1alpha1".into()));
        put(&mut root, "kind", Value::Text("KubeProxyConfiguration".into()));
        for (path, value, _) in self.fields().filter(|(_, value, _)| *value != Value::Null) {
            put(&mut root, path, value);
        }
        Value::Map(root)
    }
}

/// Puts a value at its path, making the sections on the way.
fn put(entries: &mut Vec<(Node, Node)>, path: &str, value: Value) {
    let Some((section, rest)) = path.split_once('.') else {
        entries.push((Node::new(Value::Text(path.to_owned())), Node::new(value)));
        return;
    };
    let named = |(key, _): &(Node, Node)| key.value == Value::Text(section.to_owned());
    let at = entries.iter().position(named).unwrap_or_else(|| {
        let key = Node::new(Value::Text(section.to_owned()));
        entries.push((key, Node::new(Value::Map(Vec::new()))));
        entries.len() - 1
    });
    if let Some((_, Node { value: Value::Map(entries), .. })) = entries.get_mut(at) {
        put(entries, rest, value);
    }
}

struct Merge {
    draft: Draft,
    reports: Vec<FieldReport>,
    problems: Vec<Problem>,
}

impl Merge {
    fn take_from_file(&mut self, field: &Field, place: String, node: &Node, overruled: bool) {
        let verdict = match (&field.role, &node.value) {
            // As Go does: what is empty says nothing.
            (_, Value::Null) => Verdict::Unset,
            (_, Value::Text(text)) if text.is_empty() => Verdict::Unset,
            (Role::Used { set, .. }, value) => match set(&mut self.draft, value) {
                Ok(Verdict::Ignored(_)) if says_nothing(value) => Verdict::Unset,
                Ok(_) if overruled => Verdict::Ignored("the flag wins"),
                Ok(verdict) => verdict,
                Err(fault) => {
                    self.problems.push(Problem::of(place, field.path, fault));
                    return;
                }
            },
            (_, value) if says_nothing(value) => Verdict::Unset,
            (Role::Ignored(reason), _) => Verdict::Ignored(reason),
            (Role::Unsupported(reason), _) => Verdict::Unsupported(reason),
            (Role::Refused(cure), _) => {
                self.problems.push(Problem::of(place, field.path, Fault::Refused { cure }));
                return;
            }
        };
        let (field, value) = (field.path.to_owned(), node.value.to_string());
        self.reports.push(FieldReport { field, value, place, verdict });
    }

    fn take_from_flag(&mut self, field: &Field, text: &str) {
        let place = format!("--{}", field.flag);
        let verdict = match &field.role {
            Role::Used { set, .. } => match set(&mut self.draft, &field.shape.value(text)) {
                Ok(verdict) => verdict,
                Err(fault) => {
                    self.problems.push(Problem::of(place, "", fault));
                    return;
                }
            },
            Role::Ignored(reason) => Verdict::Ignored(reason),
            Role::Unsupported(reason) => Verdict::Unsupported(reason),
            Role::Refused(_) if text == "false" => Verdict::Unset,
            Role::Refused(cure) => {
                self.problems.push(Problem::of(place, "", Fault::Refused { cure }));
                return;
            }
        };
        let value = text.to_owned();
        self.reports.push(FieldReport { field: place.clone(), value, place, verdict });
    }
}

/// Says whether a value of a field that is not used is the one it has without being set.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Flag(flag) => !flag,
        Value::Whole(number) => *number == 0,
        Value::Fraction(number) => *number == 0.0,
        Value::Text(text) => {
            text.is_empty() || text.parse::<GoDuration>().is_ok_and(|time| time.0.is_zero())
        }
        Value::List(nodes) => nodes.is_empty(),
        Value::Map(entries) => entries.iter().all(|(_, node)| says_nothing(&node.value)),
    }
}

/// Where a field was set, for messages.
struct Places<'a> {
    flags: &'a RunFlags,
    file: Option<&'a ConfigFile>,
}

impl Places<'_> {
    /// Returns a problem with a field that was set somewhere, or not at all.
    fn problem(&self, path: &str, fault: Fault) -> Problem {
        let flag = fields::all().find(|field| field.path == path).map_or("", |field| field.flag);
        match (self.flags.given.get(flag), self.file) {
            (Some(_), _) => Problem::of(format!("--{flag}"), "", fault),
            (None, Some(file)) if file.get(path).is_some() => {
                Problem::of(file.place_of(path), path, fault)
            }
            (None, _) => Problem::of("", path, fault),
        }
    }
}

/// Decides what depends on several fields, and checks what one field alone cannot say.
fn finish(
    draft: Draft,
    places: &Places<'_>,
    reports: &mut [FieldReport],
    problems: &mut Vec<Problem>,
) -> Settings {
    let (detect_local, complaint) = detect_local(&draft);
    let Draft { mut settings, healthz, metrics, local_mode, .. } = draft;
    settings.detect_local = detect_local;
    let six = settings.bind_address.is_some_and(|addr| addr.is_ipv6());
    let (all, loopback): (IpAddr, IpAddr) = if six {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into())
    } else {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into())
    };
    // 0.0.0.0 and :: say no more than the family.
    settings.bind_address = settings.bind_address.filter(|addr| !addr.is_unspecified());
    settings.healthz_bind_address = healthz.resolve(all, HEALTHZ_PORT);
    settings.metrics_bind_address = metrics.resolve(loopback, METRICS_PORT);
    if let Some(fault) = complaint {
        problems.push(places.problem("detectLocalMode", fault));
    }
    if local_mode == Some(LocalMode::ClusterCidr) && settings.detect_local == DetectLocal::None {
        let mut told = reports.iter_mut().filter(|report| report.verdict == Verdict::Used);
        let of_mode = |field: &str| ["detectLocalMode", "--detect-local-mode"].contains(&field);
        if let Some(report) = told.find(|report| of_mode(&report.field)) {
            report.verdict =
                Verdict::Ignored("clusterCIDR is not set; no traffic counts as a Pod's");
        }
    }
    let checks = [leases(&settings), periods(&settings), ranges(&settings), servers(&settings)];
    let found = checks.into_iter().flatten();
    problems.extend(found.map(|(path, fault)| places.problem(path, fault)));
    settings
}

/// Chooses how local traffic is told, and says what is missing for it.
fn detect_local(draft: &Draft) -> (DetectLocal, Option<Fault>) {
    let missing = |because, missing| Some(Fault::Missing { because, missing });
    let cidrs = &draft.settings.cluster_cidrs;
    match draft.local_mode {
        None | Some(LocalMode::ClusterCidr) if cidrs.is_empty() => (DetectLocal::None, None),
        None | Some(LocalMode::ClusterCidr) => (DetectLocal::ClusterCidr(cidrs.clone()), None),
        Some(LocalMode::NodeCidr) => (DetectLocal::NodeCidr, None),
        Some(LocalMode::BridgeInterface) if draft.bridge.is_empty() => (
            DetectLocal::None,
            missing(
                "BridgeInterface needs the bridge's name",
                "detectLocal.bridgeInterface (--pod-bridge-interface)",
            ),
        ),
        Some(LocalMode::BridgeInterface) => {
            (DetectLocal::BridgeInterface(draft.bridge.clone()), None)
        }
        Some(LocalMode::InterfaceNamePrefix) if draft.prefix.is_empty() => (
            DetectLocal::None,
            missing(
                "InterfaceNamePrefix needs the prefix",
                "detectLocal.interfaceNamePrefix (--pod-interface-name-prefix)",
            ),
        ),
        Some(LocalMode::InterfaceNamePrefix) => {
            (DetectLocal::InterfacePrefix(draft.prefix.clone()), None)
        }
    }
}

type Complaint = Option<(&'static str, Fault)>;

fn leases(settings: &Settings) -> Complaint {
    let text = |duration| GoDuration(duration).to_string();
    let conflict = |path, found, other, cure| {
        Some((path, Fault::Conflict { found: text(found), other, cure }))
    };
    if settings.hard_lease >= LEASE_LIMIT {
        let other = format!("the limit of {}", text(LEASE_LIMIT));
        let cure = "write less: then IPVS may give a closed connection's ports to another one";
        return conflict("passlane.hardLease", settings.hard_lease, other, cure);
    }
    if settings.soft_lease >= settings.hard_lease {
        let other = format!("passlane.hardLease {}", text(settings.hard_lease));
        let cure = "write less than that";
        return conflict("passlane.softLease", settings.soft_lease, other, cure);
    }
    None
}

fn periods(settings: &Settings) -> Complaint {
    (settings.min_sync_period > settings.sync_period).then(|| {
        let found = GoDuration(settings.min_sync_period).to_string();
        let other = format!("ipvs.syncPeriod {}", GoDuration(settings.sync_period));
        let cure = "write no more than that";
        ("ipvs.minSyncPeriod", Fault::Conflict { found, other, cure })
    })
}

fn ranges(settings: &Settings) -> Complaint {
    let cidrs = &settings.cluster_cidrs;
    let six = cidrs.iter().filter(|cidr| cidr.network().is_ipv6()).count();
    if six > 1 || cidrs.len() - six > 1 {
        let found = cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let expected = "one range, or an IPv4 and an IPv6 one separated by a comma";
        return Some(("clusterCIDR", Fault::UnknownValue { found, expected }));
    }
    let external = &settings.external_ips;
    (!external.enabled && !external.cidrs.is_empty()).then(|| {
        let other = "passlane.externalIPs.enabled false".to_owned();
        let found = Value::texts(&external.cidrs).to_string();
        let cure = "write enabled: true, or remove the ranges";
        ("passlane.externalIPs.cidrs", Fault::Conflict { found, other, cure })
    })
}

fn servers(settings: &Settings) -> Complaint {
    let (healthz, metrics) = (settings.healthz_bind_address?, settings.metrics_bind_address?);
    let (one, other) = (healthz.ip(), metrics.ip());
    let overlap = one == other || one.is_unspecified() || other.is_unspecified();
    (overlap && healthz.port() == metrics.port()).then(|| {
        let found = metrics.to_string();
        let other = format!("healthzBindAddress {healthz}");
        ("metricsBindAddress", Fault::Conflict { found, other, cure: "write another port" })
    })
}
