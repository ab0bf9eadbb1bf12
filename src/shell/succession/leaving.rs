//! The side of the process that leaves: starting its heir, and handing over.
//!
//! Owns: the heir's process until it serves.
//! Never: gives up anything before the heir could start; takes it back where the heir then fails.

use super::{
    SIGN, START_MAX, STEP_MAX, descriptors,
    frame::{Estate, FORMAT, Frame, Key, Word, garbled},
    pipe::Pipe,
};
use crate::{
    shard::Legacy,
    shell::{
        control::{Control, ControlError},
        doors::Doors,
        node::Node,
        shard_loop::Order,
    },
};
use std::{
    env, io,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// Why nothing was handed over. This process goes on.
#[derive(Debug, thiserror::Error)]
pub(in crate::shell) enum HandOverError {
    /// There is no program to start.
    #[error("cannot start {program}: {error}")]
    NotStarted {
        /// Which.
        program: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// It has ended, or said something else.
    #[error(
        "the new process does not come to serve: {0} (help: its log says why; `tandem check` too)"
    )]
    Failed(#[from] io::Error),
    /// Not even our own doors.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It is not the time.
    #[error("this process is draining (help: wait until it has ended, and start the new one)")]
    Draining,
}

/// Starts the program anew and hands everything over but the calls. Returns the new process's number.
///
/// # Errors
/// If that fails, with everything as it was.
pub(in crate::shell) async fn hand_over(node: &mut Node) -> Result<u32, HandOverError> {
    if node.is_draining() {
        return Err(HandOverError::Draining);
    }
    let (here, there) = UnixStream::pair()?;
    // An heir that does not listen holds up nobody for ever.
    here.set_write_timeout(Some(STEP_MAX))?;
    let mut heir = Heir(Some(start(there)?));
    let estate = estate(&node.doors, Key(node.key.secret()), node.shard_id.0);
    descriptors::send(&here, &node.doors.sockets())?;
    let here = blocking(move || {
        Frame::from(Word::Estate(estate)).write_to(&here)?;
        expect(here, Word::Ready, START_MAX)
    })
    .await?;

    node.doors.close().await;
    match go(node, here).await {
        Ok(()) => {
            node.doors.give_up();
            Ok(heir.let_go())
        }
        Err(error) => {
            // Before anybody comes in again, nobody else may be there.
            drop(heir);
            node.desk().order(Order::Stay).await;
            node.doors.open_again()?;
            Err(error.into())
        }
    }
}

/// Leaves, says so, and waits until the heir serves.
async fn go(node: &mut Node, stream: UnixStream) -> io::Result<()> {
    // The heir reads the registrations from there.
    node.store().flush().await.map_err(io::Error::other)?;
    let (pipe, end) = Pipe::new();
    let (reply, left) = oneshot::channel();
    node.desk().order(Order::Leave(pipe, reply)).await;
    let left = timeout(STEP_MAX, left).await.map_err(io::Error::other)?;
    let left = left.map_err(io::Error::other)?;
    // The heir is asked about our calls as soon as it serves.
    let control = Control::bind(&aside(&node.doors, node.shard_id.0));
    let Legacy { received, notes } = left.legacy;
    let go = Frame::go(&left.connections, &received, notes.len());
    let stream = blocking(move || {
        go.write_to(&stream)?;
        for note in notes {
            Frame::from(Word::Note(note)).write_to(&stream)?;
        }
        expect(stream, Word::Serving, STEP_MAX)
    })
    .await?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    tokio::spawn(end.carry_as_leaver(stream, node.ingress.clone()));
    match control {
        Ok(control) => node.doors.open_aside(control),
        // Its calls go on all the same; nobody can ask about them.
        Err(error) => tracing::warn!(%error, "no control socket for the calls that stay"),
    }
    node.desk().order(Order::Drain(None)).await;
    Ok(())
}

fn estate(doors: &Doors, key: Key, shard: u8) -> Estate {
    let name = |at: &crate::shell::routes::Listener| (at.transport.param().to_owned(), at.address);
    Estate {
        format: FORMAT,
        key,
        shard,
        listeners: doors.listeners().iter().map(name).collect(),
        has_http: doors.http().is_some(),
        aside: aside(doors, shard),
    }
}

/// Where operators reach the calls that stay: beside the socket that the heir has.
fn aside(doors: &Doors, shard: u8) -> PathBuf {
    let mut name = doors.control().as_os_str().to_owned();
    name.push(format!(".{shard:02x}"));
    name.into()
}

/// Starts the program that is installed now, as this one was started.
fn start(stdin: UnixStream) -> Result<Child, HandOverError> {
    let program = program()?;
    Command::new(&program)
        .args(env::args_os().skip(1))
        .env(SIGN, "stdin")
        // It names this process; the heir feeds the watchdog in its place.
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(stdin)))
        .spawn()
        .map_err(|error| HandOverError::NotStarted { program, error })
}

/// Where this program was read from; a newer one may be there now.
fn program() -> io::Result<PathBuf> {
    let path = env::current_exe()?;
    // So says the kernel of a file that was replaced.
    let replaced =
        path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.unwrap_or(path))
}

/// The heir, which ends with this unless it is let go.
struct Heir(Option<Child>);

impl Heir {
    fn let_go(&mut self) -> u32 {
        self.0.take().map_or(0, |heir| heir.id())
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(mut heir) = self.0.take() {
            let _ = heir.kill();
            let _ = heir.wait();
        }
    }
}

fn expect(stream: UnixStream, word: Word, patience: Duration) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(patience))?;
    let frame = Frame::read_from(&stream).map_err(|error| {
        let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
        if is_end { io::Error::new(error.kind(), "it has ended") } else { error }
    })?;
    if frame.word == word { Ok(stream) } else { Err(garbled("another word")) }
}

/// Reads and writes that wait for the other process hold up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
