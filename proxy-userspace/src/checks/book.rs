//! Who is checked, how, for whom, and what came out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{BackendCheck, State};
use crate::{
    model::{Backend, Check, Probe, ServiceName},
    plan::Checked,
};

/// A backend of a Service.
type User = (ServiceName, Backend);

/// One check of one address. Backends that need the same one share it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The address, and the port that is tried.
    pub addr: SocketAddr,
    /// How.
    pub check: Check,
    /// The Service, for a command: it is told for which one it runs.
    pub service: Option<ServiceName>,
}

/// A change of what runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Moves {
    /// Checks to begin, by number, with what holds until their first try.
    pub start: Vec<(u64, Target, State)>,
    /// Checks to end, by number.
    pub stop: Vec<u64>,
    /// Services whose backends may stand otherwise now.
    pub services: BTreeSet<ServiceName>,
}

/// A check that runs.
#[derive(Debug)]
struct Entry {
    number: u64,
    state: State,
    users: BTreeSet<User>,
}

/// Everything that is checked.
#[derive(Debug, Default)]
pub struct Book {
    followed: BTreeMap<ServiceName, Checked>,
    targets: BTreeMap<User, Target>,
    entries: BTreeMap<Target, Entry>,
    by_number: BTreeMap<u64, Target>,
    /// What an earlier agent found, until it is known what is to be checked.
    remembered: BTreeMap<User, State>,
    next: u64,
}

impl Target {
    fn of(service: &ServiceName, backend: &Backend, check: &Check) -> Self {
        let command = matches!(check.probe, Probe::Command(_));
        Self {
            addr: SocketAddr::new(backend.addr, check.port.unwrap_or(backend.port)),
            check: check.clone(),
            service: command.then(|| service.clone()),
        }
    }
}

impl Book {
    /// Returns a book that begins with what an earlier agent found.
    pub fn remembering(checks: Vec<BackendCheck>) -> Self {
        let remembered = checks.into_iter().map(|check| {
            let BackendCheck { service, backend, state, .. } = check;
            ((service, backend), state.carried_over())
        });
        Self { remembered: remembered.collect(), ..Self::default() }
    }

    /// Takes up what is to be checked. A backend that is checked in another way from now on stands as
    /// it stood. `now` is in seconds since 1970.
    pub fn follow(&mut self, checked: &BTreeMap<ServiceName, Checked>, now: u64) -> Moves {
        if self.followed == *checked && self.remembered.is_empty() {
            return Moves::default();
        }
        let mut wanted = BTreeMap::new();
        for (service, Checked { check, backends }) in checked {
            for backend in backends {
                wanted.insert((service.clone(), *backend), Target::of(service, backend, check));
            }
        }
        let mut moves = Moves::default();
        // Those that come first: they may stand as those that go.
        for (user, target) in &wanted {
            if self.targets.get(user) != Some(target) {
                self.join(user, target, now, &mut moves);
            }
        }
        for (user, target) in &self.targets {
            if wanted.get(user) != Some(target) {
                moves.services.insert(user.0.clone());
                let Some(entry) = self.entries.get_mut(target) else { continue };
                entry.users.remove(user);
                if entry.users.is_empty() {
                    moves.stop.push(entry.number);
                    self.by_number.remove(&entry.number);
                    self.entries.remove(target);
                }
            }
        }
        self.targets = wanted;
        self.followed.clone_from(checked);
        // What is remembered and not checked any more is not to be shown any more.
        moves.services.extend(std::mem::take(&mut self.remembered).into_keys().map(|user| user.0));
        moves
    }

    fn join(&mut self, user: &User, target: &Target, now: u64, moves: &mut Moves) {
        moves.services.insert(user.0.clone());
        if let Some(entry) = self.entries.get_mut(target) {
            entry.users.insert(user.clone());
            return;
        }
        let before = self.targets.get(user).and_then(|before| self.entries.get(before));
        let before = before.map(|entry| &entry.state).or_else(|| self.remembered.get(user));
        let state = before.cloned().map(State::carried_over);
        let state = state.unwrap_or_else(|| State::new(&target.check, now));
        let number = self.next;
        self.next += 1;
        moves.start.push((number, target.clone(), state.clone()));
        self.by_number.insert(number, target.clone());
        let users = [user.clone()].into();
        self.entries.insert(target.clone(), Entry { number, state, users });
    }

    /// Takes up that a check changed its mind. Returns whom that is about; nobody when the check has
    /// ended.
    pub fn take(&mut self, number: u64, state: State) -> Vec<(ServiceName, Backend)> {
        let target = self.by_number.get(&number);
        let Some(entry) = target.and_then(|target| self.entries.get_mut(target)) else {
            return Vec::new();
        };
        entry.state = state;
        entry.users.iter().cloned().collect()
    }

    /// Returns the backends of a Service that are down.
    pub fn failed(&self, service: &ServiceName) -> BTreeSet<Backend> {
        let backends = self.followed.get(service).map(|checked| &checked.backends);
        let backends = backends.into_iter().flatten();
        let up = |backend: &Backend| {
            let target = self.targets.get(&(service.clone(), *backend));
            target.and_then(|target| self.entries.get(target)).is_none_or(|entry| entry.state.up)
        };
        backends.filter(|backend| !up(backend)).copied().collect()
    }

    /// Returns all that is known, by Service and backend.
    pub fn report(&self) -> Vec<BackendCheck> {
        let known = self.targets.iter().filter_map(|((service, backend), target)| {
            Some(BackendCheck {
                service: service.clone(),
                backend: *backend,
                check: target.check.to_string(),
                state: self.entries.get(target)?.state.clone(),
            })
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ServiceName {
        ServiceName { namespace: "shop".into(), name: name.into() }
    }

    fn backend(host: u8) -> Backend {
        let addr = [10, 1, 0, host].into();
        Backend { addr, port: 8080, protocol: crate::model::Protocol::Tcp }
    }

    fn tcp() -> Check {
        Check { rise: 1, fall: 1, ..Check::of(Probe::Tcp) }
    }

    fn checked(services: &[(&str, &Check, &[u8])]) -> BTreeMap<ServiceName, Checked> {
        let checked = services.iter().map(|(service, check, hosts)| {
            let backends = hosts.iter().map(|host| backend(*host)).collect();
            (name(service), Checked { check: (*check).clone(), backends })
        });
        checked.collect()
    }

    /// Lets the check of this number find its backend down.
    fn fall(book: &mut Book, number: u64) -> Vec<(ServiceName, Backend)> {
        let mut state = State::new(&tcp(), 0);
        assert!(state.take(&tcp(), false, "refused", 7));
        book.take(number, state)
    }

    #[test]
    fn an_address_that_two_services_check_alike_is_checked_once() {
        let mut book = Book::default();
        let moves = book.follow(&checked(&[("a", &tcp(), &[1, 2]), ("b", &tcp(), &[2])]), 0);
        assert_eq!((moves.start.len(), moves.stop.len(), moves.services.len()), (2, 0, 2));
        let number = moves.start.iter().find(|(_, target, _)| target.addr.ip() == backend(2).addr);
        let about = fall(&mut book, number.unwrap().0);
        assert_eq!(about, [(name("a"), backend(2)), (name("b"), backend(2))]);
        assert_eq!(book.failed(&name("b")), [backend(2)].into());
        // The one goes, and the check stays for the other.
        let moves = book.follow(&checked(&[("b", &tcp(), &[2])]), 0);
        assert_eq!((moves.start.len(), moves.stop.len()), (0, 1));
        assert_eq!(book.failed(&name("b")), [backend(2)].into());
        assert_eq!(book.failed(&name("a")), [].into());
    }

    #[test]
    fn a_command_is_run_for_each_service_that_it_is_told() {
        let command = Check::of(Probe::Command(vec!["/bin/true".into()]));
        let mut book = Book::default();
        let moves = book.follow(&checked(&[("a", &command, &[1]), ("b", &command, &[1])]), 0);
        assert_eq!(moves.start.len(), 2);
    }

    #[test]
    fn what_is_checked_otherwise_stands_as_it_stood() {
        let mut book = Book::default();
        let moves = book.follow(&checked(&[("a", &tcp(), &[1, 2])]), 0);
        let number = moves.start[0].0;
        fall(&mut book, number);
        let slower = Check { interval_ms: 9_000, ..tcp() };
        let moves = book.follow(&checked(&[("a", &slower, &[1, 2])]), 9);
        assert_eq!((moves.start.len(), moves.stop.len()), (2, 2));
        let up: Vec<_> = moves.start.iter().map(|(_, _, state)| (state.up, state.since)).collect();
        assert_eq!(up, [(false, 7), (true, 0)]);
        assert_eq!(book.failed(&name("a")), [backend(1)].into());
        assert_eq!(fall(&mut book, number), [], "the check that ended has nothing to say");
    }

    #[test]
    fn nothing_moves_when_nothing_changed() {
        let mut book = Book::default();
        let all = checked(&[("a", &tcp(), &[1])]);
        book.follow(&all, 0);
        assert_eq!(book.follow(&all, 5), Moves::default());
    }

    #[test]
    fn the_next_agent_goes_on_with_what_the_last_one_found() {
        let mut book = Book::default();
        let all = checked(&[("a", &tcp(), &[1, 2])]);
        let number = book.follow(&all, 0).start[0].0;
        fall(&mut book, number);
        let text = serde_json::to_string(&book.report()).unwrap();
        let mut next = Book::remembering(serde_json::from_str(&text).unwrap());
        next.follow(&all, 100);
        assert_eq!(next.failed(&name("a")), [backend(1)].into());
        assert_eq!(next.report(), book.report());
        // What comes later is new, whatever it was once.
        next.follow(&checked(&[]), 101);
        next.follow(&all, 102);
        assert_eq!(next.failed(&name("a")), [].into());
    }

    #[test]
    fn what_an_earlier_agent_checked_and_this_one_does_not_is_forgotten() {
        let mut book = Book::default();
        book.follow(&checked(&[("a", &tcp(), &[1])]), 0);
        let mut next = Book::remembering(book.report());
        let moves = next.follow(&checked(&[]), 1);
        assert_eq!((moves.start.len(), moves.services), (0, [name("a")].into()));
        assert_eq!((next.report(), next.follow(&checked(&[]), 2)), (vec![], Moves::default()));
    }

    #[test]
    fn a_backend_may_begin_down() {
        let careful = Check { starts_down: true, ..tcp() };
        let mut book = Book::default();
        let moves = book.follow(&checked(&[("a", &careful, &[1])]), 0);
        assert!(moves.services.contains(&name("a")));
        assert_eq!(book.failed(&name("a")), [backend(1)].into());
    }
}
