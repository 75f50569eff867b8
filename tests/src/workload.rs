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
    web: BTreeMap<String, [HttpServer; 2]>,
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
            let serve = |at| HttpServer::start(&pod.namespace, at, &pod.name);
            let [ipv4, ipv6] = listening(pod, WEB_TARGET_PORT);
            self.web.insert(pod.name.clone(), [serve(ipv4)?, serve(ipv6)?]);
        } else if pod.name.starts_with("dns-") {
            for at in listening(pod, DNS_TARGET_PORT) {
                self.dns.push(DnsServer::start(&pod.namespace, at, &pod.name)?);
            }
        }
        Ok(())
    }

    /// Stops the web server of a pod.
    pub fn stop(&mut self, name: &str) {
        self.web.remove(name);
    }
}

fn listening(pod: &Pod, port: u16) -> [SocketAddr; 2] {
    let [_, ipv6] = pod.addresses();
    [SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::new(ipv6, port)]
}
