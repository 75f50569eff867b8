//! A look at the whole node that is cheap enough to be taken every few seconds: it says which parts
//! are not as they were left, and these are read as a whole then.
//!
//! | part | looked at by |
//! |---|---|
//! | IPVS | one read of `/proc/net/ip_vs`, a number for each virtual server; seldom while probes see nobody change it |
//! | frontends, backends | a number for each map, summed up in the kernel; less often where they have to be read |
//! | sysctls | their files |
//! | nft | the generation of the ruleset, see `agent::audit` |
//! | addresses | events, see `kernel::link::Watch` |

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    kernel::{
        bpf::{self, MapNumbers, MapReader, fingerprint},
        ipvs::table::{self, Entry},
        sysctl::{self, Key},
    },
    model::Frontend,
    plan::Observed,
};

/// What may be looked at from another thread, in the same network namespace.
pub struct Looker {
    maps: Option<MapReader>,
    sysctls: Vec<&'static str>,
    tick: Duration,
}

/// Parts whose cost grows with what is there: what is to be read of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dear {
    /// The virtual servers.
    pub servers: bool,
    /// The maps, and about how many entries there are.
    pub entries: Option<usize>,
}

/// What was seen.
#[derive(Debug)]
pub struct Look {
    /// Virtual servers, sorted, and the processor time that it took to read them; nothing when they
    /// were not to be read.
    pub servers: Option<(io::Result<Vec<Entry>>, Duration)>,
    /// The maps, where there are any, and the processor time that it took to read them; nothing when
    /// they were not to be read.
    pub maps: Option<(io::Result<MapNumbers>, Duration)>,
    /// Sysctls and their values; those that cannot be read are left out.
    pub sysctls: Vec<(&'static str, String)>,
    /// Processor time that it took.
    pub cost: Duration,
}

/// The same, of what the agent left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expected {
    servers: Vec<Entry>,
    maps: MapNumbers,
}

/// What is not as it was left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Suspects {
    /// Virtual servers that changed or are gone.
    pub servers: BTreeSet<Frontend>,
    /// Something in the maps of frontends and backends changed.
    pub maps: bool,
    /// The filter changed.
    pub filter: bool,
}

impl Looker {
    /// Looks at these maps and sysctls.
    ///
    /// # Errors
    ///
    /// The clock cannot be read.
    pub fn new(maps: Option<MapReader>, sysctls: Vec<&'static str>) -> Result<Self, bpf::Error> {
        Ok(Self { maps, sysctls, tick: bpf::jiffy()? })
    }

    /// Looks, also at the dear parts that are asked for. Blocks for as long as it takes.
    pub fn look(&self, dear: Dear) -> Look {
        let before = processor_time();
        let servers = dear.servers.then(|| timed(|| self.servers()));
        let maps = self.maps.as_ref().zip(dear.entries);
        let maps = maps.map(|(maps, entries)| timed(|| maps.numbers(entries)));
        let value = |key: &&'static str| Some((*key, sysctl::read(&Key::dotted(key)).ok()?));
        let sysctls = self.sysctls.iter().filter_map(value).collect();
        Look { servers, maps, sysctls, cost: processor_time().saturating_sub(before) }
    }

    fn servers(&self) -> io::Result<Vec<Entry>> {
        match table::read(self.tick) {
            // Without ip_vs there are none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            servers => servers.map(sorted),
        }
    }
}

/// Returns what the work returns, and the processor time that it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = processor_time();
    let result = work();
    (result, processor_time().saturating_sub(before))
}

/// Returns the processor time of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn sorted(mut servers: Vec<Entry>) -> Vec<Entry> {
    servers.sort_unstable();
    servers
}

impl Expected {
    /// Returns what a look at a node like this one, with a filter of this number, would see of what is
    /// ours.
    pub fn of(observed: &Observed, filter: Option<u64>) -> Self {
        let ours = observed.servers.values().filter(|server| server.owned);
        let servers = ours.map(|server| {
            let newest_first = server.order.iter().rev();
            let destinations = newest_first.filter_map(|key| server.destinations.get(key));
            table::entry(&server.virtual_server, destinations)
        });
        let add = |sum: u64, entry: u64| sum.wrapping_add(entry);
        let frontends = observed.frontends.iter().map(|(frontend, entry)| {
            fingerprint::of_frontend(frontend, entry.id, bpf::flags(entry.fast_path))
        });
        let backends =
            observed.backends.iter().map(|(backend, id)| fingerprint::of_backend(backend, *id));
        let maps = MapNumbers {
            frontends: frontends.fold(0, add),
            backends: backends.fold(0, add),
            filter,
        };
        Self { servers: sorted(servers.collect()), maps }
    }

    /// Compares with what was seen. Virtual servers of others are left out; what could not be looked
    /// at is no suspect: the next whole reading takes it.
    pub fn suspects(&self, look: &Look) -> Suspects {
        let mut suspects = Suspects::default();
        if let Some((Ok(seen), _)) = &look.servers {
            let mut seen = seen.iter().peekable();
            for expected in &self.servers {
                while seen.next_if(|entry| entry.0 < expected.0).is_some() {}
                if seen.next_if(|entry| *entry == expected).is_none() {
                    suspects.servers.insert(expected.0);
                }
            }
        }
        if let Some((Ok(maps), _)) = &look.maps {
            let entries = |maps: &MapNumbers| (maps.frontends, maps.backends);
            suspects.maps = entries(maps) != entries(&self.maps);
            suspects.filter = self.maps.filter.is_some() && maps.filter != self.maps.filter;
        }
        suspects
    }
}

/// When something may be done again, so that it takes no more than its share of a processor.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Of a thousand.
    share: u32,
    least: Duration,
    most: Duration,
    next: Instant,
}

impl Pace {
    /// Permits it at once, then at most so often, and at least so often whatever it takes.
    pub fn new(share: u32, least: Duration, most: Duration) -> Self {
        Self { share, least, most: most.max(least), next: Instant::now() }
    }

    /// Says whether it may be done now.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Notes that it was begun then, and took so much.
    pub fn took(&mut self, begun: Instant, cost: Duration) {
        let pause = cost.saturating_mul(1000) / self.share.max(1);
        self.next = begun + pause.clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            Backend, Destination, DestinationKey, FastPath, Forwarding, Protocol, Scheduler,
            SchedulerFlags, VirtualServer,
        },
        plan::{FrontendEntry, ObservedServer},
    };

    fn frontend(last: u8) -> Frontend {
        Frontend { addr: [10, 96, 0, last].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn server(last: u8, owned: bool) -> ObservedServer {
        let key = DestinationKey { addr: [10, 1, 1, last].into(), port: 8080 };
        let destination = Destination {
            limits: Default::default(),
            key,
            weight: 1,
            forwarding: Forwarding::Masq,
        };
        ObservedServer {
            virtual_server: VirtualServer {
                frontend: frontend(last),
                scheduler: Scheduler::Rr,
                flags: SchedulerFlags::default(),
                persistent_secs: 0,
            },
            destinations: [destination].into_iter().collect(),
            order: vec![key],
            owned,
        }
    }

    fn node() -> Observed {
        let servers = [server(1, true), server(2, false), server(3, true), server(4, true)];
        let backend = Backend { addr: [10, 1, 1, 1].into(), port: 8080, protocol: Protocol::Tcp };
        Observed {
            servers: servers.map(|each| (each.virtual_server.frontend, each)).into(),
            frontends: [(frontend(1), FrontendEntry { id: 1, fast_path: FastPath::Auto })]
                .into_iter()
                .collect(),
            backends: [(backend, 2)].into_iter().collect(),
            ..Observed::default()
        }
    }

    /// What a look sees of a node, foreign virtual servers included.
    fn look_at(node: &Observed) -> Look {
        let mut all = node.clone();
        all.servers.values_mut().for_each(|server| server.owned = true);
        let Expected { servers, maps } = Expected::of(&all, Some(1));
        Look {
            servers: Some((Ok(servers), Duration::ZERO)),
            maps: Some((Ok(maps), Duration::ZERO)),
            sysctls: Vec::new(),
            cost: Duration::ZERO,
        }
    }

    #[test]
    fn a_node_as_it_was_left_has_no_suspects_whatever_others_have() {
        let expected = Expected::of(&node(), Some(1));
        assert_eq!(expected.suspects(&look_at(&node())), Suspects::default());
        let mut more = node();
        more.servers.insert(frontend(9), server(9, false));
        more.servers.remove(&frontend(2));
        assert_eq!(expected.suspects(&look_at(&more)), Suspects::default());
    }

    #[test]
    fn what_changed_is_suspected_and_nothing_else() {
        let expected = Expected::of(&node(), Some(1));
        let mut changed = node();
        changed.servers.remove(&frontend(3));
        let four = changed.servers.get_mut(&frontend(4)).unwrap();
        four.virtual_server.scheduler = Scheduler::Wlc;
        changed.frontends.remove(&frontend(1));
        let suspects = expected.suspects(&look_at(&changed));
        assert_eq!(suspects.servers, [frontend(3), frontend(4)].into());
        assert!(suspects.maps && !suspects.filter);
    }

    #[test]
    fn the_filter_is_suspected_where_it_is_known_what_was_left() {
        let look = look_at(&node());
        let suspects = |filter| Expected::of(&node(), filter).suspects(&look);
        assert_eq!(suspects(Some(2)), Suspects { filter: true, ..Suspects::default() });
        assert_eq!(suspects(None), Suspects::default());
    }

    #[test]
    fn what_cannot_be_looked_at_is_no_suspect() {
        let refused = Err(io::ErrorKind::PermissionDenied.into());
        for servers in [None, Some((refused, Duration::ZERO))] {
            let look = Look { servers, maps: None, sysctls: Vec::new(), cost: Duration::ZERO };
            assert_eq!(Expected::of(&node(), Some(1)).suspects(&look), Suspects::default());
        }
    }

    #[test]
    fn what_takes_long_is_done_less_often_but_not_never() {
        let (least, most) = (Duration::from_secs(3), Duration::from_secs(30));
        let mut pace = Pace::new(10, least, most);
        let begun = Instant::now();
        assert!(pace.is_due(begun));
        for (cost_ms, pause_secs) in [(1, 3), (40, 4), (100, 10), (5000, 30)] {
            pace.took(begun, Duration::from_millis(cost_ms));
            let pause = Duration::from_secs(pause_secs);
            assert!(!pace.is_due(begun + pause - Duration::from_millis(1)), "{cost_ms}");
            assert!(pace.is_due(begun + pause), "{cost_ms}");
        }
    }
}
