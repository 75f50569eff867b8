//! Two looks make rates. Pure.

use proxy_common::reason::{Class, Reason};
use serde::Serialize;

use super::sample::{Carried, Drift, Sample};
use crate::audit::traffic::Traffic;

/// Everything that a frame shows.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rates {
    /// An agent runs.
    pub(super) running: bool,
    /// Its process id.
    pub(super) pid: Option<u32>,
    /// It is ready.
    pub(super) ready: bool,
    /// `on`, `observe` or `off`.
    pub(super) fast_path: String,
    /// Services with forwarding state.
    pub(super) services: usize,
    /// Frontends that are served.
    pub(super) frontends: usize,
    /// Seconds between the two looks.
    pub(super) over_secs: f64,
    /// Of all Services.
    pub(super) total: Rate,
    /// Of the packets of known Services, those on the fast path; absent without any.
    pub(super) fast_share: Option<f64>,
    /// Packets of new connections a second that our rules dropped.
    pub(super) dropped: f64,
    /// Packets of new connections a second that our rules rejected.
    pub(super) rejected: f64,
    /// Packets a second by reason: only those that there were.
    pub(super) reasons: Vec<ReasonRate>,
    /// Where ledger, IPVS and maps differ.
    pub(super) drift: Drift,
    /// What goes wrong, a sentence each.
    pub(super) troubles: Vec<String>,
    /// By Service port.
    pub(super) items: Vec<ServiceRate>,
}

/// What is carried, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    /// Both directions, both planes.
    pub(super) packets: f64,
    /// Those of the fast path.
    pub(super) fast_packets: f64,
    /// From clients.
    pub(super) in_bytes: f64,
    /// To clients.
    pub(super) out_bytes: f64,
    /// New ones.
    pub(super) connections: f64,
}

/// Packets of a reason, a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ReasonRate {
    pub(super) reason: &'static str,
    /// What kind of reason it is.
    #[serde(skip)]
    pub(super) class: Class,
    pub(super) packets: f64,
}

/// What a Service port carries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ServiceRate {
    pub(super) service: String,
    #[serde(flatten)]
    pub(super) rate: Rate,
    pub(super) fast_share: Option<f64>,
}

/// What the Services are sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Order {
    /// Most packets first
    #[default]
    Packets,
    /// Most bytes first
    Bytes,
    /// Most new connections first
    Connections,
    /// By name
    Name,
}

impl Order {
    /// Returns the next one.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Connections,
            Self::Connections => Self::Name,
            Self::Name => Self::Packets,
        }
    }

    /// Returns its name.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
            Self::Name => "name",
        }
    }
}

/// Returns what came between two looks.
pub(super) fn between(before: &Sample, after: &Sample, order: Order) -> Rates {
    let secs = after.at.duration_since(before.at).as_secs_f64().max(f64::EPSILON);
    let mut items: Vec<ServiceRate> = after
        .services
        .iter()
        .map(|(name, now)| {
            // One that is new began with nothing.
            let then = before.services.get(name).copied().unwrap_or_default();
            let rate = rate(&then, now, secs);
            let fast_share = share(rate.fast_packets, rate.packets);
            ServiceRate { service: name.clone(), rate, fast_share }
        })
        .collect();
    sort(&mut items, order);
    let total = items.iter().fold(Rate::default(), |sum, item| sum.plus(item.rate));
    let reasons = reasons(before, after, secs);
    let fast_share =
        if after.reasons.is_some() { share_of(&reasons) } else { share(0.0, total.packets) };
    let report = &after.report;
    Rates {
        running: after.running,
        pid: after.running.then_some(report.pid),
        ready: after.running && report.ready,
        fast_path: report.fast_path.mode.clone(),
        services: report.services,
        frontends: report.frontends,
        over_secs: secs,
        total,
        fast_share,
        dropped: per_second(before.refused.dropped, after.refused.dropped, secs),
        rejected: per_second(before.refused.rejected, after.refused.rejected, secs),
        reasons,
        drift: after.drift,
        troubles: troubles(after),
        items,
    }
}

fn troubles(sample: &Sample) -> Vec<String> {
    let report = &sample.report;
    let errors = report.last_reconcile.errors.iter().chain(&report.source_error);
    errors.chain(&report.notices).chain(&sample.failed).cloned().collect()
}

/// Counters begin anew when what they belong to does.
fn per_second(before: u64, after: u64, secs: f64) -> f64 {
    after.saturating_sub(before) as f64 / secs
}

fn rate(then: &Carried, now: &Carried, secs: f64) -> Rate {
    let of = |number: fn(&Traffic) -> u64, plane: fn(&Carried) -> &Traffic| {
        per_second(number(plane(then)), number(plane(now)), secs)
    };
    let slow = |carried: fn(&Traffic) -> u64| of(carried, |each| &each.slow);
    let fast = |carried: fn(&Traffic) -> u64| of(carried, |each| &each.fast);
    let fast_packets = fast(Traffic::packets);
    Rate {
        packets: slow(Traffic::packets) + fast_packets,
        fast_packets,
        in_bytes: slow(|each| each.in_bytes) + fast(|each| each.in_bytes),
        out_bytes: slow(|each| each.out_bytes) + fast(|each| each.out_bytes),
        connections: per_second(then.connections, now.connections, secs),
    }
}

impl Rate {
    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            fast_packets: self.fast_packets + other.fast_packets,
            in_bytes: self.in_bytes + other.in_bytes,
            out_bytes: self.out_bytes + other.out_bytes,
            connections: self.connections + other.connections,
        }
    }
}

fn reasons(before: &Sample, after: &Sample, secs: f64) -> Vec<ReasonRate> {
    let (Some(before), Some(after)) = (&before.reasons, &after.reasons) else { return Vec::new() };
    let rate = |reason: &Reason| {
        let name = reason.name();
        let number =
            |sample: &std::collections::BTreeMap<_, _>| sample.get(name).copied().unwrap_or(0);
        let packets = per_second(number(before), number(after), secs);
        (packets > 0.0).then_some(ReasonRate { reason: name, class: reason.class(), packets })
    };
    let mut rates: Vec<_> = Reason::ALL.iter().filter_map(rate).collect();
    rates.sort_by(|one, two| two.packets.total_cmp(&one.packets));
    rates
}

fn share_of(reasons: &[ReasonRate]) -> Option<f64> {
    let sum = |class| -> f64 {
        reasons.iter().filter(|each| each.class == class).map(|each| each.packets).sum()
    };
    share(sum(Class::Fast), sum(Class::Fast) + sum(Class::Slow))
}

fn share(part: f64, all: f64) -> Option<f64> {
    (all > 0.0).then(|| part / all)
}

fn sort(items: &mut [ServiceRate], order: Order) {
    let key = |item: &ServiceRate| match order {
        Order::Packets => item.rate.packets,
        Order::Bytes => item.rate.in_bytes + item.rate.out_bytes,
        Order::Connections => item.rate.connections,
        Order::Name => 0.0,
    };
    // Names come sorted, and stay so among equals.
    items.sort_by(|one, two| key(two).total_cmp(&key(one)));
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{kernel::nft::Refused, status::Report};

    /// A look at a node with two Services and a fast path.
    pub(in crate::cli) fn sample(at: Instant, web: (u64, u64), dns: u64) -> Sample {
        let traffic = |packets: u64| Traffic {
            in_packets: packets / 2,
            out_packets: packets / 2,
            in_bytes: packets * 50,
            out_bytes: packets * 500,
        };
        let (slow, fast) = web;
        let carried = |slow, fast| Carried {
            connections: slow / 10,
            slow: traffic(slow),
            fast: traffic(fast),
        };
        Sample {
            at,
            report: Report {
                pid: 7,
                ready: true,
                services: 2,
                frontends: 3,
                fast_path: crate::status::FastPathReport {
                    mode: "on".into(),
                    ..Default::default()
                },
                ..Report::default()
            },
            running: true,
            reasons: Some(BTreeMap::from([("hit", fast), ("no_flow", slow + dns)])),
            services: BTreeMap::from([
                ("default/web:http".to_owned(), carried(slow, fast)),
                ("kube-system/dns:dns".to_owned(), carried(dns, 0)),
            ]),
            refused: Refused { dropped: 0, rejected: slow / 100 },
            drift: Drift::default(),
            failed: Vec::new(),
        }
    }

    /// Four seconds between two looks.
    pub(in crate::cli) fn rates(order: Order) -> Rates {
        let now = Instant::now();
        let before = sample(now, (1000, 5000), 600);
        let after = sample(now + Duration::from_secs(4), (1400, 45_000), 800);
        between(&before, &after, order)
    }

    #[test]
    fn rates_are_what_came_in_between_a_second() {
        let rates = rates(Order::Packets);
        let web = &rates.items[0];
        assert_eq!(web.service, "default/web:http");
        assert_eq!((web.rate.packets, web.rate.fast_packets), (10_100.0, 10_000.0));
        assert_eq!((web.rate.in_bytes, web.rate.out_bytes), (505_000.0, 5_050_000.0));
        assert_eq!(web.rate.connections, 10.0);
        assert_eq!(rates.total.packets, 10_150.0);
        assert_eq!(rates.rejected, 1.0);
        let share = rates.fast_share.unwrap();
        assert!((share - 40_000.0 / 40_600.0).abs() < 1e-9, "{share}");
        assert_eq!(
            rates.reasons[0],
            ReasonRate { reason: "hit", class: Class::Fast, packets: 10_000.0 }
        );
    }

    #[test]
    fn a_service_that_is_made_anew_or_counts_backwards_has_no_negative_rate() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let rates =
            between(&sample(now, (900, 900), 0), &sample(later, (10, 4), 2), Order::Packets);
        assert_eq!(rates.items[1].rate, Rate::default());
        assert_eq!(rates.items[0].service, "kube-system/dns:dns");
    }

    #[test]
    fn the_order_can_be_another_and_comes_round() {
        let names = |order| -> Vec<String> {
            rates(order).items.into_iter().map(|item| item.service).collect()
        };
        assert_eq!(names(Order::Name), ["default/web:http", "kube-system/dns:dns"]);
        let mut order = Order::default();
        for _ in 0..4 {
            order = order.next();
        }
        assert_eq!(order, Order::default());
    }
}
