//! Logs on stderr: one line a change of state.

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

/// How the agent logs.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// Log level: 0 to 3 say what changes, 4 and 5 each action, 6 and more everything
    #[arg(short, long = "v", value_name = "N", default_value_t = 2)]
    v: u8,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    logging_format: Format,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl Flags {
    /// Starts logging for this process.
    pub(super) fn start(&self) {
        let level = match self.v {
            0..=3 => "info",
            4 | 5 => "debug",
            _ => "trace",
        };
        // What libraries have to say is of interest only to who asks for everything; what
        // kube warns of at every try, our source says once.
        let others = match self.v {
            0..=5 => "warn,kube_client=error,kube_runtime=error",
            _ => "debug",
        };
        let filter = EnvFilter::new(format!("{others},proxy_userspace={level}"));
        let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        // A second start would be a mistake of ours, and no reason to stop forwarding.
        let _ = match self.logging_format {
            Format::Text => logs.with_ansi(false).try_init(),
            Format::Json => logs.json().flatten_event(true).try_init(),
        };
    }
}
