//! The traffic harness: a node with pods in namespaces, servers and clients in them, and the real
//! agent. Everything it makes is named after its process and removed when dropped.

pub mod agent;
pub mod cluster;
pub mod demo;
pub mod dns;
pub mod documents;
pub mod echo;
pub mod ending;
pub mod exposed;
pub mod flows;
pub mod foreign;
pub mod gateways;
pub mod hidden;
pub mod http;
pub mod icmp;
pub mod ipvs;
pub mod keepalived;
pub mod netns;
pub mod node_state;
pub mod objects;
pub mod polling;
pub mod process;
pub mod raw;
pub mod residue;
pub mod size;
pub mod slow_path;
pub mod spread;
pub mod stage;
pub mod tap;
pub mod topology;
pub mod transfer;
pub mod wait;
pub mod wire;
pub mod workload;
