//! What goes wrong with the API server, in words that name the cure.

use std::error::Error;

use kube::{core::Status, runtime::watcher};

use super::{login::LoginError, objects};
use crate::source::convert::Kind;

/// Why the watch of a kind cannot go on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// Nobody answers, or only that it cannot serve now.
    Outage {
        /// The innermost cause.
        cause: String,
    },
    /// Our credentials are refused.
    Unauthorized,
    /// A permission is missing.
    Forbidden {
        /// The verb that was tried.
        verb: &'static str,
    },
    /// This API server does not know the kind.
    Absent,
    /// The API server has forgotten where we were. That happens; a list helps.
    Forgotten {
        /// What it says.
        message: String,
    },
    /// It does not take what we ask. The next request may differ.
    Refused {
        /// What it says.
        message: String,
    },
}

impl Failure {
    pub(super) fn of(error: &watcher::Error) -> Self {
        let (verb, error) = match error {
            watcher::Error::InitialListFailed(error) => ("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                ("watch", error)
            }
            watcher::Error::WatchError(status) => return Self::of_status("watch", status),
            watcher::Error::NoResourceVersion => {
                return Self::Refused {
                    message: "an answer without a resource version".to_owned(),
                };
            }
        };
        match error {
            kube::Error::Api(status) => Self::of_status(verb, status),
            error => Self::Outage { cause: innermost(error) },
        }
    }

    fn of_status(verb: &'static str, status: &Status) -> Self {
        let message = match status.message.as_str() {
            "" => format!("status {}", status.code),
            message => format!("{message} (status {})", status.code),
        };
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden { verb },
            404 => Self::Absent,
            410 => Self::Forgotten { message },
            // Older than where we were: it lost data, or another one knows more.
            _ if status.message.contains("Too large resource version") => {
                Self::Forgotten { message }
            }
            429 | 500.. => Self::Outage { cause: message },
            _ => Self::Refused { message },
        }
    }

    /// Whether going on with the watch makes no sense.
    pub(super) fn wants_list(&self) -> bool {
        matches!(self, Self::Forgotten { .. } | Self::Refused { .. })
    }

    /// Whether waiting does not help: somebody has to do something.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Absent | Self::Forbidden { .. } | Self::Refused { .. })
    }

    /// Returns what one kind's failure is, for the log.
    pub(super) fn describe(&self, kind: Kind, addresses: &str) -> String {
        describe(&[(kind, self)], addresses)
    }
}

/// Returns what fails, each trouble once, whichever kinds have it.
pub(super) fn describe(failing: &[(Kind, &Failure)], addresses: &str) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut forbidden = Vec::new();
    for (kind, failure) in failing {
        let resource = objects::resource(*kind);
        let text = match failure {
            Failure::Outage { cause } => {
                format!("the API server ({addresses}) does not answer: {cause}")
            }
            Failure::Unauthorized => {
                "the API server refuses our credentials (401): is the token expired? Token and \
                 certificates are read anew; see that somebody renews them"
                    .to_owned()
            }
            Failure::Forbidden { verb } => {
                forbidden.push(format!("{verb} {resource}"));
                continue;
            }
            Failure::Absent => {
                format!(
                    "the API server ({addresses}) has no {resource}: it is no Kubernetes 1.21 or later"
                )
            }
            Failure::Forgotten { message } | Failure::Refused { message } => {
                format!("{resource}: {message}")
            }
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if !forbidden.is_empty() {
        texts.push(format!(
            "no permission to {}: give our account a ClusterRole with the verbs list and watch on \
             it; system:node-proxier has them",
            forbidden.join(", ")
        ));
    }
    texts.join("; ")
}

/// The cause without the layers of HTTP around it, which say nothing more; of what goes wrong on
/// this node, all of it.
fn innermost(error: &kube::Error) -> String {
    let mut error: &(dyn Error + 'static) = error;
    loop {
        if let Some(error) = error.downcast_ref::<LoginError>() {
            return error.to_string();
        }
        match error.source() {
            Some(cause) => error = cause,
            None => break,
        }
    }
    let text = error.to_string();
    // rustls adds where to read more.
    text.split(": https://").next().map_or_else(String::new, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16, message: &str) -> Failure {
        let status = Status::failure(message, "").with_code(code).boxed();
        Failure::of(&watcher::Error::WatchStartFailed(kube::Error::Api(status)))
    }

    #[test]
    fn missing_permissions_are_one_text_with_resources_verbs_and_role() {
        let failure = failure(403, "forbidden");
        let both = [(Kind::Service, &failure), (Kind::EndpointSlice, &failure)];
        let text = describe(&both, "https://a");
        assert_eq!(text.matches("ClusterRole").count(), 1);
        assert!(text.contains("watch services, watch endpointslices.discovery.k8s.io"), "{text}");
    }

    #[test]
    fn what_is_too_old_or_too_new_is_listed_anew_and_an_outage_is_waited_for() {
        for (code, message) in [
            (410, "too old resource version: 1 (2)"),
            (504, "Timeout: Too large resource version: 9"),
            (400, "bad"),
        ] {
            assert!(failure(code, message).wants_list(), "{code}");
        }
        for code in [429, 500, 503, 504] {
            assert!(matches!(failure(code, "later"), Failure::Outage { .. }), "{code}");
        }
        assert_eq!(failure(401, ""), Failure::Unauthorized);
        assert_eq!(failure(404, ""), Failure::Absent);
    }

    #[test]
    fn an_outage_of_all_kinds_is_one_text_with_its_innermost_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = watcher::Error::InitialListFailed(kube::Error::Service(refused.into()));
        let failure = Failure::of(&error);
        let all = objects::KINDS.map(|kind| (kind, &failure));
        assert_eq!(
            describe(&all, "https://a, https://b"),
            "the API server (https://a, https://b) does not answer: connection refused"
        );
    }

    #[test]
    fn what_goes_wrong_on_this_node_keeps_its_cure() {
        let token = LoginError::NoToken("/run/token".into());
        let error = watcher::Error::InitialListFailed(kube::Error::Service(token.into()));
        let text = Failure::of(&error).describe(Kind::Service, "https://a");
        assert!(text.contains("/run/token holds no token; write"), "{text}");
    }
}
