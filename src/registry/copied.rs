//! Images in the storage of podman and buildah. It keeps layers unpacked and knows them by other
//! digests than manifests do, which the proxy of skopeo 1.9 does not bridge: skopeo copies the image to a
//! temporary layout.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::checksum::Checksum;
use crate::oci::Stage;
use crate::oci::read::{Blobs, Layout};
use crate::undo::Undo;

/// A copy of an image that goes with this value.
pub struct Copied {
    layout: Layout,
    _stage: Stage,
}

impl Copied {
    /// Whether an image that skopeo calls `name` has to be copied.
    pub fn is_for(name: &str) -> bool {
        name.starts_with("containers-storage:")
    }

    /// Copies the image.
    ///
    /// # Errors
    /// When skopeo is missing or fails: what it says is in the error.
    pub fn new(name: &str) -> Result<Self> {
        let stage = Stage::new_temporary()?;
        let path = stage.path().join("image");
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--dest-oci-accept-uncompressed-layers"]);
        command.arg(name).arg(format!("oci:{path}"));
        run(&mut command).with_context(|| format!("copying {name} with skopeo"))?;
        Ok(Self {
            layout: Layout::new(&path)?,
            _stage: stage,
        })
    }
}

impl Blobs for Copied {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        self.layout.open(digest)
    }

    fn index_json(&self) -> Result<Value> {
        self.layout.index_json()
    }
}

/// Runs a command that must succeed; it does not outlive us.
fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let spawn = || command.stderr(Stdio::piped()).spawn();
    let (mut child, undo) = Undo::around(spawn, |child| {
        let pid = pid(child);
        move || {
            // It may have ended by itself.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
    })
    .context("starting skopeo; install the package skopeo (1.9 or newer)")?;
    let mut messages = String::new();
    if let Some(stderr) = &mut child.stderr {
        // What is no text is no message.
        let _ = stderr.read_to_string(&mut messages);
    }
    let status = child.wait()?;
    undo.disarm_with(|| Ok::<_, std::convert::Infallible>(()))?;
    if !status.success() {
        bail!("it ended with {status}: {}", messages.trim());
    }
    Ok(())
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}
