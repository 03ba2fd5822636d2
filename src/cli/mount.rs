//! `mount` and `umount`.

use anyhow::{Result, bail};
use clap::Args;

use super::args::{LogArgs, usage};
use super::source::BackendArgs;
use super::{print_result, print_text, say};
use crate::source;

/// Mount an image or a container of podman or buildah, for scripts.
///
/// Prints the path. The mount stays until 'umount'; backends count mounts, so call 'umount' once
/// for each 'mount'. Read it, do not write to it. As an ordinary user, run the whole script in
/// 'podman unshare' or 'buildah unshare': what is mounted there is seen nowhere else.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The image, fetched where it is not in the storage
    #[arg(value_name = "IMAGE", required_unless_present = "container")]
    image: Option<String>,

    /// Mount an existing container instead
    #[arg(long, value_name = "NAME", conflicts_with = "image")]
    container: Option<String>,

    #[command(flatten)]
    backend: BackendArgs,

    #[command(flatten)]
    log: LogArgs,
}

/// Undo what 'mount' did, or what killed processes have left.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// The image, the container, or the path that 'mount' printed
    #[arg(value_name = "WHAT", required_unless_present = "leftovers")]
    what: Vec<String>,

    /// Remove the mounts, containers and processes that processes of this program have left which
    /// were killed before they could; what others use stays. Each is named on standard output
    #[arg(long, conflicts_with = "what")]
    leftovers: bool,

    #[command(flatten)]
    backend: BackendArgs,

    #[command(flatten)]
    log: LogArgs,
}

impl MountArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

impl UmountArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Mounts and prints the path.
pub fn mount(args: &MountArgs) -> Result<()> {
    let backends = args.backend.detect()?;
    if !rustix::process::geteuid().is_root() {
        return Err(usage(format!(
            "an ordinary user's mounts are seen in the user namespace of {0} alone: run the script that needs them with '{0} unshare'",
            backends.first().kind()
        )));
    }
    let mounted = match (&args.image, &args.container) {
        (Some(image), _) => source::mount_image(&backends, image)?,
        (None, Some(name)) => source::mount_container(&backends, name)?,
        (None, None) => return Err(usage("name an image or a container".into())),
    };
    // What nobody was told of does not stay.
    print_result(&format!("{}\n", mounted.path()))?;
    mounted.keep();
    Ok(())
}

/// Unmounts.
pub fn umount(args: &UmountArgs) -> Result<()> {
    let backends = args.backend.enter()?;
    if !args.leftovers {
        return args
            .what
            .iter()
            .try_for_each(|what| source::release(&backends, what));
    }
    let found = source::remove_leftovers(&backends)?;
    for what in &found.removed {
        print_text(&format!("{what}\n"))?;
    }
    for what in &found.unseen {
        say(&format!(
            "left alone: {what} may be in use by a process in another PID namespace; run this outside of the container"
        ));
    }
    for what in &found.unknown {
        say(what);
    }
    match found.failed.as_slice() {
        [] => Ok(()),
        failed => bail!("could not remove all that is left: {}", failed.join("; ")),
    }
}
