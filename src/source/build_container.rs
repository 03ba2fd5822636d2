//! The containers in which a backend runs the steps of a Containerfile. The backend removes them
//! when it is done. When a signal ends it, they stay mounted, with their processes. They cannot be
//! given a name, so each of our builds adds a unique host name to its list of hosts, which the
//! backend stores with each of these containers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::Result;
use camino::Utf8PathBuf;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::backend::Backend;
use super::mount::remove;
use crate::process::{Owner, numbers_are_ours, processes};

/// What follows the owner in the name of the host: a domain that never exists (RFC 6761, 6.4).
const DOMAIN: &str = ".apt-ostree-helper.invalid";
/// How long a killed process may take to go.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// The option that marks a build as one of this process.
pub fn mark() -> String {
    format!("--add-host={}{DOMAIN}:127.0.0.1", Owner::this_process())
}

/// A container of a build.
#[derive(Debug)]
pub struct BuildContainer {
    /// The process that had it built.
    pub owner: Owner,
    /// The container's name.
    pub name: String,
    mountpoint: Utf8PathBuf,
}

/// What buildah keeps with a container in which it builds (`define.Builder`; only what is needed).
#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "container-name")]
    name: String,
    #[serde(default)]
    mountpoint: String,
    #[serde(rename = "CommonBuildOpts")]
    options: Option<BuildOptions>,
}

#[derive(Debug, Deserialize)]
struct BuildOptions {
    #[serde(rename = "AddHost")]
    hosts: Option<Vec<String>>,
}

/// The containers of builds of ours, whoever of us had them built.
///
/// # Errors
/// When the backend does not tell where its storage is.
pub fn all(backend: &Backend) -> Result<Vec<BuildContainer>> {
    let directory = backend.container_directory()?;
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(state) = fs::read(entry.path().join("userdata/buildah.json")) else {
            continue;
        };
        found.extend(of_our_build(&state));
    }
    Ok(found)
}

/// The container that a backend describes, where one of our builds runs in it.
fn of_our_build(state: &[u8]) -> Option<BuildContainer> {
    let state: State = serde_json::from_slice(state).ok()?;
    let hosts = state.options?.hosts?;
    let owner = hosts
        .iter()
        .find_map(|host| host.split_once(DOMAIN)?.0.parse().ok())?;
    Some(BuildContainer {
        owner,
        name: state.name,
        mountpoint: state.mountpoint.into(),
    })
}

impl BuildContainer {
    /// Ends what runs in the container and removes it.
    ///
    /// # Errors
    /// When the backend cannot remove it.
    pub fn remove(&self, backend: &Backend) -> Result<()> {
        let start = Instant::now();
        while self.end_processes() && start.elapsed() < GONE_AFTER {
            std::thread::sleep(Duration::from_millis(20));
        }
        remove(backend, &self.name)
    }

    /// Kills the processes whose root directory is the container's, and tells whether there were
    /// any.
    fn end_processes(&self) -> bool {
        let Ok(root) = fs::metadata(&self.mountpoint) else {
            return false;
        };
        if !numbers_are_ours() {
            return false;
        }
        let mut found = false;
        for process in processes() {
            // The same file system object, in whichever mount namespace.
            let same = fs::metadata(format!("/proc/{process}/root/"))
                .is_ok_and(|other| (other.dev(), other.ino()) == (root.dev(), root.ino()));
            let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
            if let (true, Some(pid)) = (same, pid) {
                found = true;
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_build_is_known_by_its_host() {
        let host = mark().replace("--add-host=", "");
        let state = format!(
            r#"{{"container-name": "c", "mountpoint": "/m", "CommonBuildOpts": {{"AddHost": ["a:1.2.3.4", "{host}"]}}}}"#
        );
        let found = of_our_build(state.as_bytes()).unwrap();
        assert_eq!(
            (&found.owner, found.name.as_str()),
            (Owner::this_process(), "c")
        );
        for other in [
            "{}",
            r#"{"container-name": "c", "CommonBuildOpts": null}"#,
            r#"{"container-name": "c", "CommonBuildOpts": {"AddHost": null}}"#,
            r#"{"container-name": "c", "CommonBuildOpts": {"AddHost": ["x.apt-ostree-helper.invalid:127.0.0.1"]}}"#,
        ] {
            assert!(of_our_build(other.as_bytes()).is_none(), "{other}");
        }
    }
}
