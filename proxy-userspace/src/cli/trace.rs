//! `passlane trace`: what becomes of a packet, and why.

use std::path::PathBuf;

use clap::Args;

use super::{
    Failure, FormatFlag, dump,
    output::{Style, View},
};
use crate::{
    config::Paths,
    explain::{self, Packet, Trace},
};

/// The flags of `passlane trace`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// tcp, udp or sctp
    #[arg(value_name = "PROTOCOL")]
    protocol: String,
    /// Who sends it: 10.244.1.5:4000 or [fd00::5]:4000
    #[arg(value_name = "SOURCE")]
    source: String,
    /// What it is sent to: 10.96.0.10:53 or [fd00::10]:53
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// The interface it comes in by; a process of the node sends by none
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Ask a file that passlane dump wrote, instead of this node
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
}

/// Prints the way of the packet.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let packet = Packet::parse(&flags.protocol, &flags.source, &flags.destination)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let packet = Packet { interface: flags.interface.clone(), ..packet };
    let dump = match &flags.dump {
        Some(path) => dump::read(path)?,
        None => dump::gather(&flags.paths, Some(&packet))?,
    };
    if let Some(name) = &packet.interface
        && !dump.interfaces.iter().any(|interface| interface.name == *name)
    {
        return Err(Failure::Usage(format!("--interface {name}: the node has no such interface")));
    }
    Ok(flags.format.show(&explain::trace(&dump, &packet))?)
}

impl View for Trace {
    const KIND: &'static str = "Trace";

    fn text(&self, _: Style) -> String {
        let line =
            |step: &explain::Step| format!("{:12}{}\n", format!("{}:", step.topic), step.says);
        self.steps.iter().map(line).collect()
    }
}
