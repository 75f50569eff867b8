//! The servers on loopback, asked by real clients.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::*;
use crate::model::{LocalEndpoints, ServiceName};

const HOME: [&str; 1] = ["127.0.0.1"];
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn name(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), name: name.into() }
}

fn state(service: &str, local_endpoints: u32) -> ServiceState {
    let local_endpoints = LocalEndpoints { ipv4: Some(local_endpoints), ipv6: None };
    ServiceState { service: name(service), local_endpoints }
}

fn server<const N: usize>(addrs: [&str; N]) -> (ServiceHealth, Arc<ProxyHealth>) {
    let proxy = Arc::new(ProxyHealth::default());
    let addrs = addrs.map(|addr| addr.parse::<IpAddr>().unwrap());
    (ServiceHealth::new(addrs.into(), Arc::clone(&proxy)), proxy)
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

async fn ask(addr: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

/// Asks until the port is open.
async fn answer_to(addr: (&str, u16), request: &str) -> (String, Value) {
    let addr = SocketAddr::new(addr.0.parse().unwrap(), addr.1);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match ask(addr, request).await {
            Ok(response) if !response.is_empty() => {
                let (head, body) = response.split_once("\r\n\r\n").unwrap();
                return (head.to_owned(), serde_json::from_str(body).unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) => assert!(Instant::now() < deadline, "{addr}: {error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn a_service_is_answered_as_kube_proxy_answers() {
    let (mut health, _proxy) = server(HOME);
    let port = free_port();
    health.update([(port, state("web", 2))].into());
    let (head, body) = answer_to((HOME[0], port), GET).await;
    assert_eq!(status(&head), "200");
    let head = head.to_lowercase();
    for header in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 2",
    ] {
        assert!(head.lines().any(|line| line == header), "{header}: {head}");
    }
    let service = json!({ "namespace": "shop", "name": "web" });
    assert_eq!(
        body,
        json!({ "service": service, "localEndpoints": 2, "serviceProxyHealthy": true })
    );
    let post = "POST /any/path?x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answer_to((HOME[0], port), post).await, answer_to((HOME[0], port), GET).await);
}

#[tokio::test]
async fn a_node_without_endpoints_is_refused_until_it_has_one() {
    let (mut health, _proxy) = server(HOME);
    let port = free_port();
    for (count, expected) in [(0, "503"), (1, "200"), (0, "503")] {
        health.update([(port, state("web", count))].into());
        let (head, body) = answer_to((HOME[0], port), GET).await;
        assert_eq!(status(&head), expected);
        assert_eq!(body["localEndpoints"], count);
        assert_eq!(body["serviceProxyHealthy"], true);
    }
}

#[tokio::test]
async fn an_unhealthy_proxy_gets_no_traffic_whatever_endpoints_it_has() {
    let (mut health, proxy) = server(HOME);
    let port = free_port();
    health.update([(port, state("web", 3))].into());
    proxy.make_overdue();
    let (head, body) = answer_to((HOME[0], port), GET).await;
    assert_eq!(status(&head), "503");
    assert_eq!((&body["localEndpoints"], &body["serviceProxyHealthy"]), (&json!(3), &json!(false)));
    proxy.synced();
    assert_eq!(status(&answer_to((HOME[0], port), GET).await.0), "200");
}

#[tokio::test]
async fn by_default_both_families_are_served() {
    let (mut health, _proxy) = server([]);
    let port = free_port();
    health.update([(port, state("web", 1))].into());
    for addr in ["127.0.0.1", "::1"] {
        assert_eq!(status(&answer_to((addr, port), GET).await.0), "200", "{addr}");
    }
    assert!(health.problems().is_empty());
}

/// As with kube-proxy, whose proxies for the families know their own endpoints only.
#[tokio::test]
async fn who_asks_over_a_family_is_told_of_its_endpoints() {
    let (mut health, _proxy) = server([]);
    let port = free_port();
    let local_endpoints = LocalEndpoints { ipv4: Some(2), ipv6: Some(0) };
    health.update([(port, ServiceState { local_endpoints, ..state("web", 0) })].into());
    let (head, body) = answer_to(("127.0.0.1", port), GET).await;
    assert_eq!((status(&head), &body["localEndpoints"]), ("200", &json!(2)));
    let (head, body) = answer_to(("::1", port), GET).await;
    assert_eq!((status(&head), &body["localEndpoints"]), ("503", &json!(0)));
}

#[tokio::test]
async fn a_port_that_goes_ends_its_listener_and_its_connections() {
    let (mut health, _proxy) = server(HOME);
    let (port, kept) = (free_port(), free_port());
    health.update([(port, state("web", 1)), (kept, state("api", 1))].into());
    answer_to((HOME[0], port), GET).await;
    answer_to((HOME[0], kept), GET).await;
    let mut waiting = TcpStream::connect((HOME[0], port)).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    health.update([(kept, state("api", 1))].into());
    let ended = tokio::time::timeout(Duration::from_secs(2), waiting.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    let refused = TcpStream::connect((HOME[0], port)).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(status(&answer_to((HOME[0], kept), GET).await.0), "200");
    // The same port again, for another Service.
    health.update([(port, state("other", 1)), (kept, state("api", 1))].into());
    assert_eq!(answer_to((HOME[0], port), GET).await.1["service"]["name"], "other");
    drop(health);
    tokio::task::yield_now().await;
    assert!(TcpStream::connect((HOME[0], kept)).await.is_err());
}

#[tokio::test]
async fn a_port_that_somebody_has_is_named_and_opened_when_it_is_free() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut health, _proxy) = server(HOME);
    let (taken, open) = (other.local_addr().unwrap().port(), free_port());
    health.update([(taken, state("web", 1)), (open, state("api", 1))].into());
    assert_eq!(status(&answer_to((HOME[0], open), GET).await.0), "200", "others do not wait");
    let deadline = Instant::now() + Duration::from_secs(5);
    while health.problems().is_empty() {
        assert!(Instant::now() < deadline, "no problem is said");
        sleep(Duration::from_millis(5)).await;
    }
    let [problem] = health.problems().try_into().unwrap();
    let text = problem.to_string();
    for part in ["Service shop/web: ", "spec.healthCheckNodePort", &taken.to_string(), "in use"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(other);
    assert_eq!(status(&answer_to((HOME[0], taken), GET).await.0), "200");
    assert!(health.problems().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_little_is_shown_out() {
    let (mut health, _proxy) = server(HOME);
    let port = free_port();
    health.update([(port, state("web", 1))].into());
    answer_to((HOME[0], port), GET).await;
    for said in ["", "GET / HTTP/1.1\r\nHo"] {
        let started = Instant::now();
        let mut stream = TcpStream::connect((HOME[0], port)).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(started.elapsed() <= Duration::from_secs(6), "{said:?}: {:?}", started.elapsed());
    }
    let huge = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    let addr = SocketAddr::new(HOME[0].parse().unwrap(), port);
    let response = ask(addr, &huge).await.unwrap_or_default();
    assert!(response.is_empty() || status(&response).starts_with('4'), "{response}");
}

#[tokio::test(start_paused = true)]
async fn a_flooded_port_leaves_the_others_alone_and_answers_all_the_same() {
    let (mut health, _proxy) = server(HOME);
    let (flooded, other) = (free_port(), free_port());
    health.update([(flooded, state("web", 1)), (other, state("api", 1))].into());
    answer_to((HOME[0], flooded), GET).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect((HOME[0], flooded)).await.unwrap());
    }
    let started = Instant::now();
    assert_eq!(status(&answer_to((HOME[0], other), GET).await.0), "200");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(status(&answer_to((HOME[0], flooded), GET).await.0), "200");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    // All but 32 had to make room, the oldest first: the limit was kept.
    let mut ended = 0;
    for stream in &mut silent {
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await;
        ended += usize::from(read.is_ok());
        assert!(started.elapsed() < Duration::from_secs(5), "too late to tell");
    }
    assert!((68..=70).contains(&ended), "{ended}");
}

#[tokio::test]
async fn a_node_that_leaves_fails_healthz_and_not_livez() {
    let health = Arc::new(ProxyHealth::default());
    let port = free_port();
    let server = HealthServer::open(([127, 0, 0, 1], port).into(), Arc::clone(&health));
    let [healthz, livez] =
        ["healthz", "livez"].map(|path| format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    for (leaving, overdue, expected) in [
        (false, false, ["200", "200"]),
        (true, false, ["503", "200"]),
        (false, true, ["503", "503"]),
        (true, true, ["503", "503"]),
    ] {
        health.synced();
        health.set_node_leaving(leaving);
        if overdue {
            health.make_overdue();
        }
        let (head, body) = answer_to((HOME[0], port), &healthz).await;
        assert_eq!(status(&head), expected[0], "healthz: {leaving} {overdue}");
        assert_eq!(body["nodeEligible"], !leaving);
        let same = body["lastUpdated"] == body["currentTime"];
        assert_eq!(same, expected[0] == "200", "{body}");
        let (head, body) = answer_to((HOME[0], port), &livez).await;
        assert_eq!(status(&head), expected[1], "livez: {leaving} {overdue}");
        let keys: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["currentTime", "lastUpdated"]);
    }
    assert_eq!(status(&answer_to((HOME[0], port), GET).await.0), "404");
    assert_eq!(server.problem(), None);
}

#[test]
fn of_two_services_with_one_port_the_first_by_name_has_it() {
    let claim = |service, port| Claim { port, state: state(service, 1) };
    let claims = vec![claim("web", 32000), claim("api", 32000), claim("dns", 32001)];
    let (ports, problems) = assign(claims);
    let expected = [(32000, state("api", 1)), (32001, state("dns", 1))];
    assert_eq!(ports, BTreeMap::from(expected));
    let [problem] = problems.try_into().unwrap();
    assert_eq!(
        problem.to_string(),
        "Service shop/web: spec.healthCheckNodePort 32000 is that of Service shop/api too, which \
         has it; create one of them anew, so that it gets another port"
    );
}
