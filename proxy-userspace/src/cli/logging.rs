//! Logs on stderr: one line a change of state.

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, LogLevel, Logging};

/// Starts logging for this process.
pub(super) fn start(logging: Logging) {
    // What libraries have to say is of interest only to who asks for everything; what kube warns of
    // at every try, our source says once.
    let filter = EnvFilter::new(match logging.level() {
        LogLevel::Info => "warn,kube_client=error,kube_runtime=error,proxy_userspace=info",
        LogLevel::Debug => "warn,kube_client=error,kube_runtime=error,proxy_userspace=debug",
        LogLevel::Trace => "debug,proxy_userspace=trace",
    });
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start would be a mistake of ours, and no reason to stop forwarding.
    let _ = match logging.format {
        LogFormat::Text => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}
