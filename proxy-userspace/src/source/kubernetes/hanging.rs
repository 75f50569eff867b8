//! The source against API servers that take connections and hang: what was known stays, the status says
//! so, and what comes afterwards is taken up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{Kubernetes, Limits, Login, Options, State};
use crate::model::{Snapshot, Update};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_millis(300);

/// What the server does with requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Manner {
    Serves,
    /// It takes connections and requests, and says nothing.
    Mute,
    /// It begins lists and does not go on.
    StopsInLists,
    /// It begins watches and does not go on.
    StopsInWatches,
}

/// An API server with one Service.
struct Server {
    port: u16,
    manner: Arc<AtomicU8>,
}

impl Server {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(AtomicU8::new(manner as u8));
        let seen = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(attend(stream, Arc::clone(&seen)));
            }
        });
        Self { port, manner: shared }
    }

    fn turns(&self, manner: Manner) {
        self.manner.store(manner as u8, SeqCst);
    }
}

async fn attend(mut stream: TcpStream, manner: Arc<AtomicU8>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let is = |wanted: Manner| manner.load(SeqCst) == wanted as u8;
    if is(Manner::Mute) {
        return sleep(PATIENCE * 2).await;
    }
    if path.contains("watch=") {
        // Watches that are silent from the beginning, or until they are ended in order.
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        while !is(Manner::StopsInWatches) {
            let text = bookmark(&path);
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
            sleep(LIMIT / 6).await;
        }
        return sleep(PATIENCE * 2).await;
    }
    let body = list(&path);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    if is(Manner::StopsInLists) {
        let _ = stream.write_all(&body.as_bytes()[..body.len() / 2]).await;
        return sleep(PATIENCE * 2).await;
    }
    let _ = stream.write_all(body.as_bytes()).await;
}

/// Group and version, and kind, of what a path is about.
fn kind(path: &str) -> (&'static str, &'static str) {
    let kinds = [
        ("/services?", "v1", "Service"),
        ("/endpointslices?", "discovery.k8s.io/v1", "EndpointSlice"),
        ("/nodes?", "v1", "Node"),
        ("/servicecidrs?", "networking.k8s.io/v1", "ServiceCIDR"),
    ];
    let known = kinds.into_iter().find(|(word, ..)| path.contains(word));
    let (_, version, kind) = known.unwrap_or_else(|| panic!("{path}"));
    (version, kind)
}

fn list(path: &str) -> String {
    let (version, kind) = kind(path);
    let item = r#"{"metadata":{"name":"web","namespace":"shop","resourceVersion":"4"},
        "spec":{"clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10"],"ports":[{"port":80}]}}"#;
    let items = if kind == "Service" { item } else { "" };
    format!(
        r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{{"resourceVersion":"5"}},
        "items":[{items}]}}"#
    )
}

fn bookmark(path: &str) -> String {
    let (version, kind) = kind(path);
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\
         \"metadata\":{{\"resourceVersion\":\"6\"}}}}}}\n"
    )
}

async fn follow(servers: &[&Server]) -> Kubernetes {
    let api_servers = servers.iter().map(|server| format!("http://127.0.0.1:{}", server.port));
    let login = Login { kubeconfig: None, api_servers: api_servers.collect() };
    let limits = Limits { connect: LIMIT, answer: LIMIT, list: LIMIT, watch: LIMIT };
    let options = Options { qps: 0.0, limits, ..Options::new(login, "node-a".into()) };
    Kubernetes::start(options).await.unwrap()
}

/// Listens until `enough`, and returns what was told: the last snapshot, if there was one.
async fn listen(source: &mut Kubernetes, enough: impl Fn(&State) -> bool) -> Option<Snapshot> {
    let status = source.status();
    let mut last = None;
    let listening = async {
        loop {
            let state = status.borrow().state.clone();
            if enough(&state) {
                return;
            }
            tokio::select! {
                event = source.next() => match event.expect("the source goes on").update {
                    Some(Update::Replace(snapshot)) => last = Some(snapshot),
                    Some(Update::Change(changes)) => panic!("{changes:?}"),
                    None => {}
                },
                () = sleep(Duration::from_millis(10)) => {}
            }
        }
    };
    let listened = timeout(PATIENCE, listening).await;
    assert!(listened.is_ok(), "in vain: {:?}", status.borrow());
    // What is told with the state.
    while let Ok(Some(event)) = timeout(Duration::from_millis(100), source.next()).await {
        if let Some(Update::Replace(snapshot)) = event.update {
            last = Some(snapshot);
        }
    }
    last
}

fn away(state: &State) -> bool {
    matches!(state, State::Away { .. })
}

fn connected(state: &State) -> bool {
    *state == State::Connected
}

fn why(source: &Kubernetes) -> String {
    source.status().borrow().last_error.clone().unwrap().1
}

fn has_web(snapshot: Option<Snapshot>) -> bool {
    snapshot.is_some_and(|snapshot| snapshot.services.len() == 1)
}

#[tokio::test]
async fn a_server_that_takes_requests_and_says_nothing_is_told_and_left() {
    let server = Server::start(Manner::Mute).await;
    let mut source = follow(&[&server]).await;
    assert!(listen(&mut source, away).await.is_none(), "nothing is known, and nothing is told");
    assert!(why(&source).contains("no answer within"), "{}", why(&source));
    server.turns(Manner::Serves);
    assert!(has_web(listen(&mut source, connected).await));

    let (mute, serving) = (Server::start(Manner::Mute).await, Server::start(Manner::Serves).await);
    let mut source = follow(&[&mute, &serving]).await;
    assert!(has_web(listen(&mut source, connected).await), "the second address serves");
}

#[tokio::test]
async fn a_list_that_stops_in_its_middle_is_told_and_never_taken_for_a_whole_one() {
    let server = Server::start(Manner::StopsInLists).await;
    let mut source = follow(&[&server]).await;
    assert!(listen(&mut source, away).await.is_none());
    assert!(why(&source).contains("went silent"), "{}", why(&source));
    server.turns(Manner::Serves);
    assert!(has_web(listen(&mut source, connected).await));
}

#[tokio::test]
async fn watches_that_stop_are_told_and_what_was_known_stays() {
    let server = Server::start(Manner::Serves).await;
    let mut source = follow(&[&server]).await;
    assert!(has_web(listen(&mut source, connected).await));
    server.turns(Manner::StopsInWatches);
    let told = listen(&mut source, away).await;
    assert!(told.is_none(), "a silent watch changed what is known: {told:?}");
    assert!(why(&source).contains("went silent"), "{}", why(&source));
    server.turns(Manner::Serves);
    let told = listen(&mut source, connected).await;
    assert!(told.is_none(), "all was told anew: {told:?}");
}
