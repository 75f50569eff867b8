//! `passlane backends`: where traffic goes, from IPVS and the backend maps; and what health checks
//! found, as an agent wrote it down. Needs no agent.

mod checks;

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use self::checks::Check;
use super::{
    Failure, FormatFlag, dump,
    output::{self, Style, View},
    repeat::Repeat,
    selection::{AddressFilter, ServiceFilter},
    servers::{self, Servers},
    services::forwarding,
};
use crate::{
    checks::file,
    config::Paths,
    ledger::Owned,
    model::{self, Frontend},
};

/// The flags of `passlane backends`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// Backends of this Service, or of one port of it
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    service: Option<ServiceFilter>,
    /// This backend
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    backend: Option<AddressFilter>,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Clone, Debug, Serialize)]
struct Backends {
    items: Vec<Backend>,
}

/// An endpoint, with all that leads to it.
#[derive(Clone, Debug, Serialize)]
struct Backend {
    backend: String,
    /// It gets no new connections of any frontend.
    draining: bool,
    /// Established connections, of all its frontends.
    active: u64,
    /// All others.
    inactive: u64,
    /// Its id in the BPF maps; absent where the fast path does not know it.
    id: Option<u32>,
    /// Flow entries of another generation are stale.
    generation: Option<u32>,
    frontends: Vec<Destination>,
    /// What health checks found, one for each Service that has it checked.
    checks: Vec<Check>,
}

/// A backend as the destination of one frontend.
#[derive(Clone, Debug, Serialize)]
struct Destination {
    frontend: String,
    service: String,
    forwarding: &'static str,
    weight: u32,
    active: u32,
    inactive: u32,
    /// Clients that are kept on it.
    persistent: u32,
}

/// Ids and generations of the BPF maps.
type Ids = BTreeMap<model::Backend, (u32, u32)>;

/// Prints the backends.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    flags.repeat.show(&flags.format, || gather(flags))?;
    Ok(())
}

fn gather(flags: &Flags) -> Result<Backends, Failure> {
    let owned = Owned::read(&flags.paths.state_dir)?;
    let servers = super::block_on(servers::ours(&owned))?;
    let mut ids = Ids::new();
    if let Some(maps) = dump::maps(&flags.paths)? {
        for (backend, value) in maps.backends()? {
            ids.insert(backend, (value.id, maps.generations.of_backend(value.id)?));
        }
    }
    let checks = checks::by_backend(file::read(&flags.paths.state_dir)?, checks::now());
    Ok(Backends { items: backends(&servers, &owned, &ids, checks, flags) })
}

fn backends(
    servers: &Servers,
    owned: &Owned,
    ids: &Ids,
    mut checks: BTreeMap<model::Backend, Vec<Check>>,
    flags: &Flags,
) -> Vec<Backend> {
    let mut found = BTreeMap::<model::Backend, Vec<Destination>>::new();
    for (server, destinations) in servers {
        let frontend: Frontend = server.virtual_server.frontend;
        let Some(service) = owned.virtual_servers.get(&frontend) else { continue };
        for state in destinations {
            let backend = model::Backend::new(state.destination.key, frontend.protocol);
            found.entry(backend).or_default().push(Destination {
                frontend: frontend.to_string(),
                service: service.clone(),
                forwarding: forwarding(state.destination.forwarding),
                weight: state.destination.weight,
                active: state.active_connections,
                inactive: state.inactive_connections,
                persistent: state.persistent_connections,
            });
        }
    }
    // Those that were removed since they failed.
    for backend in checks.keys() {
        found.entry(*backend).or_default();
    }
    let wanted = |backend: &model::Backend, frontends: &[Destination], checks: &[Check]| {
        let socket = std::net::SocketAddr::new(backend.addr, backend.port);
        flags.backend.is_none_or(|filter| filter.matches(socket))
            && flags.service.as_ref().is_none_or(|filter| {
                let services = frontends.iter().map(|each| &each.service);
                services
                    .chain(checks.iter().map(|check| &check.service))
                    .any(|service| filter.matches(Some(service)))
            })
    };
    let rows = found.into_iter().filter_map(|(backend, frontends)| {
        let checks = checks.remove(&backend).unwrap_or_default();
        wanted(&backend, &frontends, &checks).then(|| row(backend, frontends, ids, checks))
    });
    rows.collect()
}

fn row(
    backend: model::Backend,
    frontends: Vec<Destination>,
    ids: &Ids,
    checks: Vec<Check>,
) -> Backend {
    let ids = ids.get(&backend).copied();
    let sum = |of: fn(&Destination) -> u32| frontends.iter().map(|each| u64::from(of(each))).sum();
    Backend {
        backend: backend.to_string(),
        draining: frontends.iter().all(|each| each.weight == 0),
        active: sum(|each| each.active),
        inactive: sum(|each| each.inactive),
        id: ids.map(|(id, _)| id),
        generation: ids.map(|(_, generation)| generation),
        frontends,
        checks,
    }
}

impl Backend {
    fn state(&self) -> &'static str {
        match (self.frontends.is_empty(), self.draining) {
            (true, _) if checks::is_down(&self.checks) => "removed",
            (true, _) => "unused",
            (false, true) => "draining",
            (false, false) => "serving",
        }
    }

    /// Returns the Services that it is of.
    fn services(&self) -> String {
        let mut services: Vec<&str> =
            self.frontends.iter().map(|each| each.service.as_str()).collect();
        if services.is_empty() {
            services.extend(self.checks.iter().map(|check| check.service.as_str()));
        }
        services.sort_unstable();
        services.dedup();
        services.join(",")
    }
}

impl View for Backends {
    const KIND: &'static str = "BackendList";

    fn text(&self, style: Style) -> String {
        let table = if style.wide { wide(&self.items) } else { narrow(&self.items) };
        output::render(&table, style.headers)
    }

    fn names(&self) -> Option<Vec<String>> {
        Some(self.items.iter().map(|each| format!("backend/{}", each.backend)).collect())
    }
}

fn narrow(backends: &[Backend]) -> comfy_table::Table {
    let mut table = output::table([
        "BACKEND",
        "STATE",
        "CHECK",
        "WEIGHT",
        "ACTIVE",
        "INACTIVE",
        "FRONTENDS",
        "SERVICES",
    ]);
    for backend in backends {
        let mut weights: Vec<u32> = backend.frontends.iter().map(|each| each.weight).collect();
        weights.sort_unstable();
        weights.dedup();
        let weights: Vec<String> = weights.iter().map(u32::to_string).collect();
        table.add_row([
            backend.backend.clone(),
            backend.state().to_owned(),
            checks::short(&backend.checks),
            weights.join(","),
            backend.active.to_string(),
            backend.inactive.to_string(),
            backend.frontends.len().to_string(),
            backend.services(),
        ]);
    }
    table
}

/// A row for each frontend that leads there.
fn wide(backends: &[Backend]) -> comfy_table::Table {
    let mut table = output::table([
        "BACKEND",
        "FRONTEND",
        "SERVICE",
        "FORWARD",
        "WEIGHT",
        "ACTIVE",
        "INACTIVE",
        "PERSISTENT",
        "ID",
        "GENERATION",
        "CHECK",
        "CHANGES",
    ]);
    let number = |number: Option<u32>| number.map_or("<none>".to_owned(), |it| it.to_string());
    for backend in backends {
        for each in &backend.frontends {
            table.add_row([
                backend.backend.clone(),
                each.frontend.clone(),
                each.service.clone(),
                each.forwarding.to_owned(),
                each.weight.to_string(),
                each.active.to_string(),
                each.inactive.to_string(),
                each.persistent.to_string(),
                number(backend.id),
                number(backend.generation),
                checks::long(&backend.checks),
                checks::changes(&backend.checks),
            ]);
        }
        if backend.frontends.is_empty() {
            let none = || "<none>".to_owned();
            table.add_row([
                backend.backend.clone(),
                none(),
                backend.services(),
                none(),
                none(),
                none(),
                none(),
                none(),
                number(backend.id),
                number(backend.generation),
                checks::long(&backend.checks),
                checks::changes(&backend.checks),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(frontend: &str, service: &str, weight: u32) -> Destination {
        Destination {
            frontend: frontend.into(),
            service: service.into(),
            forwarding: "Masq",
            weight,
            active: 2,
            inactive: 1,
            persistent: 0,
        }
    }

    #[test]
    fn a_backend_of_several_frontends_is_one_row_and_adds_up() {
        let backend = model::Backend {
            addr: [10, 1, 1, 11].into(),
            port: 8080,
            protocol: model::Protocol::Tcp,
        };
        let frontends = vec![
            destination("10.96.0.10:80/TCP", "default/web:http", 1),
            destination("172.20.0.1:30080/TCP", "default/web:http", 0),
        ];
        let ids = [(backend, (3, 9))].into();
        let checks = vec![checks::example("default/web", &[], 70_000)];
        let fallen = [(940, false, "connect: Connection refused (os error 111)")];
        let removed = model::Backend { port: 9, ..backend };
        let failed = vec![checks::example("default/web", &fallen, 1_000)];
        let view = Backends {
            items: vec![
                row(backend, frontends, &ids, checks),
                row(removed, Vec::new(), &Ids::new(), failed),
            ],
        };
        crate::cli::snapshot::check("backends", &view);
        let expected = "\
BACKEND              STATE     CHECK      WEIGHT   ACTIVE   INACTIVE   FRONTENDS   SERVICES
10.1.1.11:8080/TCP   serving   up         0,1      4        2          2           default/web:http
10.1.1.11:9/TCP      removed   down 60s            0        0          0           default/web
";
        assert_eq!(view.text(Style::NARROW), expected);
        let wide = view.text(Style { wide: true, headers: false });
        assert_eq!(wide.lines().count(), 3, "{wide}");
        assert_eq!(wide.lines().filter(|line| line.contains(" 3        9 ")).count(), 2, "{wide}");
        assert_eq!(
            view.names().unwrap(),
            ["backend/10.1.1.11:8080/TCP", "backend/10.1.1.11:9/TCP"]
        );
    }

    #[test]
    fn a_backend_drains_when_no_frontend_gives_it_anything() {
        let backend =
            model::Backend { addr: [10, 1, 1, 11].into(), port: 1, protocol: model::Protocol::Udp };
        let view = row(backend, vec![destination("a", "b", 0)], &Ids::new(), Vec::new());
        assert!(view.draining);
        let text = Backends { items: vec![view] }.text(Style { wide: true, headers: true });
        assert!(text.ends_with("<none>   <none>       <none>   <none>\n"), "{text}");
    }
}
