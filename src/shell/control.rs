//! The control socket: operators' questions, one JSON object a line, and their answers.
//!
//! Owns: the socket file, and the bounds on what comes through it.
//! Never: answers by itself, except about calls that are over, which the store knows.

use super::{exposure, store};
use crate::{
    ids::CallId,
    observe::{
        cdr::Cdr,
        explain::Story,
        status::{CdrQuery, Request, Response},
    },
};
use std::{
    fs,
    future::pending,
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Operators at a time; more wait.
const CLIENTS_MAX: usize = 16;
/// Longest question, in bytes.
const REQUEST_MAX: u64 = 64 * 1024;
/// Longest answer that the client accepts, in bytes.
const RESPONSE_MAX: u64 = 64 * 1024 * 1024;
/// How long a connection may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept: whatever ran out may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers what only the running program knows.
pub trait Admin: Send + Sync + 'static {
    /// Answers one question, or carries out one order. `Request::Cdr` never comes here.
    fn ask(&self, request: Request) -> impl Future<Output = Response> + Send;
}

/// Why an operator got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "no tandem answers at {path} (help: start `tandem run`, or name its configuration with \
         `-c`)"
    )]
    NotRunning {
        /// Where.
        path: PathBuf,
    },
    /// Somebody else's.
    #[error("{path} belongs to another user (help: run this as the user who runs tandem)")]
    NotAllowed {
        /// Where.
        path: PathBuf,
    },
    /// Another program listens already.
    #[error("another tandem listens at {path} (help: stop it, or set `[control] socket`)")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// There is something that we must not replace.
    #[error("{path} exists and is no socket (help: remove it, or set `[control] socket`)")]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The socket failed.
    #[error("the control socket {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
    /// It took too long.
    #[error("tandem does not answer")]
    TimedOut,
    /// The answer is none.
    #[error("tandem's answer cannot be read: {0} (help: both ends must be the same version)")]
    Garbled(serde_json::Error),
}

impl ControlError {
    fn at(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            Self::NotRunning { path }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::NotAllowed { path }
        } else {
            Self::Io { path, error }
        }
    }
}

/// The listening end. The file goes when this does.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Makes the socket, replacing what a dead program left. Only the owner may connect: the file
    /// appears under its name when its permissions are already set.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let io = |error| ControlError::Io { path: path.to_owned(), error };
        make_way(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(io)?;
        let nest = folder.join(format!(".t{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&nest).map_err(io)?;
        let bound = bind_in(&nest, path);
        fs::remove_dir_all(&nest).map_err(io)?;
        if let Some(risk) = exposure::of_folder(path) {
            let (path, help) = (path.display(), exposure::FOLDER_HELP);
            tracing::warn!(%path, %risk, help, "control socket exposed");
        }
        Ok(Self { listener: bound.map_err(io)?, path: path.to_owned() })
    }

    /// Answers until dropped.
    pub async fn serve<A: Admin>(self, admin: Arc<A>, store: store::Handle) {
        self.serve_until(admin, store, pending()).await;
    }

    /// Answers until `closing` has ended; then the file goes, and after it whoever was connected, in
    /// their own time.
    pub async fn serve_until<A: Admin>(
        self,
        admin: Arc<A>,
        store: store::Handle,
        closing: impl Future<Output = ()>,
    ) {
        let mut clients = JoinSet::new();
        self.welcome(admin, store, closing, &mut clients).await;
        while clients.join_next().await.is_some() {}
    }

    async fn welcome<A: Admin>(
        self,
        admin: Arc<A>,
        store: store::Handle,
        closing: impl Future<Output = ()>,
        clients: &mut JoinSet<()>,
    ) {
        let mut closing = pin!(closing);
        loop {
            tokio::select! {
                () = &mut closing => return drop(self),
                Some(_ended) = clients.join_next() => {}
                accepted = self.listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                    Ok((stream, _)) => {
                        clients.spawn(converse(stream, Arc::clone(&admin), store.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "control socket accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "control socket removal");
        }
    }
}

/// Makes sure that the path may be taken.
fn make_way(path: &Path) -> Result<(), ControlError> {
    let path = path.to_owned();
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => Err(ControlError::NotASocket { path }),
        Ok(_) => match std::os::unix::net::UnixStream::connect(&path) {
            Ok(_) => Err(ControlError::Taken { path }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(ControlError::at(&path, error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ControlError::Io { path, error }),
    }
}

fn bind_in(nest: &Path, path: &Path) -> io::Result<UnixListener> {
    let hidden = nest.join("s");
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
    fs::rename(&hidden, path)?;
    Ok(listener)
}

/// Serves one connection: any number of questions, one after the other.
async fn converse<A: Admin>(stream: UnixStream, admin: Arc<A>, store: store::Handle) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = vec![];
        let mut bounded = (&mut read).take(REQUEST_MAX);
        match timeout(IDLE_TIMEOUT, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
        let request = serde_json::from_slice(&line);
        let is_good = request.is_ok();
        let response = match request {
            Ok(request) => answer(&*admin, &store, request, ANSWER_TIMEOUT).await,
            Err(error) => Response::Refused(format!("not a question: {error}")),
        };
        let Ok(mut text) = serde_json::to_vec(&response) else { return };
        text.push(b'\n');
        let written = timeout(IDLE_TIMEOUT, write.write_all(&text)).await;
        if !is_good || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

async fn answer<A: Admin>(
    admin: &A,
    store: &store::Handle,
    request: Request,
    patience: Duration,
) -> Response {
    let past = match &request {
        Request::Cdr(query) => {
            return match store.cdrs(query.clone()).await {
                Ok(cdrs) => Response::Cdrs(cdrs),
                Err(error) => Response::Refused(error.to_string()),
            };
        }
        Request::CallShow { call } => Some(Past::Record(*call)),
        Request::CallLadder { call } => Some(Past::Ladder(*call)),
        Request::CallExplain { call } => Some(Past::Story(*call)),
        Request::Status
        | Request::Calls
        | Request::Phones
        | Request::Trunks
        | Request::Budgets
        | Request::ResetBudget { .. }
        | Request::Bans
        | Request::Lift { .. }
        | Request::Reload
        | Request::PlanReload
        | Request::Drain { .. }
        | Request::Upgrade
        | Request::Hangup { .. } => None,
    };
    let late = |_| Response::Refused("the answer takes too long".into());
    let response = timeout(patience, admin.ask(request)).await.unwrap_or_else(late);
    match past {
        Some(past) if matches!(response, Response::NotFound(_)) => {
            past.look_up(store).await.unwrap_or(response)
        }
        Some(_) | None => response,
    }
}

/// What the store may know of a call that is over.
enum Past {
    Record(CallId),
    Ladder(CallId),
    Story(CallId),
}

impl Past {
    async fn look_up(self, store: &store::Handle) -> Option<Response> {
        match self {
            Self::Record(call) => Some(Response::Record(Box::new(record(store, call).await?))),
            Self::Ladder(call) => store.ladder(call).await.ok()?.map(Response::Ladder),
            Self::Story(call) => {
                let cdr = record(store, call).await?;
                // Without its messages a call can still be told.
                let rungs = store.ladder(call).await.ok().flatten().unwrap_or_default();
                Some(Response::Story(Box::new(Story::of(&cdr, &rungs))))
            }
        }
    }
}

async fn record(store: &store::Handle, call: CallId) -> Option<Cdr> {
    let query = CdrQuery { limit: 1, call: Some(call.to_string()), ..CdrQuery::default() };
    store.cdrs(query).await.ok()?.into_iter().next()
}

/// Asks the program that listens at `path`.
pub async fn ask(path: &Path, request: &Request) -> Result<Response, ControlError> {
    let conversation = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = vec![];
        BufReader::new(stream.take(RESPONSE_MAX)).read_until(b'\n', &mut answer).await?;
        Ok(answer)
    };
    let answer = timeout(ANSWER_TIMEOUT + IDLE_TIMEOUT, conversation)
        .await
        .map_err(|_| ControlError::TimedOut)?
        .map_err(|error| ControlError::at(path, error))?;
    serde_json::from_slice(&answer).map_err(ControlError::Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ShardId,
        observe::{
            cdr::{Cdr, tests::refused},
            ladder::{Ladder, Line},
        },
        shell::store::{Store, Write},
    };

    /// Knows no call and has nothing to tell.
    struct Fake;

    impl Admin for Fake {
        async fn ask(&self, request: Request) -> Response {
            match request {
                Request::Status => Response::Status(Box::default()),
                Request::CallShow { .. }
                | Request::CallLadder { .. }
                | Request::CallExplain { .. } => Response::NotFound("no such call".into()),
                Request::Drain { .. } => pending().await,
                Request::Hangup { call } => Response::Done(format!("{call} ends")),
                Request::Calls
                | Request::Phones
                | Request::Trunks
                | Request::Budgets
                | Request::ResetBudget { .. }
                | Request::Bans
                | Request::Lift { .. }
                | Request::Cdr(_)
                | Request::Upgrade
                | Request::PlanReload
                | Request::Reload => Response::Refused("not now".into()),
            }
        }
    }

    /// A server with one past call in its store.
    async fn serving(folder: &Path) -> (PathBuf, JoinSet<()>, Cdr) {
        let store = Store::spawn(&folder.join("t.db")).unwrap();
        let now = crate::shell::now();
        let mut ladder = Ladder::new(now);
        ladder.record("a", "b", Line::request("INVITE", 1), now);
        let cdr = Cdr { ladder: Some(ladder.rungs()), ..refused(7) };
        store.handle().write(Write::Cdr(Box::new(cdr.clone())));
        store.handle().flush().await.unwrap();
        let path = folder.join("run/tandem.sock");
        let control = Control::bind(&path).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(control.serve(Arc::new(Fake), store.handle()));
        (path, tasks, cdr)
    }

    #[tokio::test]
    async fn questions_are_answered_by_who_knows() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _tasks, cdr) = serving(folder.path()).await;
        let unknown = CallId::new(ShardId(9), 9);
        let past = Cdr { ladder: None, ..cdr.clone() };
        for (request, want) in [
            (Request::Status, Response::Status(Box::default())),
            (Request::Hangup { call: unknown }, Response::Done("c09-9 ends".into())),
            (Request::Cdr(CdrQuery::default()), Response::Cdrs(vec![past.clone()])),
            (Request::CallShow { call: cdr.call }, Response::Record(Box::new(past))),
            (Request::CallLadder { call: cdr.call }, Response::Ladder(cdr.ladder.unwrap())),
            (Request::CallShow { call: unknown }, Response::NotFound("no such call".into())),
            (Request::CallLadder { call: unknown }, Response::NotFound("no such call".into())),
        ] {
            assert_eq!(ask(&path, &request).await.unwrap(), want);
        }
    }

    #[tokio::test]
    async fn one_connection_may_ask_again_until_it_talks_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _tasks, _) = serving(folder.path()).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"{\"ask\":\"reload\"}\n{\"ask\":\"calls\"}\nwhat?\n").await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 3, "{all}");
        assert_eq!(lines[0], r#"{"answer":"refused","with":"not now"}"#);
        assert!(lines[2].contains("not a question"), "{all}");
    }

    #[tokio::test]
    async fn an_endless_question_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _tasks, _) = serving(folder.path()).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let endless = vec![b'['; usize::try_from(REQUEST_MAX).unwrap() + 1];
        _ = stream.write_all(&endless).await;
        let mut answer = vec![];
        _ = stream.read_to_end(&mut answer).await;
        assert!(String::from_utf8_lossy(&answer).contains("not a question"));
    }

    #[tokio::test]
    async fn an_operator_does_not_wait_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::spawn(&folder.path().join("t.db")).unwrap();
        let response =
            answer(&Fake, &store.handle(), Request::Drain { within_s: None }, Duration::ZERO).await;
        assert_eq!(response, Response::Refused("the answer takes too long".into()));
    }

    #[tokio::test]
    async fn the_socket_is_the_owners_and_goes_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut tasks, _) = serving(folder.path()).await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(matches!(Control::bind(&path), Err(ControlError::Taken { .. })));
        tasks.shutdown().await;
        assert!(!path.exists());
        let gone = ask(&path, &Request::Status).await.unwrap_err();
        assert!(gone.to_string().contains("start `tandem run`"), "{gone}");
    }

    #[tokio::test]
    async fn what_a_dead_program_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (dead, file) = (folder.path().join("dead.sock"), folder.path().join("file"));
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        fs::write(&file, "precious").unwrap();
        let refused = ask(&dead, &Request::Status).await.unwrap_err();
        assert!(matches!(refused, ControlError::NotRunning { .. }), "{refused}");
        Control::bind(&dead).unwrap();
        assert!(matches!(Control::bind(&file), Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
