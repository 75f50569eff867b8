//! Health checks: every option, and what is told of what is not understood.

use super::{read, service_of, service_text, texts};
use crate::{
    model::{Get, OnFailure, Probe, Service, Watching},
    source::{Kind, Stored},
};

fn annotated(annotations: &[(&str, &str)]) -> String {
    let fields = annotations.iter().map(|(name, value)| format!("passlane.io/{name}: {value:?}"));
    let rest = format!(", annotations: {{{}}}", fields.collect::<Vec<_>>().join(", "));
    service_text("ClusterIP", "", &rest)
}

fn watching(annotations: &[(&str, &str)]) -> Watching {
    let text = annotated(annotations);
    assert_eq!(read(&text).notices, [], "{annotations:?}");
    *service_of(&text).watching.unwrap()
}

fn check(value: &str) -> String {
    watching(&[("health-check", value)]).check.unwrap().to_string()
}

/// Returns the only notice of a Service.
fn notice(annotations: &[(&str, &str)]) -> (String, Option<Watching>) {
    let text = annotated(annotations);
    let notices = texts(read(&text).notices);
    let [notice] = &notices[..] else { panic!("{annotations:?}: {notices:?}") };
    (notice.clone(), service_of(&text).watching.map(|watching| *watching))
}

#[test]
fn a_check_has_the_usual_times_and_every_option_of_it_may_be_said() {
    for (value, expected) in [
        ("tcp", "tcp,interval=5000ms,timeout=2000ms,rise=2,fall=3,initial=up"),
        (
            "http",
            "http,path=/,status=200-299,interval=5000ms,timeout=2000ms,rise=2,fall=3,initial=up",
        ),
        (
            "https, path = /healthz?full=1, status=200-299+301+404, host=example.org, port=8443, \
             interval=500ms, timeout=250ms, rise=1, fall=5, initial=down",
            "https,path=/healthz?full=1,status=200-299+301+404,host=example.org,port=8443,\
             interval=500ms,timeout=250ms,rise=1,fall=5,initial=down",
        ),
        (
            "command,run=/usr/lib/check  %addr %port,interval=1m",
            "command,run=/usr/lib/check %addr %port,interval=60000ms,timeout=2000ms,rise=2,fall=3,\
             initial=up",
        ),
        // A short interval takes the usual timeout along.
        ("tcp,interval=1s", "tcp,interval=1000ms,timeout=1000ms,rise=2,fall=3,initial=up"),
    ] {
        assert_eq!(check(value), expected, "{value}");
        assert_eq!(check(expected), expected, "what is printed is understood");
    }
}

#[test]
fn ranges_of_status_codes_have_both_their_ends() {
    let Some(check) = watching(&[("health-check", "http,status=200-204+401")]).check else {
        panic!()
    };
    let Probe::Http(get) = check.probe else { panic!() };
    let well: Vec<u16> = (100..600).filter(|status| Get::accepts(&get, *status)).collect();
    assert_eq!(well, [200, 201, 202, 203, 204, 401]);
}

#[test]
fn a_check_that_is_not_understood_checks_nothing_and_says_why() {
    for (value, why) in [
        ("", "unknown check \"\""),
        ("ping", "unknown check \"ping\""),
        ("http:/healthz", "unknown check \"http:/healthz\""),
        ("tcp,path=/", "\"path=/\" is not understood"),
        ("http,path=healthz", "\"path=healthz\" is not understood"),
        ("http,path=/a b", "\"path=/a b\" is not understood"),
        ("http,host=a b", "\"host=a b\" is not understood"),
        ("http,status=99", "\"status=99\" is not understood"),
        ("http,status=299-200", "\"status=299-200\" is not understood"),
        ("tcp,port=0", "\"port=0\" is not understood"),
        ("tcp,port=+80", "\"port=+80\" is not understood"),
        ("tcp,interval=5", "\"interval=5\" is not understood"),
        ("tcp,interval=99ms", "\"interval=99ms\" is not understood"),
        ("tcp,interval=4294968s", "\"interval=4294968s\" is not understood"),
        ("tcp,rise=0", "\"rise=0\" is not understood"),
        ("tcp,fall=101", "\"fall=101\" is not understood"),
        ("tcp,initial=maybe", "\"initial=maybe\" is not understood"),
        ("tcp,fast", "\"fast\" is no option"),
        ("tcp,rise=1,rise=1", "rise is there twice"),
        ("tcp,interval=1s,timeout=2s", "timeout is from 10ms up to the interval"),
        ("command", "a command needs run=/PROGRAM"),
        ("command,run=check", "\"run=check\" is not understood"),
    ] {
        let (notice, watching) = notice(&[("health-check", value)]);
        let start = format!(
            "service shop/web: annotation passlane.io/health-check: {value:?}: {why}: backends are \
             not checked; write tcp, http, https or command"
        );
        assert!(notice.starts_with(&start), "{notice}");
        assert_eq!(watching, None, "{value}");
    }
}

#[test]
fn what_follows_a_failure_may_be_said() {
    let usual = watching(&[("health-check", "tcp")]);
    assert_eq!(
        (usual.on_failure, usual.quorum, usual.sorry_servers.len()),
        (OnFailure::Inhibit, 1, 0)
    );
    let all = watching(&[
        ("health-check", "tcp"),
        ("health-quorum", "2"),
        ("on-failure", "remove"),
        ("sorry-server", "192.0.2.9:80, [2001:db8::9]:8080"),
    ]);
    assert_eq!((all.on_failure, all.quorum), (OnFailure::Remove, 2));
    assert_eq!(texts(all.sorry_servers), ["192.0.2.9:80", "[2001:db8::9]:8080"]);
    let portless = watching(&[("sorry-server", "2001:db8::9,192.0.2.9")]);
    assert_eq!(texts(portless.sorry_servers), ["2001:db8::9", "192.0.2.9"]);
    assert_eq!(portless.check, None, "readiness may come from elsewhere");
}

#[test]
fn what_is_not_understood_of_it_has_its_default_and_leaves_the_rest() {
    for (name, value, expected) in [
        ("health-quorum", "0", "\"0\": not understood: 1 is used; write a number"),
        ("health-quorum", "two", "\"two\": not understood: 1 is used; write a number"),
        (
            "on-failure",
            "drop",
            "\"drop\": not understood: inhibit is used; write inhibit or remove",
        ),
        ("sorry-server", "sorry.example:80", "\"sorry.example:80\" is not understood: there is no"),
        ("sorry-server", "127.0.0.1:80", "\"127.0.0.1:80\" is not understood: there is no"),
        ("sorry-server", "192.0.2.9:0", "\"192.0.2.9:0\" is not understood: there is no"),
        ("sorry-server", "[2001:db8::9]", "\"[2001:db8::9]\" is not understood: there is no"),
        ("sorry-server", "192.0.2.9,192.0.2.8", "\"192.0.2.8\" is the second of its family: there"),
    ] {
        let (notice, found) = notice(&[("health-check", "tcp"), (name, value)]);
        assert!(notice.contains(&format!("annotation passlane.io/{name}: ")), "{notice}");
        assert!(notice.contains(expected), "{notice}");
        assert_eq!(found, Some(watching(&[("health-check", "tcp")])), "{value}");
    }
}

#[test]
fn a_bare_number_in_yaml_is_a_quorum() {
    let text = annotated(&[("sorry-server", "192.0.2.9")])
        .replace("passlane.io/sorry", "passlane.io/health-quorum: 3, passlane.io/sorry");
    assert_eq!(service_of(&text).watching.unwrap().quorum, 3);
}

#[test]
fn an_api_server_has_no_commands_run() {
    let stored = |check: &str| -> (Service, Vec<String>) {
        let object = serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "annotations": {
                "passlane.io/health-check": check,
            }},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
        });
        let stored: Stored = serde_json::from_value(object).unwrap();
        let outcome = stored.convert(Kind::Service, None);
        let Some(crate::source::Converted::Service(service)) = outcome.converted else { panic!() };
        (service, texts(outcome.notices))
    };
    let (service, notices) = stored("command,run=/bin/true");
    assert_eq!(service.watching, None);
    assert!(notices[0].contains("commands are run for Services from files only"), "{notices:?}");
    let (service, notices) = stored("tcp");
    assert!(service.watching.is_some() && notices.is_empty(), "{notices:?}");
}
