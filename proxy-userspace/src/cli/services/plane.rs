//! Which plane serves a virtual server, and why, as the agent last said.

use crate::{model::Scheduler, status::HashPlaneReport};

/// A plane, and what there is to say of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Served {
    /// `hash` or `ipvs`.
    pub(super) plane: &'static str,
    /// Why IPVS does what XDP could do; empty where nobody asked for more.
    pub(super) reason: String,
}

fn ipvs(reason: impl Into<String>) -> Served {
    Served { plane: "ipvs", reason: reason.into() }
}

/// Returns the plane of a virtual server. `report` is the agent's; none where nobody asked for a hash
/// plane.
pub(super) fn served(
    report: Option<&HashPlaneReport>,
    frontend: &str,
    scheduler: Scheduler,
) -> Served {
    let Some(report) = report else { return ipvs("") };
    if report.mode != "on" {
        return ipvs(format!("no hash plane: {}", report.reason));
    }
    if scheduler != Scheduler::Mh {
        return ipvs(format!("scheduler {scheduler} is IPVS's"));
    }
    if let Some(why) = report.refused.get(frontend) {
        return ipvs(why.as_str());
    }
    let Some(unreached) = report.carried.get(frontend) else {
        return ipvs("the agent has not taken it up yet");
    };
    if report.interfaces.iter().all(|each| each.mode == "off") {
        return ipvs("the hash plane runs on no interface");
    }
    let reason = match unreached.as_slice() {
        [] => String::new(),
        unreached => format!("IPVS sends to {}", unreached.join("; ")),
    };
    Served { plane: "hash", reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::HashInterface;

    fn report() -> HashPlaneReport {
        let interface =
            |mode: &str| HashInterface { mode: mode.into(), ..HashInterface::default() };
        HashPlaneReport {
            mode: "on".into(),
            interfaces: vec![interface("off"), interface("native")],
            carried: [
                ("192.0.2.1:80/TCP".into(), Vec::new()),
                ("192.0.2.1:81/TCP".into(), vec!["10.0.0.7:81: no route".into()]),
            ]
            .into(),
            refused: [("192.0.2.1:82/TCP".into(), "persistence is IPVS's".into())].into(),
            ..HashPlaneReport::default()
        }
    }

    #[test]
    fn every_virtual_server_has_one_plane_and_a_reason_where_one_is_needed() {
        let report = report();
        let served = |port, scheduler| {
            let served = served(Some(&report), &format!("192.0.2.1:{port}/TCP"), scheduler);
            (served.plane, served.reason)
        };
        assert_eq!(served(80, Scheduler::Mh), ("hash", String::new()));
        assert_eq!(
            served(81, Scheduler::Mh),
            ("hash", "IPVS sends to 10.0.0.7:81: no route".into())
        );
        assert_eq!(served(82, Scheduler::Mh), ("ipvs", "persistence is IPVS's".into()));
        assert_eq!(served(83, Scheduler::Mh).0, "ipvs");
        assert_eq!(served(80, Scheduler::Wrr), ("ipvs", "scheduler wrr is IPVS's".into()));
    }

    #[test]
    fn without_a_hash_plane_ipvs_serves_and_says_why_if_one_was_asked_for() {
        let frontend = "192.0.2.1:80/TCP";
        assert_eq!(served(None, frontend, Scheduler::Mh), ipvs(""));
        let off = HashPlaneReport { mode: "off".into(), reason: "x".into(), ..report() };
        assert_eq!(served(Some(&off), frontend, Scheduler::Mh), ipvs("no hash plane: x"));
        let mut nowhere = report();
        nowhere.interfaces.truncate(1);
        assert_eq!(served(Some(&nowhere), frontend, Scheduler::Mh).plane, "ipvs");
    }
}
