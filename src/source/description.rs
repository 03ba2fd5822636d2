//! How podman and buildah are called: a table of words.

use std::fmt;
use std::path::Path;

/// What keeps images and containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// podman(1).
    Podman,
    /// buildah(1).
    Buildah,
}

/// How a program is called. `{image}`, `{name}` (of a container) and `{file}` stand for what a call
/// is about.
pub struct Description {
    pub program: &'static str,
    pub inspect_image: &'static [&'static str],
    pub inspect_container: &'static [&'static str],
    /// Where the image's id is in what `inspect_image` prints (a JSON pointer, RFC 6901).
    pub image_id: &'static str,
    /// Where the annotations of its manifest are.
    pub image_annotations: &'static str,
    /// Where the image's whole config is, as text.
    pub whole_config: Option<&'static str>,
    /// Where the id of a container's image is, if the config is to be taken from there.
    pub image_of_container: Option<&'static str>,
    pub pull: &'static [&'static str],
    pub pull_layout: &'static [&'static str],
    pub tag: &'static [&'static str],
    /// Removes one of several names of an image.
    pub untag: &'static [&'static str],
    pub build: &'static [&'static str],
    /// Mounts an image read-only and counts it; only what can be undone is here.
    pub mount_image: Option<&'static [&'static str]>,
    pub unmount_image: &'static [&'static str],
    /// Prints the ids of the images that are mounted.
    pub mounted_images: &'static [&'static str],
    pub create: &'static [&'static str],
    /// Whether that runs the ONBUILD instructions of an image, which changes what is in it.
    pub create_runs_onbuild: bool,
    pub mount: &'static [&'static str],
    pub unmount: &'static [&'static str],
    pub remove: &'static [&'static str],
    /// Prints the names of all containers that it can see, a line each.
    pub list: &'static [&'static str],
    /// Prints what is mounted.
    pub mounted_containers: &'static [&'static str],
    /// Where each of these names the container, and its mount.
    pub container_at: [&'static str; 2],
    pub info: &'static [&'static str],
    /// Where the storage and its driver are in what `info` prints.
    pub storage: [&'static str; 2],
    pub unshare: &'static [&'static str],
}

static PODMAN: Description = Description {
    program: "podman",
    inspect_image: &["image", "inspect", "{image}"],
    inspect_container: &["container", "inspect", "{name}"],
    image_id: "/0/Id",
    image_annotations: "/0/Annotations",
    whole_config: None,
    image_of_container: Some("/0/Image"),
    pull: &["pull", "--quiet", "{image}"],
    pull_layout: &["pull", "--quiet", "{file}"],
    tag: &["tag", "{image}", "{name}"],
    untag: &["rmi", "{name}"],
    build: &["build", "--iidfile={file}"],
    mount_image: Some(&["image", "mount", "{image}"]),
    unmount_image: &["image", "umount", "{image}"],
    mounted_images: &["image", "mount", "--format", "json"],
    // The command is never run; images without one cannot be created without it.
    create: &[
        "create",
        "--pull=never",
        "--network=none",
        "--label=apt-ostree-helper={name}",
        "--name={name}",
        "{image}",
        "apt-ostree-helper",
    ],
    create_runs_onbuild: false,
    mount: &["mount", "{name}"],
    unmount: &["umount", "{name}"],
    remove: &["rm", "--force", "{name}"],
    list: &["ps", "--all", "--external", "--format", "{{.Names}}"],
    mounted_containers: &["mount", "--format", "json"],
    container_at: ["/Names/0", "/mountpoint"],
    info: &["info", "--format", "json"],
    storage: ["/store/graphRoot", "/store/graphDriverName"],
    unshare: &["unshare"],
};

static BUILDAH: Description = Description {
    program: "buildah",
    inspect_image: &["inspect", "--type", "image", "{image}"],
    inspect_container: &["inspect", "--type", "container", "{name}"],
    image_id: "/FromImageID",
    image_annotations: "/ImageAnnotations",
    whole_config: Some("/Config"),
    // What `buildah config` has set is in the container.
    image_of_container: None,
    pull: &["pull", "--quiet", "{image}"],
    pull_layout: &["pull", "--quiet", "{file}"],
    tag: &["tag", "{image}", "{name}"],
    untag: &["rmi", "{name}"],
    build: &["build", "--iidfile={file}"],
    mount_image: None,
    unmount_image: &[],
    mounted_images: &[],
    create: &["from", "--pull=never", "--name={name}", "{image}"],
    create_runs_onbuild: true,
    mount: &["mount", "{name}"],
    unmount: &["umount", "{name}"],
    remove: &["rm", "{name}"],
    list: &["containers", "--format", "{{.ContainerName}}"],
    mounted_containers: &["mount", "--json"],
    container_at: ["/container", "/mountPoint"],
    info: &["info"],
    storage: ["/store/GraphRoot", "/store/GraphDriverName"],
    unshare: &["unshare"],
};

impl Kind {
    /// Both, in the order of preference outside of containers.
    pub const ALL: [Self; 2] = [Self::Podman, Self::Buildah];

    pub fn description(self) -> &'static Description {
        match self {
            Self::Podman => &PODMAN,
            Self::Buildah => &BUILDAH,
        }
    }

    /// The program's name.
    pub fn program(self) -> &'static str {
        self.description().program
    }

    pub fn is_installed(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| is_executable(&dir.join(self.program())))
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}
