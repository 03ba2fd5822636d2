//! Builds an image from a Containerfile with podman or buildah.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::backend::Backend;
use super::build_container;
use super::choice::Backends;
use super::mount::warn_of_leftover;
use crate::oci::Stage;
use crate::process::{Call, Outcome, Owner};
use crate::undo::Undo;

/// What is built, as `podman build` and `buildah build` call it.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The directory of the context.
    pub context: Utf8PathBuf,
    /// The Containerfile, when not the context's.
    pub file: Option<Utf8PathBuf>,
    /// Variables of the build, `NAME=VALUE` or `NAME`.
    pub build_args: Vec<String>,
    /// The stage to build, when not the last.
    pub target: Option<String>,
    /// `OS/ARCHITECTURE[/VARIANT]`, when not this machine's.
    pub platform: Option<String>,
    /// More options of the backend's.
    pub more: Vec<String>,
}

impl BuildOptions {
    /// Adds the options and the context to a call that builds. What a user gives to the build is
    /// told by its name alone: its value may be a secret.
    fn add_to(&self, call: Call, file: Option<&Utf8Path>) -> Call {
        let mut call = call;
        if let Some(file) = file {
            call = call.word(format!("--file={file}"));
        }
        for argument in &self.build_args {
            call = match argument.split_once('=') {
                Some((name, _)) => call.hidden(
                    format!("--build-arg={argument}"),
                    format!("--build-arg={name}=..."),
                ),
                None => call.word(format!("--build-arg={argument}")),
            };
        }
        if let Some(target) = &self.target {
            call = call.word(format!("--target={target}"));
        }
        if let Some(platform) = &self.platform {
            call = call.word(format!("--platform={platform}"));
        }
        // The backend does not take the one with the other.
        let is_no_hosts = |option: &String| option.starts_with("--no-hosts");
        if !self.more.iter().any(is_no_hosts) {
            call = call.word(build_container::mark());
        }
        for option in &self.more {
            let shown = match option.split_once('=') {
                _ if !option.starts_with('-') => "...".to_owned(),
                Some((name, _)) => format!("{name}=..."),
                None => option.clone(),
            };
            call = call.hidden(option, shown);
        }
        // A directory may have a name that the backend would take for an option, or for standard
        // input.
        call.word(match self.context.as_str().starts_with('-') {
            true => format!("./{}", self.context),
            false => self.context.to_string(),
        })
    }

    /// Where the Containerfile is that is named: seen from here, else in the context, as the
    /// backends look for it.
    fn find_file(&self) -> Result<Option<Utf8PathBuf>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let places = [file.clone(), self.context.join(file)];
        let found = places.iter().find(|path| path.is_file());
        let found = found.with_context(|| {
            format!(
                "there is no Containerfile at {file}, seen from here or from the context {}",
                self.context
            )
        })?;
        Ok(Some(found.clone()))
    }
}

/// Builds an image with the preferred backend, whose output is shown on standard error as it
/// comes, and returns the image's id. The image stays in the storage, as its cache.
///
/// # Errors
/// When the context is not there, or the backend fails; no container of the build is left.
pub fn build(backends: &Backends, options: &BuildOptions) -> Result<String> {
    ensure!(
        options.context.is_dir(),
        "the context {} is not a directory; give the one that holds the Containerfile and what it copies",
        options.context
    );
    let file = options.find_file()?;
    let backend = backends.first();
    // Dropped after the guard below, which needs nothing of it.
    let stage = Stage::new_temporary()?;
    let iidfile = stage.path().join("iid");
    let outcome = Outcome::default();
    let done = Arc::new(AtomicBool::new(false));
    let undo = {
        let (backend, outcome, done) = (backend.clone(), outcome.clone(), done.clone());
        Undo::later(move || {
            // By what it has built, not by its status: podman 4.3 ends with 0 on SIGTERM.
            if outcome.is_started() && !done.load(Ordering::SeqCst) {
                remove_working(&backend);
            }
        })
        .called("containers in which an image is built")
    };
    // What a killed backend leaves in its directory of temporary files goes with ours.
    let temporary = [("TMPDIR".to_owned(), stage.path().to_string())];
    let call = backend.build(iidfile.as_str()).environment(temporary);
    let call = options.add_to(call, file.as_deref());
    call.shown().run_telling(&outcome).with_context(|| {
        format!(
            "building the image in {} with {}",
            options.context,
            backend.kind()
        )
    })?;
    let id = std::fs::read_to_string(&iidfile)
        .with_context(|| format!("{} built the image but did not tell its id", backend.kind()))?;
    let id = id.trim().trim_start_matches("sha256:").to_owned();
    ensure!(
        !id.is_empty(),
        "{} built the image but did not tell its id",
        backend.kind()
    );
    done.store(true, Ordering::SeqCst);
    drop(undo);
    Ok(id)
}

/// Removes the containers in which this process had something built.
fn remove_working(backend: &Backend) {
    let containers = match build_container::all(backend) {
        Ok(containers) => containers,
        Err(e) => return tracing::warn!("could not look for containers of the build: {e:#}"),
    };
    for container in containers
        .iter()
        .filter(|c| c.owner == *Owner::this_process())
    {
        if let Err(e) = container.remove(backend) {
            warn_of_leftover("remove a container of the build", &e);
        }
    }
}
