//! The API server, and logs.

use std::path::PathBuf;

use super::{
    Field,
    Shape::{List, Number, Text},
    USED, optional, shown, used,
};
use crate::config::{
    problem::Fault,
    settings::{LogFormat, Settings},
    tree::Value,
    values::{choice, rate, text, texts, whole},
};

pub(super) const FIELDS: &[Field] = &[
    used(
        ("clientConnection.kubeconfig", "kubeconfig"),
        Text,
        "kubeconfig for the API server [default: the Pod's service account]",
        |draft, value| {
            draft.settings.kubeconfig = Some(PathBuf::from(text(value)?));
            USED
        },
        |settings| optional(settings.kubeconfig.as_ref().map(|path| path.display())),
    ),
    used(
        ("", "master"),
        Text,
        "URL of the API server, instead of that of the kubeconfig",
        |draft, value| {
            draft.settings.api_servers = vec![url(text(value)?)?];
            USED
        },
        |_| Value::Null,
    ),
    used(
        ("passlane.apiServers", "api-servers"),
        List,
        "URLs of API servers, tried in order; goes before --master",
        |draft, value| {
            let urls = texts(value)?.into_iter().map(url).collect::<Result<_, _>>()?;
            draft.settings.api_servers = urls;
            USED
        },
        |settings| Value::texts(&settings.api_servers),
    ),
    used(
        ("clientConnection.qps", "kube-api-qps"),
        Number,
        "Requests a second to the API server [default: 5]",
        |draft, value| {
            // As in kube-proxy, 0 is the default.
            let rate = rate(value)?;
            let default = Settings::default().qps;
            draft.settings.qps = if rate == 0.0 { default } else { rate };
            USED
        },
        |settings| Value::Fraction(settings.qps.into()),
    ),
    used(
        ("clientConnection.burst", "kube-api-burst"),
        Number,
        "Requests to the API server at once [default: 10]",
        |draft, value| {
            let burst = whole(value, 0..=i32::MAX.unsigned_abs())?;
            let default = Settings::default().burst;
            draft.settings.burst = if burst == 0 { default } else { burst };
            USED
        },
        |settings| Value::Whole(settings.burst.into()),
    ),
    used(
        ("hostnameOverride", "hostname-override"),
        Text,
        "The name of this node's Node object [default: the host's name]",
        |draft, value| {
            let name = text(value)?.to_lowercase();
            if name.is_empty() || name.contains(char::is_whitespace) {
                let expected = "the name of a Node";
                return Err(Fault::UnknownValue { found: name, expected });
            }
            draft.settings.hostname_override = Some(name);
            USED
        },
        |settings| optional(settings.hostname_override.as_ref()),
    ),
    used(
        ("logging.verbosity", "v"),
        Number,
        "Log level: 0 to 3 say what changes, 4 and 5 each action, 6 and more everything \
         [default: 2]",
        |draft, value| {
            draft.settings.logging.verbosity = whole(value, 0..=u8::MAX)?;
            USED
        },
        |settings| Value::Whole(settings.logging.verbosity.into()),
    ),
    used(
        ("logging.format", "logging-format"),
        Text,
        "How log lines look: text or json [default: text]",
        |draft, value| {
            draft.settings.logging.format = choice(value, &LOG_FORMATS, "text or json")?;
            USED
        },
        |settings| match settings.logging.format {
            LogFormat::Text => shown("text"),
            LogFormat::Json => shown("json"),
        },
    ),
];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

fn url(text: &str) -> Result<String, Fault> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(Fault::UnknownValue {
            found: text.to_owned(),
            expected: "a URL such as https://192.0.2.10:6443",
        }),
    }
}
