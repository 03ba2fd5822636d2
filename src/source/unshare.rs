//! An ordinary user's images can only be mounted, and their owners only be seen, in the user
//! namespace of podman or buildah. The program starts itself again in there and stays outside: the
//! one inside ends when the one outside does, and the one outside waits until that has cleaned up.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::backend::Backend;
use super::choice::Backends;
use crate::oci::Stage;
use crate::undo::{self, Notice, Teller, Undo};

/// The variable that tells the program inside where the one outside listens.
const VARIABLE: &str = "APT_OSTREE_HELPER_OUTSIDE";
/// How long the program inside may take to clean up.
const CLEANING_UP: Duration = Duration::from_secs(120);

/// How long the backend may take to end after the program that it ran.
const BY_ITSELF: Duration = Duration::from_secs(1);

/// Where a job goes on.
#[derive(Debug)]
pub enum Unshared {
    /// In this process: it has, or needs, no other user namespace.
    Here,
    /// It was done by another process, which ended with this status.
    Done(ExitStatus),
}

/// Does the job in the user namespace of the backend, where this process is an ordinary user's.
///
/// # Errors
/// When there is no such namespace for the user: it needs subordinate ids (subuid(5)).
pub fn enter(backends: &Backends, tell: Teller) -> Result<Unshared> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        check_ids()?;
        let stream = UnixStream::connect(&path)
            .context("reaching the process outside of the user namespace")?;
        end_with(stream, tell)?;
        return Ok(Unshared::Here);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(Unshared::Here);
    }
    run_inside(&backends.first()).map(Unshared::Done)
}

/// Inside, more than one id must be mapped: else all files of an image would belong to one user.
fn check_ids() -> Result<()> {
    let map =
        std::fs::read_to_string("/proc/self/uid_map").context("reading /proc/self/uid_map")?;
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    let user = std::env::var("USER").unwrap_or_else(|_| "USER".into());
    ensure!(
        counts.sum::<u64>() > 1,
        "the user {user} has no subordinate user and group ids, without which the owners of an image's files cannot be told apart: as root, run 'usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}', and then as {user} 'podman system migrate'"
    );
    Ok(())
}

/// Ends this process in order when the one outside says so or is gone.
fn end_with(mut stream: UnixStream, tell: Teller) -> Result<()> {
    std::thread::Builder::new()
        .name("outside".into())
        .spawn(move || {
            let mut byte = [0];
            // A byte or the end of the stream: it is over either way.
            let _ = stream.read(&mut byte);
            tell(Notice::Begins("the process outside ends"));
            undo::undo_all_and_exit(&tell, 128 + Signal::TERM.as_raw());
            // That goes on in another thread. The kernel closes the stream with the process: by
            // that the one outside knows that all is undone.
            std::mem::forget(stream);
        })
        .context("starting a thread")?;
    Ok(())
}

/// Runs this program again, inside.
fn run_inside(backend: &Backend) -> Result<ExitStatus> {
    // The last to be undone: made before the rest.
    let directory = Stage::new_temporary()?;
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).with_context(|| format!("listening at {path}"))?;
    listener.set_nonblocking(true)?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(backend.kind().program());
    command.args(backend.unshare_words());
    command
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, &path);
    let inside = Arc::new(Mutex::new(Inside::default()));
    let (mut child, undo) = Undo::around(
        || command.spawn(),
        |child| {
            let (inside, pid) = (inside.clone(), child.id());
            move || end_inside(&inside, pid)
        },
    )
    .with_context(|| format!("starting {} unshare", backend.kind()))?;
    let undo = undo.called("what the process in the user namespace has mounted or started");
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        accept(&listener, &inside);
        std::thread::sleep(Duration::from_millis(10));
    };
    let reached = lock(&inside).stream.is_some() || accept(&listener, &inside);
    undo.disarm_with(|| Ok::<_, std::convert::Infallible>(()))?;
    if !reached && !status.success() {
        bail!(
            "'{} unshare' failed ({status}): it needs subordinate ids for the user (/etc/subuid, /etc/subgid) and the package uidmap (apt-get install uidmap)",
            backend.kind()
        );
    }
    Ok(status)
}

/// The connection to the process inside, once it is there.
#[derive(Debug, Default)]
struct Inside {
    stream: Option<UnixStream>,
}

fn lock(inside: &Mutex<Inside>) -> std::sync::MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &UnixListener, inside: &Mutex<Inside>) -> bool {
    match listener.accept() {
        Ok((stream, _)) => {
            lock(inside).stream = Some(stream);
            true
        }
        Err(_) => false,
    }
}

/// Tells the process inside to end and waits until it has: also one that is still on its way here
/// when the signal comes, which would go on to mount what it was asked for.
fn end_inside(inside: &Mutex<Inside>, child: u32) {
    let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else {
        return;
    };
    let mut start = Instant::now();
    while start.elapsed() < BY_ITSELF {
        let stream = lock(inside).stream.take();
        if let Some(stream) = stream {
            end_reached(stream);
            start = Instant::now();
        }
        if test_kill_process(pid).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that never came as far as that is ended here.
    let _ = kill_process(pid, Signal::TERM);
}

fn end_reached(mut stream: UnixStream) {
    let start = Instant::now();
    // When it has gone already, the stream ends at once.
    let _ = stream.write_all(b"!");
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(CLEANING_UP));
    let mut byte = [0];
    let _ = stream.read(&mut byte);
    tracing::debug!("the process inside ended after {:?}", start.elapsed());
}
