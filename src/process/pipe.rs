//! Reads what a program prints, as it arrives.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One end of a pipe, which a thread of its own reads.
#[derive(Debug)]
pub struct Pipe(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Pipe {
    /// Reads `pipe` to its end, and keeps its first `kept` bytes.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn read(mut pipe: impl Read + Send + 'static, kept: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let reader = shared.clone();
        let read_all = move || {
            let mut buffer = [0; 8192];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => {
                        let bytes = &mut reader.lock().bytes;
                        let free = kept.saturating_sub(bytes.len());
                        bytes.extend_from_slice(&buffer[..count.min(free)]);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // What was read before counts.
                    Err(_) => break,
                }
            }
            reader.lock().has_ended = true;
            reader.ended.notify_all();
        };
        std::thread::Builder::new()
            .name("pipe".into())
            .spawn(read_all)?;
        Ok(Self(shared))
    }

    /// What has come when the pipe ends, or after that time: somebody else may hold it open for
    /// ever.
    pub fn what_came_within(self, time: Duration) -> Vec<u8> {
        let state = self.0.lock();
        let waited = self
            .0
            .ended
            .wait_timeout_while(state, time, |state| !state.has_ended);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.bytes)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
