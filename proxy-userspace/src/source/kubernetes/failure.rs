//! What went wrong with the API server, in words that name the cure.

use kube::runtime::watcher;

use super::objects;
use crate::{chain::chain, source::convert::Kind};

/// An error of one watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    /// For people.
    pub(super) text: String,
    pub(super) cure: Cure,
}

/// What to do besides trying again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cure {
    /// Nothing.
    Wait,
    /// The watch cannot go on where it was.
    Relist,
    /// This API server does not know the kind.
    Absent,
    /// Somebody has to give us a permission.
    Permission,
}

impl Failure {
    pub(super) fn of(kind: Kind, error: &watcher::Error) -> Self {
        let (verb, error) = match error {
            watcher::Error::InitialListFailed(error) => ("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                ("watch", error)
            }
            watcher::Error::WatchError(status) => return Self::of_status(kind, "watch", status),
            watcher::Error::NoResourceVersion => {
                let text = format!("watch {}: no resource version in it", objects::resource(kind));
                return Self { text, cure: Cure::Relist };
            }
        };
        match error {
            kube::Error::Api(status) => Self::of_status(kind, verb, status),
            error => {
                let text = format!("{verb} {}: {}", objects::resource(kind), plain(error));
                Self { text, cure: Cure::Wait }
            }
        }
    }

    fn of_status(kind: Kind, verb: &str, status: &kube::core::Status) -> Self {
        let resource = objects::resource(kind);
        let (text, cure) = match status.code {
            401 => (
                "the API server refuses our credentials (401): is the token expired? Token and \
                 certificates are read anew; see that somebody renews them"
                    .to_owned(),
                Cure::Wait,
            ),
            403 => (
                format!(
                    "no permission to {verb} {resource}: give the verbs list and watch on \
                     {resource} in the ClusterRole of our account; system:node-proxier has them"
                ),
                Cure::Permission,
            ),
            404 => (format!("{verb} {resource}: the API server does not know them"), Cure::Absent),
            // What was watched is too old, or newer than all that the server has.
            410 => (format!("{verb} {resource}: {}", status.message), Cure::Relist),
            _ if status.message.contains("Too large resource version") => {
                (format!("{verb} {resource}: {}", status.message), Cure::Relist)
            }
            429 | 500.. => (format!("{verb} {resource}: {}", said(status)), Cure::Wait),
            // A request of ours that it does not take: the next one may differ.
            _ => (format!("{verb} {resource}: {}", said(status)), Cure::Relist),
        };
        Self { text, cure }
    }
}

fn said(status: &kube::core::Status) -> String {
    match status.message.as_str() {
        "" => format!("status {}", status.code),
        message => format!("{message} (status {})", status.code),
    }
}

/// The causes without the layers of HTTP that say nothing.
fn plain(error: &kube::Error) -> String {
    let kube::Error::Service(error) = error else { return chain(error) };
    let text = chain(error.as_ref());
    text.strip_prefix("client error (Connect): ").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16, message: &str) -> Failure {
        let status = kube::core::Status::failure(message, "").with_code(code).boxed();
        let error = watcher::Error::WatchStartFailed(kube::Error::Api(status));
        Failure::of(Kind::EndpointSlice, &error)
    }

    #[test]
    fn a_missing_permission_names_resource_verb_and_role() {
        let failure = failure(403, "forbidden");
        assert_eq!(failure.cure, Cure::Permission);
        for word in ["watch", "endpointslices.discovery.k8s.io", "ClusterRole", "node-proxier"] {
            assert!(failure.text.contains(word), "{}", failure.text);
        }
    }

    #[test]
    fn what_is_too_old_or_too_new_is_listed_anew_and_an_outage_is_waited_for() {
        assert_eq!(failure(410, "too old resource version: 1 (2)").cure, Cure::Relist);
        assert_eq!(failure(504, "Timeout: Too large resource version: 9").cure, Cure::Relist);
        assert_eq!(failure(400, "bad").cure, Cure::Relist);
        for code in [401, 429, 500, 503, 504] {
            assert_eq!(failure(code, "later").cure, Cure::Wait, "{code}");
        }
        assert_eq!(failure(404, "").cure, Cure::Absent);
    }

    #[test]
    fn an_address_that_does_not_answer_is_told_with_its_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = watcher::Error::InitialListFailed(kube::Error::Service(refused.into()));
        let failure = Failure::of(Kind::Service, &error);
        assert_eq!(failure.text, "list services: connection refused");
    }
}
