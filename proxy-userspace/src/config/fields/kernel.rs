//! IPVS, conntrack and this process, as the kernel sees them.

use std::time::Duration;

use super::{
    Field,
    Shape::{Flag, List, Number, Text, Time},
    USED, shown, used,
};
use crate::config::{
    duration::GoDuration,
    problem::Fault,
    settings::Settings,
    tree::Value,
    values::{cidrs, flag, scheduler, scheduler_text, text, time, timeout, whole},
};

pub(super) const FIELDS: &[Field] = &[
    used(
        ("ipvs.scheduler", "ipvs-scheduler"),
        Text,
        "Scheduler of Services without the annotation passlane.io/scheduler, with its flags, such \
         as mh,mh-port [default: rr]",
        |draft, value| {
            draft.settings.scheduler = scheduler(text(value)?)?;
            USED
        },
        |settings| shown(scheduler_text(settings.scheduler)),
    ),
    used(
        ("ipvs.excludeCIDRs", "ipvs-exclude-cidrs"),
        List,
        "Virtual servers of addresses in these ranges are somebody else's",
        |draft, value| {
            draft.settings.exclude_cidrs = cidrs(value)?;
            USED
        },
        |settings| Value::texts(&settings.exclude_cidrs),
    ),
    used(
        ("ipvs.strictARP", "ipvs-strict-arp"),
        Flag,
        "Set arp_ignore to 1 and arp_announce to 2",
        |draft, value| {
            draft.settings.strict_arp = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.strict_arp),
    ),
    used(
        ("ipvs.tcpTimeout", "ipvs-tcp-timeout"),
        Time,
        "IPVS's timeout of established TCP; 0 leaves it as it is",
        |draft, value| {
            draft.settings.ipvs_timeouts.tcp = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.ipvs_timeouts.tcp),
    ),
    used(
        ("ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout"),
        Time,
        "IPVS's timeout of TCP after a FIN; 0 leaves it as it is",
        |draft, value| {
            draft.settings.ipvs_timeouts.tcp_fin = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.ipvs_timeouts.tcp_fin),
    ),
    used(
        ("ipvs.udpTimeout", "ipvs-udp-timeout"),
        Time,
        "IPVS's timeout of UDP; 0 leaves it as it is",
        |draft, value| {
            draft.settings.ipvs_timeouts.udp = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.ipvs_timeouts.udp),
    ),
    used(
        ("ipvs.syncPeriod", "ipvs-sync-period"),
        Time,
        "Time between full comparisons of what should be and what is [default: 30s]",
        |draft, value| {
            // kube-proxy takes 0s, which kubeadm writes, for the default.
            let period = time(value)?;
            let default = Settings::default().sync_period;
            draft.settings.sync_period = if period.is_zero() { default } else { period };
            USED
        },
        |settings| shown(GoDuration(settings.sync_period)),
    ),
    used(
        ("ipvs.minSyncPeriod", "ipvs-min-sync-period"),
        Time,
        "The least time between two changes of the kernel [default: 0s]",
        |draft, value| {
            draft.settings.min_sync_period = time(value)?;
            USED
        },
        |settings| shown(GoDuration(settings.min_sync_period)),
    ),
    used(
        ("conntrack.maxPerCore", "conntrack-max-per-core"),
        Number,
        "Entries of conntrack for each CPU; 0 leaves the limit as it is [default: 32768]",
        |draft, value| {
            let max = entries(value)?;
            draft.settings.conntrack.max_per_core = (max > 0).then_some(max);
            USED
        },
        |settings| Value::Whole(settings.conntrack.max_per_core.unwrap_or(0).into()),
    ),
    used(
        ("conntrack.min", "conntrack-min"),
        Number,
        "Entries of conntrack at least [default: 131072]",
        |draft, value| {
            draft.settings.conntrack.min = entries(value)?;
            USED
        },
        |settings| Value::Whole(settings.conntrack.min.into()),
    ),
    used(
        ("conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established"),
        Time,
        "conntrack's timeout of established TCP; 0 leaves it as it is [default: 24h]",
        |draft, value| {
            draft.settings.conntrack.tcp_established = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.conntrack.tcp_established),
    ),
    used(
        ("conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait"),
        Time,
        "conntrack's timeout of TCP in CLOSE_WAIT; 0 leaves it as it is [default: 1h]",
        |draft, value| {
            draft.settings.conntrack.tcp_close_wait = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.conntrack.tcp_close_wait),
    ),
    used(
        ("conntrack.tcpBeLiberal", "conntrack-tcp-be-liberal"),
        Flag,
        "Set nf_conntrack_tcp_be_liberal to 1; the fast path needs it and sets it by itself",
        |draft, value| {
            draft.settings.conntrack.tcp_be_liberal = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.conntrack.tcp_be_liberal),
    ),
    used(
        ("conntrack.udpTimeout", "conntrack-udp-timeout"),
        Time,
        "conntrack's timeout of UDP without a reply; 0 leaves it as it is",
        |draft, value| {
            draft.settings.conntrack.udp = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.conntrack.udp),
    ),
    used(
        ("conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream"),
        Time,
        "conntrack's timeout of UDP with replies; 0 leaves it as it is",
        |draft, value| {
            draft.settings.conntrack.udp_stream = timeout(value)?;
            USED
        },
        |settings| left_alone_or(settings.conntrack.udp_stream),
    ),
    used(
        ("oomScoreAdj", "oom-score-adj"),
        Number,
        "For the kernel's out-of-memory killer, -1000 to 1000 [default: -999]",
        |draft, value| {
            draft.settings.oom_score_adj = whole(value, -1000..=1000)?;
            USED
        },
        |settings| Value::Whole(settings.oom_score_adj.into()),
    ),
    used(
        ("", "init-only"),
        Flag,
        "Load modules, mount the bpffs and set sysctls, and end: passlane run then needs no more than \
         CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON",
        |draft, value| {
            draft.settings.init_only = flag(value)?;
            USED
        },
        |_| Value::Null,
    ),
];

/// kube-proxy has these in an `int32`.
fn entries(value: &Value) -> Result<u32, Fault> {
    whole(value, 0..=i32::MAX.unsigned_abs())
}

fn left_alone_or(timeout: Option<Duration>) -> Value {
    shown(GoDuration(timeout.unwrap_or_default()))
}
