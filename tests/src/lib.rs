//! The traffic harness: a node with pods in namespaces, servers and clients in them, and the real
//! agent. Everything it makes is named after its process and removed when dropped.

pub mod agent;
pub mod dns;
pub mod http;
pub mod netns;
pub mod objects;
pub mod process;
pub mod residue;
pub mod slow_path;
pub mod topology;
pub mod transfer;
pub mod wait;
