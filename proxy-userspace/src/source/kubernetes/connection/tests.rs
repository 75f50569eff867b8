//! Against servers that answer as a broken API server would.

use std::{fs, sync::Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// What a server was asked for, as the text of its requests.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers every request by what `answer` makes of its text, and closes the connection.
async fn server(answer: fn(&str) -> &'static str) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let status = answer(&request);
            seen.lock().unwrap().push(request);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\
                 content-type: application/json\r\n\r\n{{}}"
            );
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    (port, asked)
}

async fn connection(login: Login) -> Arc<Connection> {
    Connection::new(login, Pace::new(0.0, 0), Limits::default()).await.unwrap()
}

fn at(ports: &[u16]) -> Login {
    let api_servers = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    Login { kubeconfig: None, api_servers }
}

async fn ask(client: &Client) -> Result<StatusCode, kube::Error> {
    let request = Request::get("/version").body(Body::empty()).unwrap();
    client.send(request).await.map(|response| response.status())
}

#[tokio::test]
async fn an_address_that_fails_is_left_and_one_that_serves_is_kept() {
    let (broken, asked_broken) = server(|_| "503 Service Unavailable").await;
    let (good, asked_good) = server(|_| "200 OK").await;
    // Nobody listens at the port of a listener that is gone.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let connection = connection(at(&[closed, broken, good])).await;
    let client = connection.client(None);
    assert!(ask(&client).await.is_err());
    assert_eq!(ask(&client).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..3 {
        assert_eq!(ask(&client).await.unwrap(), StatusCode::OK);
    }
    assert!(connection.address().await.contains(&good.to_string()));
    assert_eq!(asked_broken.lock().unwrap().len(), 1);
    assert_eq!(asked_good.lock().unwrap().len(), 3);
    let host = |port| format!("127.0.0.1:{port}");
    let key = |code: &str, port| (code.to_owned(), "GET".to_owned(), host(port));
    let requests = connection.requests();
    let counted: Vec<_> = requests
        .answers
        .entries()
        .iter()
        .map(|(key, count)| (key.clone(), count.value()))
        .collect();
    let expected = [(key("200", good), 3), (key("503", broken), 1), (key("<error>", closed), 1)];
    assert_eq!(counted, expected);
    let durations = requests.durations.entries();
    assert_eq!(durations[&("GET".to_owned(), host(good))].distribution().count(), 3);
}

#[tokio::test]
async fn a_refused_token_is_read_anew_at_the_next_request() {
    let (port, _) = server(|request| match request.contains("authorization: Bearer new") {
        true => "200 OK",
        false => "401 Unauthorized",
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let (token, kubeconfig) = (directory.path().join("token"), directory.path().join("config"));
    fs::write(&token, "old\n").unwrap();
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: a,\n\
         clusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:{port}'}}}}],\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}],\n\
         users: [{{name: a, user: {{tokenFile: '{}'}}}}]}}\n",
        token.display()
    );
    fs::write(&kubeconfig, text).unwrap();
    let login = Login { kubeconfig: Some(kubeconfig), api_servers: Vec::new() };
    let client = connection(login).await.client(None);
    assert_eq!(ask(&client).await.unwrap(), StatusCode::UNAUTHORIZED);
    fs::write(&token, "new\n").unwrap();
    assert_eq!(ask(&client).await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn good_answers_and_no_others_are_told() {
    let (port, _) = server(|request| match request.contains("/good") {
        true => "200 OK",
        false => "403 Forbidden",
    })
    .await;
    let (tell, mut told) = mpsc::channel(8);
    let client = connection(at(&[port])).await.client(Some((tell, Kind::Node)));
    assert_eq!(ask(&client).await.unwrap(), StatusCode::FORBIDDEN);
    assert!(told.try_recv().is_err());
    let request = Request::get("/good").body(Body::empty()).unwrap();
    client.send(request).await.unwrap();
    assert!(matches!(told.try_recv(), Ok((Kind::Node, Ok(Told::Answered)))));
}
