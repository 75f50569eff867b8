//! The agent's side.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

use super::{Answer, Question, SOCKET, VERSION};

/// Bytes of a question.
const MOST: u64 = 4096;
/// Who is asked at the same time; others wait for their turn.
const CONNECTIONS: usize = 8;
/// A peer that does not write, or not read, for so long is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel refuses for a moment when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("make the admin socket {path}: --state-dir must be a directory that takes sockets")]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// A question that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// The question.
    pub question: Question,
    reply: oneshot::Sender<Result<Value, String>>,
}

impl Request {
    /// Answers. That nobody waits any more is fine.
    pub fn answer(self, answer: Result<Value, String>) {
        let _ = self.reply.send(answer);
    }
}

/// Opens the socket; it serves until the receiver is dropped. Must be called within a tokio runtime.
///
/// # Errors
///
/// [`Error`].
pub fn open(state_dir: &Path) -> Result<mpsc::Receiver<Request>, Error> {
    let path = state_dir.join(SOCKET);
    let listener = listen(&path).map_err(|source| Error { path, source })?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(serve(listener, sender));
    Ok(receiver)
}

/// The socket gets its name when its mode is right.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requests.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(attend(stream, requests.clone(), permit));
            }
            Err(error) => {
                warn!(event = "admin_failed", %error, "a connection to the admin socket is lost");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn attend(
    mut stream: UnixStream,
    requests: mpsc::Sender<Request>,
    _permit: OwnedSemaphorePermit,
) {
    let answer = match may_ask(&stream) {
        true => match timeout(PATIENCE, read(&mut stream)).await {
            Ok(Ok(question)) => ask(question, &requests).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err("no question came in time".into()),
        },
        false => Err("only root and the user of the agent may ask".into()),
    };
    let answer = match answer {
        Ok(value) => Answer { version: VERSION, ok: Some(value), error: None },
        Err(error) => Answer { version: VERSION, ok: None, error: Some(error) },
    };
    let Ok(mut text) = serde_json::to_vec(&answer) else { return };
    text.push(b'\n');
    if !matches!(timeout(PATIENCE, stream.write_all(&text)).await, Ok(Ok(()))) {
        debug!(event = "admin_unread", "an answer was not read");
    }
}

/// Says whether the peer is root, or the user that the agent runs as. The mode of the socket says
/// the same, but somebody may have been handed a descriptor.
fn may_ask(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn read(stream: &mut UnixStream) -> Result<Question, String> {
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream).take(MOST);
    limited.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
    parse(&line)
}

fn parse(line: &[u8]) -> Result<Question, String> {
    if line.last() != Some(&b'\n') {
        return Err(format!("a question is one line of at most {MOST} bytes"));
    }
    let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let version = value.get("version").and_then(Value::as_u64);
    if version != Some(VERSION.into()) {
        return Err(format!("this agent speaks version {VERSION}: use the passlane of the agent"));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

async fn ask(question: Question, requests: &mpsc::Sender<Request>) -> Result<Value, String> {
    let ends = || "the agent ends".to_owned();
    let (reply, answer) = oneshot::channel();
    requests.send(Request { question, reply }).await.map_err(|_| ends())?;
    answer.await.map_err(|_| ends())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Verb, client};

    fn answering() -> (tempfile::TempDir, tokio::runtime::Runtime) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut requests = {
            let _entered = runtime.enter();
            open(directory.path()).unwrap()
        };
        runtime.spawn(async move {
            while let Some(request) = requests.recv().await {
                let answer = match request.question.verb {
                    Verb::Fix => Err("not now".to_owned()),
                    verb => Ok(serde_json::json!({ "asked": verb, "all": request.question.all })),
                };
                request.answer(answer);
            }
        });
        (directory, runtime)
    }

    fn exchange(directory: &Path, question: &[u8]) -> Answer {
        use std::io::{Read as _, Write as _};
        let mut stream = std::os::unix::net::UnixStream::connect(directory.join(SOCKET)).unwrap();
        // What is refused at once may be refused before it is read.
        let _ = stream.write_all(question);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_question_gets_its_answer_and_the_socket_is_for_its_owner_only() {
        let (directory, _runtime) = answering();
        let mode = fs::metadata(directory.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let value: Value = client::ask(directory.path(), Verb::Diff, true).unwrap();
        assert_eq!(value, serde_json::json!({ "asked": "diff", "all": true }));
        let error = client::ask::<Value>(directory.path(), Verb::Fix, false).unwrap_err();
        assert!(matches!(&error, client::Error::Refused(why) if why == "not now"), "{error}");
    }

    #[test]
    fn what_is_no_question_is_refused_and_the_next_one_is_answered() {
        let (directory, _runtime) = answering();
        let long = vec![b'x'; 2 * MOST as usize];
        for (text, why) in [
            (&b"{\"version\":2,\"verb\":\"diff\"}\n"[..], "version 1"),
            (b"{\"version\":1,\"verb\":\"stop\"}\n", "unknown variant"),
            (b"{\"version\":1,\"verb\":\"diff\",\"force\":true}\n", "unknown field"),
            (b"hello\n", "expected"),
            (&long, "one line"),
        ] {
            let error = exchange(directory.path(), text).error.unwrap();
            assert!(error.contains(why), "{error}");
        }
        let answer = exchange(directory.path(), b"{\"version\":1,\"verb\":\"status\"}\n");
        assert!(answer.ok.is_some(), "{answer:?}");
    }

    #[test]
    fn peers_that_say_nothing_keep_nobody_from_asking() {
        let (directory, _runtime) = answering();
        let path = directory.path().join(SOCKET);
        let _silent: Vec<_> = (1..CONNECTIONS)
            .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
            .collect();
        let value: Value = client::ask(directory.path(), Verb::Status, false).unwrap();
        assert_eq!(value["asked"], "status");
    }

    #[test]
    fn without_an_agent_the_client_says_so() {
        let (directory, runtime) = answering();
        runtime.shutdown_background();
        let asked = || client::ask::<Value>(directory.path(), Verb::Status, false);
        let ends = std::time::Instant::now() + Duration::from_secs(5);
        while asked().is_ok() && std::time::Instant::now() < ends {
            std::thread::sleep(Duration::from_millis(10));
        }
        let error = asked().unwrap_err();
        assert!(matches!(error, client::Error::NoAgent), "{error}");
        let nowhere = client::ask::<Value>(Path::new("/nonexistent"), Verb::Status, false);
        assert!(matches!(nowhere.unwrap_err(), client::Error::NoAgent));
    }
}
