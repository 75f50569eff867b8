//! A small HTTP/1.1 server and client, enough to see who answers, from where, and what arrives.

mod client;
mod message;
mod server;

pub use client::{Connection, Source, get_once};
pub use server::HttpServer;
