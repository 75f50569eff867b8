//! Logs on stderr: one line a change of state, repeats left out.

mod repeats;

use tracing_subscriber::{EnvFilter, fmt};

use repeats::{Limited, Shape};

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
        LogFormat::Text => logs
            .with_ansi(false)
            .map_event_format(|format| Limited::new(format, Shape::Text))
            .try_init(),
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .map_event_format(|format| Limited::new(format, Shape::Json))
            .try_init(),
    };
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    /// Adds the events of all log lines below a directory. A line without one is an error.
    fn events(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                events(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for level in ["trace!(", "debug!(", "info!(", "warn!(", "error!("] {
                for line in code.split(level).skip(1) {
                    let rest = line.trim_start().strip_prefix("event = \"");
                    let rest = rest.unwrap_or_else(|| panic!("{}: {line:.60}", path.display()));
                    found.insert(rest.split('"').next().unwrap().to_owned());
                }
            }
        }
    }

    #[test]
    fn every_log_line_names_its_event_and_logs_md_has_them_all() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::new();
        events(&root.join("src"), &mut found);
        let table = fs::read_to_string(root.join("../LOGS.md")).unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let first = rows.filter_map(|row| row.split('|').nth(1));
        let named =
            first.flat_map(|cell| cell.split(',')).map(|name| name.trim().trim_matches('`'));
        let named: BTreeSet<String> = named.map(str::to_owned).collect();
        let missing: Vec<_> = found.difference(&named).collect();
        let gone: Vec<_> = named.difference(&found).collect();
        assert!(missing.is_empty() && gone.is_empty(), "LOGS.md lacks {missing:?}, has {gone:?}");
    }
}
