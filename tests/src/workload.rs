//! What the pods of a topology serve, by their names.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;

use crate::dns::DnsServer;
use crate::http::HttpServer;
use crate::objects::{DNS_TARGET_PORT, WEB_TARGET_PORT};
use crate::topology::{Pod, Topology};

/// The servers of all pods whose names begin with `web-` or `dns-`.
#[derive(Debug, Default)]
pub struct Workload {
    web: BTreeMap<String, HttpServer>,
    dns: Vec<DnsServer>,
}

impl Workload {
    /// Starts the servers of all pods.
    pub fn start(topology: &Topology) -> Result<Self> {
        let mut workload = Self::default();
        for pod in topology.pods() {
            workload.serve(pod)?;
        }
        Ok(workload)
    }

    /// Starts the server of one more pod, if its name calls for one.
    pub fn serve(&mut self, pod: &Pod) -> Result<()> {
        if pod.name.starts_with("web-") {
            let server = HttpServer::start(&pod.namespace, any(WEB_TARGET_PORT), &pod.name)?;
            self.web.insert(pod.name.clone(), server);
        } else if pod.name.starts_with("dns-") {
            let server = DnsServer::start(&pod.namespace, any(DNS_TARGET_PORT), &pod.name)?;
            self.dns.push(server);
        }
        Ok(())
    }

    /// Stops the web server of a pod.
    pub fn stop(&mut self, name: &str) {
        self.web.remove(name);
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}
