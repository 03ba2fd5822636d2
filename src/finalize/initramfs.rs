//! The initramfs beside the kernel, built by the system's own dracut or initramfs-tools. It is
//! rebuilt only when it lacks what OSTree needs, or when what it was built from has changed.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::change::{Change, Plan};
use super::cpio::{self, Initramfs};
use super::kernel;
use super::prepare_root;
use super::root::{Kind, Root};
use super::system::{MODULES, System};
use super::write::{UNFINISHED, Writer};
use crate::process;

const DRACUT: &str = "usr/bin/dracut";
const MKINITRAMFS: &str = "usr/sbin/mkinitramfs";
const DRACUT_MODULES: &str = "usr/lib/dracut/modules.d";
const HOOKS: [&str; 2] = [
    "usr/share/initramfs-tools/hooks",
    "etc/initramfs-tools/hooks",
];
/// A configuration is small.
const MAX_CONFIG: u64 = 1 << 20;

/// Where the initramfs of a kernel is.
pub fn path(kernel: &str) -> String {
    format!("{MODULES}/{kernel}/initramfs.img")
}

/// What it was made of: a checksum.
fn sources_path(kernel: &str) -> String {
    format!("{MODULES}/{kernel}/initramfs.sources")
}

/// Refuses a system that has a kernel, no initramfs, and nothing to make one, or one that is to
/// boot and has nothing to make one that does.
pub fn check(system: &System<'_>) -> Result<()> {
    let Some(kernel) = system.kernel()? else {
        return Ok(());
    };
    if program(system.root)?.is_none() && !is_right(system, &kernel)? {
        bail!(
            "the initramfs has to be made, and there is neither dracut nor initramfs-tools: install the packages dracut and ostree-boot"
        );
    }
    if system.options.bootable && has_no_hook(system.root)? {
        let made = read(system.root, &path(&kernel));
        if !made.is_ok_and(|made| made.is_some_and(|made| mounts_deployments(&made))) {
            bail!("{NO_HOOK}");
        }
    }
    Ok(())
}

/// ostree-boot says so, too: "the initramfs must have been made using dracut".
const NO_HOOK: &str = "the initramfs would be made by initramfs-tools, which has no hook for OSTree or bootc here, and the image would not boot: install the packages dracut and ostree-boot";

/// Whether the initramfs is that of initramfs-tools, and nobody has given it a hook that mounts a
/// deployment: no package of Debian or Ubuntu does.
fn has_no_hook(root: &Root) -> Result<bool> {
    if program(root)? != Some(MKINITRAMFS) {
        return Ok(false);
    }
    for dir in HOOKS {
        let hooks = root.list(dir)?;
        if hooks
            .iter()
            .any(|hook| hook.contains("ostree") || hook.contains("bootc"))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it has a program that mounts a deployment: of OSTree, or of bootc's other backend.
pub fn mounts_deployments(initramfs: &Initramfs) -> bool {
    initramfs.files.keys().any(|path| {
        path.ends_with("lib/ostree/ostree-prepare-root")
            || path.ends_with("lib/bootc/initramfs-setup")
    })
}

/// Makes the initramfs where it is not right.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let mut plan = Plan::new(system.root);
    let Some(kernel) = system.kernel()? else {
        return Ok(plan);
    };
    if !is_right(system, &kernel)? {
        let Some(program) = program(system.root)? else {
            bail!("there is neither dracut nor initramfs-tools");
        };
        let command = command(system.root, program, &kernel)?;
        let why =
            "it mounts the deployment; it is not there yet, or what it is made of has changed";
        plan.make(&path(&kernel), command, why);
        if has_no_hook(system.root)? {
            plan.note(NO_HOOK);
        } else if system.root.kind(&ostree_module(system.root)?)? == Kind::Absent {
            plan.note("dracut has no module for OSTree, without which the image does not boot: install the package ostree-boot");
        }
    }
    for file in system.root.list("boot")? {
        if file.starts_with("initrd.img") {
            let why = "the one that package scripts make; the image has its own beside the kernel";
            plan.remove(&format!("boot/{file}"), why)?;
        }
    }
    Ok(plan)
}

/// Runs the program, and puts in place what it made.
pub fn make(
    system: &System<'_>,
    writer: &Writer<'_>,
    change: &Change,
    command: &[String],
) -> Result<()> {
    let root = system.root;
    let path = change.path.trim_start_matches('/');
    let Some(kernel) = system.kernel()? else {
        bail!("the kernel is gone");
    };
    let made = unfinished(&kernel);
    writer.remove_tree(&made)?;
    // The time of the kernel's package: the same on each day.
    let image = root.stat(&format!("{MODULES}/{kernel}/vmlinuz"))?;
    let time = image.map_or(0, |stat| stat.st_mtime);
    let environment = vec![format!("SOURCE_DATE_EPOCH={time}")];
    let command = match command
        .first()
        .is_some_and(|name| name.ends_with(MKINITRAMFS))
    {
        true => with_kernel_config(&kernel, command),
        false => command.to_vec(),
    };
    process::run_in_root(root.path(), root.is_own(), &environment, &command)
        .with_context(|| format!("making {}", root.name(path)))?;
    let Some(initramfs) = read(root, &made)? else {
        bail!("{} has made no initramfs", command[0]);
    };
    let sources = fingerprint(root, &initramfs)?;
    // First of all that it is no longer known what the old one was made of.
    writer.remove_tree(&sources_path(&kernel))?;
    writer.finish(&made, path, time)?;
    writer.write(
        &sources_path(&kernel),
        super::write::Owner::root(0o644),
        sources.as_bytes(),
        Some(rustix::fs::Timespec {
            tv_sec: time,
            tv_nsec: 0,
        }),
    )
}

/// initramfs-tools asks the kernel's configuration in `/boot` what it can unpack, and fails
/// without. A link there leads to it meanwhile.
fn with_kernel_config(kernel: &str, command: &[String]) -> Vec<String> {
    let script = r#"link=$2 target=$1; shift 2; [ ! -e "$link" ] || exec "$@"
        trap 'rm -f "$link"' EXIT; ln -sfn "$target" "$link"; "$@""#;
    let words = ["/bin/sh", "-euc", script, "sh"];
    let mut wrapped: Vec<String> = words.map(str::to_owned).to_vec();
    wrapped.push(kernel::config_target(kernel));
    wrapped.push(format!("/{}", kernel::config_link(kernel)));
    wrapped.extend_from_slice(command);
    wrapped
}

fn unfinished(kernel: &str) -> String {
    format!("{MODULES}/{kernel}/.initramfs.img{UNFINISHED}")
}

/// The program that makes an initramfs.
fn program(root: &Root) -> Result<Option<&'static str>> {
    for program in [DRACUT, MKINITRAMFS] {
        if root.kind(program)? == Kind::File {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn command(root: &Root, program: &str, kernel: &str) -> Result<Vec<String>> {
    let output = format!("/{}", unfinished(kernel));
    let mut command = vec![format!("/{program}")];
    let mut add = |words: &[&str]| command.extend(words.iter().map(|word| (*word).to_owned()));
    if program == MKINITRAMFS {
        add(&["-o", &output, kernel]);
        return Ok(command);
    }
    // For any machine, and the same on each. zstd has to be there to be used.
    add(&["--force", "--no-hostonly", "--reproducible"]);
    match root.resolve("usr/bin/zstd")? {
        Some(_) => add(&["--zstd"]),
        None => add(&["--gzip"]),
    }
    for module in root.list(DRACUT_MODULES)? {
        let name = module.trim_start_matches(|c: char| c.is_ascii_digit());
        if ["ostree", "bootc"].contains(&name) {
            add(&["--add", name]);
        }
    }
    // Debian 12's module for OSTree does not copy it.
    if root.kind(prepare_root::PATH)? == Kind::File {
        add(&["--install", &format!("/{}", prepare_root::PATH)]);
    }
    add(&["--kver", kernel, &output]);
    Ok(command)
}

fn ostree_module(root: &Root) -> Result<String> {
    let modules = root.list(DRACUT_MODULES)?;
    let found = modules.iter().find(|name| name.ends_with("ostree"));
    let name = found.map_or("98ostree", String::as_str);
    Ok(format!("{DRACUT_MODULES}/{name}"))
}

/// Reads an initramfs; none where there is none.
pub fn read(root: &Root, path: &str) -> Result<Option<Initramfs>> {
    let Some(file) = root.open_file(path)? else {
        return Ok(None);
    };
    let file = std::fs::File::from(file);
    cpio::read(file, &[prepare_root::PATH], MAX_CONFIG)
        .map(Some)
        .with_context(|| format!("reading {}", root.name(path)))
}

fn is_right(system: &System<'_>, kernel: &str) -> Result<bool> {
    let root = system.root;
    // What cannot be read is made again.
    let Ok(Some(initramfs)) = read(root, &path(kernel)) else {
        return Ok(false);
    };
    let config = root.read(prepare_root::PATH)?;
    let has_config = config.as_ref() == initramfs.contents.get(prepare_root::PATH);
    // initramfs-tools knows nothing of it, and would not put it in another time either.
    if !has_config && program(root)? != Some(MKINITRAMFS) {
        return Ok(false);
    }
    let made_of = root.read(&sources_path(kernel))?;
    Ok(made_of == Some(fingerprint(root, &initramfs)?.into_bytes()))
}

/// A checksum of what an initramfs is made of: the system's files that are in it, and what decides
/// which are. Not what the system has written itself in `/etc`.
fn fingerprint(root: &Root, initramfs: &Initramfs) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        hash.update(name);
        hash.update([0]);
        hash.update(Sha256::digest(content));
    };
    let files = initramfs.files.keys();
    for path in files.filter(|path| path.starts_with("usr/") && *path != prepare_root::PATH) {
        if let Some(content) = root
            .resolve(path)?
            .map(|path| root.read(&path))
            .transpose()?
        {
            add(path, &content.unwrap_or_default());
        }
    }
    let config = initramfs.contents.get(prepare_root::PATH);
    add(prepare_root::PATH, config.map_or(&[], Vec::as_slice));
    for path in configuration(root)? {
        add(&path, &root.read(&path)?.unwrap_or_default());
    }
    // A module of dracut takes part where the programs that it names are there.
    let mut words = BTreeSet::new();
    for module in root.list(DRACUT_MODULES)? {
        let setup = format!("{DRACUT_MODULES}/{module}/module-setup.sh");
        let text = root.text(&setup)?;
        add(&setup, text.as_bytes());
        let is_other = |c: char| !(c.is_ascii_alphanumeric() || "-_.+".contains(c));
        words.extend(text.split(is_other).map(str::to_owned));
    }
    for dir in ["usr/bin", "usr/sbin"] {
        for name in root.list(dir)? {
            if words.contains(&name) {
                add(&format!("{dir}/{name}"), b"");
            }
        }
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{hex}\n"))
}

/// The files that configure dracut and initramfs-tools.
fn configuration(root: &Root) -> Result<Vec<String>> {
    let mut paths = vec!["etc/dracut.conf".to_owned()];
    for dir in [
        "etc/dracut.conf.d",
        "usr/lib/dracut/dracut.conf.d",
        "etc/initramfs-tools",
        "usr/share/initramfs-tools",
    ] {
        let below = root.below(dir)?.into_iter();
        paths.extend(
            below
                .filter(|(_, kind)| *kind == Kind::File)
                .map(|(path, _)| path),
        );
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    /// What `asks` says, run with the kernel's configuration at `link`.
    fn said(link: &str, asks: &[&str]) -> String {
        let asks: Vec<String> = asks.iter().map(|word| (*word).to_owned()).collect();
        let mut command = with_kernel_config("k", &asks);
        let place = command.iter_mut().find(|word| *word == "/boot/config-k");
        *place.unwrap() = link.to_owned();
        let output = Command::new(&command[0]).args(&command[1..]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn initramfs_tools_find_the_configuration_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("config-k");
        let path = link.to_str().unwrap();
        assert_eq!(
            said(path, &["readlink", path]),
            "../usr/lib/modules/k/config\n"
        );
        assert!(!link.is_symlink());
        std::fs::write(&link, "of a package").unwrap();
        assert_eq!(said(path, &["cat", path]), "of a package");
        assert!(link.is_file(), "it is not ours");
    }
}
