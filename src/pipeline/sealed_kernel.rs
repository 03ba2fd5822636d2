//! The kernel of an image that is sealed, and what it is started with.

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::SealOptions;
use crate::component::TreeFiles;
use crate::composefs::ImageId;
use crate::dpkg::Files;
use crate::tree::{Kind, Tree};
use crate::uki::arguments;

/// Where kernels have their modules, without a leading slash.
pub const MODULES: &str = "usr/lib/modules";
/// The kernel there.
pub const KERNEL: &str = "vmlinuz";
/// Its initramfs.
pub const INITRAMFS: &str = "initramfs.img";
/// The argument that names the digest to bootc's initramfs.
const COMPOSEFS: &str = "composefs";

/// Where kernel and initramfs are.
pub struct KernelSource {
    /// The kernel's version.
    pub version: String,
    /// Where they are if not in the image.
    pub directory: Option<Utf8PathBuf>,
}

impl KernelSource {
    /// Finds them in `directory`, where one is named, else in the image's `tree`.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(directory: Option<&Utf8Path>, tree: &Tree) -> Result<Self> {
        if let Some(directory) = directory {
            for name in [KERNEL, INITRAMFS] {
                let path = directory.join(name);
                ensure!(path.is_file(), "there is no file {path}");
            }
            let whole = directory
                .canonicalize_utf8()
                .with_context(|| format!("looking at {directory}"))?;
            let version = whole.file_name();
            let version = version.with_context(|| format!("{directory} has no name"))?;
            return Ok(Self {
                version: version.to_owned(),
                directory: Some(directory.to_owned()),
            });
        }
        let modules = tree.locate(MODULES).into_iter();
        let modules = modules.flat_map(|id| tree.children(id).iter());
        let versions: Vec<&str> = modules.map(|id| tree.name(*id)).collect();
        let has = |version: &str, name: &str| {
            let found = tree.locate(&format!("{MODULES}/{version}/{name}"));
            found.is_some_and(|id| tree.entry(id).kind == Kind::Regular)
        };
        let mut versions = versions.into_iter().filter(|version| has(version, KERNEL));
        let Some(version) = versions.next() else {
            bail!(
                "it has no kernel at /{MODULES}/VERSION/{KERNEL}; name a directory that has one with its {INITRAMFS}"
            );
        };
        if let Some(other) = versions.next() {
            bail!("it has two kernels, {version} and {other}; remove one");
        }
        ensure!(
            has(version, INITRAMFS),
            "it has no /{MODULES}/{version}/{INITRAMFS}; 'finalize' makes it"
        );
        Ok(Self {
            version: version.to_owned(),
            directory: None,
        })
    }
}

/// The arguments that the image brings, in the order of their files.
///
/// # Errors
/// When bootc would not read one of them.
pub fn of_image(files: &TreeFiles<'_>, machine: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut names = files.list(arguments::DIRECTORY)?.unwrap_or_default();
    names.sort_unstable();
    for name in names {
        let path = format!("/{}/{name}", arguments::DIRECTORY);
        if !name.ends_with(".toml") {
            continue;
        }
        let text = files.read(&path)?.unwrap_or_default();
        let text = String::from_utf8(text).with_context(|| format!("{path} is no text"))?;
        let of_file = arguments::of_file(&text, machine);
        found.extend(of_file.with_context(|| format!("reading {path}"))?);
    }
    Ok(found)
}

/// The image's arguments, the digest, and those of the user; and `rw`, where neither says how the
/// root is mounted: /etc and /var would be read-only.
pub fn command_line(of_image: Vec<String>, id: ImageId, options: &SealOptions) -> String {
    let may_lack = if options.allow_missing_verity {
        "?"
    } else {
        ""
    };
    let mut words = of_image;
    words.push(format!("{COMPOSEFS}={may_lack}{id}"));
    words.extend(options.arguments.iter().cloned());
    let is_said = words.iter().flat_map(|words| words.split_whitespace());
    if !is_said.clone().any(|word| word == "rw" || word == "ro") {
        words.push("rw".to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::num::NonZeroUsize;

    use super::*;
    use crate::composefs::image_id;
    use crate::progress::Silent;
    use crate::registry::Access;
    use crate::tree::{Contents, EntryId, Metadata, TreeBuilder};

    struct Empty;

    impl Contents for Empty {
        fn open(&self, _: &Tree, _: EntryId) -> Result<Box<dyn std::io::Read + '_>> {
            Ok(Box::new(std::io::empty()))
        }
    }

    #[test]
    fn the_command_line_names_the_digest_and_mounts_for_writing() {
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        for name in ["boot", "sysroot", "usr"] {
            let directory = Metadata::directory(0o755);
            builder.push(EntryId::ROOT, name, "", directory).unwrap();
        }
        let (tree, _) = builder.finish();
        let id = image_id(&tree, &Empty, NonZeroUsize::MIN, &Silent).unwrap();
        let line = |of_image: &[&str], more: &[&str], allow_missing_verity| {
            let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
            let options = SealOptions {
                image: "oci:img".parse().unwrap(),
                destination: "oci:img".parse().unwrap(),
                access: Access::default(),
                kernel: None,
                arguments: words(more),
                allow_missing_verity,
                keys: None,
                dry_run: true,
                created_by: String::new(),
                threads: NonZeroUsize::MIN,
            };
            command_line(words(of_image), id, &options).replace(&id.to_string(), "ID")
        };
        assert_eq!(line(&[], &[], false), "composefs=ID rw");
        assert_eq!(
            line(&["quiet ro", "a=b"], &["c"], true),
            "quiet ro a=b composefs=?ID c"
        );
        assert_eq!(line(&["quiet"], &["rw"], false), "quiet composefs=ID rw");
        assert_eq!(line(&["rw=1"], &[], false), "rw=1 composefs=ID rw");
    }
}
