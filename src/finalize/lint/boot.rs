//! Checks for what a machine needs to boot.

use anyhow::Result;

use crate::finalize::initramfs;
use crate::finalize::prepare_root as config;
use crate::finalize::root::Kind;
use crate::finalize::system::{MODULES, System};

pub fn base_directories(system: &System<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in ["dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
        if system.root.kind(name)? != Kind::Directory {
            found.push(format!("/{name}"));
        }
    }
    Ok(found)
}

pub fn root_layout(system: &System<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if system.root.kind("sysroot")? != Kind::Directory {
        found.push("/sysroot".into());
    }
    if system.root.kind("ostree")? != Kind::Link("sysroot/ostree".into()) {
        found.push("/ostree".into());
    }
    Ok(found)
}

pub fn usr_etc(system: &System<'_>) -> Result<Vec<String>> {
    let has = |path| Ok::<_, anyhow::Error>(system.root.kind(path)? != Kind::Absent);
    Ok(match has("etc")? && has("usr")? && has("usr/etc")? {
        true => vec!["/usr/etc".into()],
        false => Vec::new(),
    })
}

pub fn several_kernels(system: &System<'_>) -> Result<Vec<String>> {
    let kernels = system.kernels()?;
    Ok(match kernels.len() {
        0 | 1 => Vec::new(),
        _ => kernels
            .iter()
            .map(|kernel| format!("/{MODULES}/{kernel}"))
            .collect(),
    })
}

pub fn kernel_place(system: &System<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for kernel in system.kernels()? {
        let path = format!("{MODULES}/{kernel}/vmlinuz");
        if system.root.kind(&format!("{MODULES}/{kernel}"))? != Kind::Directory
            || system.root.kind(&path)? != Kind::File
        {
            found.push(format!("/boot/vmlinuz-{kernel}"));
        }
    }
    Ok(found)
}

/// The path of the initramfs of the only kernel.
fn initramfs_path(system: &System<'_>) -> Result<Option<String>> {
    let kernel = system.kernel()?;
    let has_modules = match &kernel {
        Some(kernel) => system.root.kind(&format!("{MODULES}/{kernel}"))? == Kind::Directory,
        None => false,
    };
    Ok(kernel
        .filter(|_| has_modules)
        .map(|kernel| initramfs::path(&kernel)))
}

pub fn initramfs(system: &System<'_>) -> Result<Vec<String>> {
    let Some(path) = initramfs_path(system)? else {
        return Ok(Vec::new());
    };
    Ok(match initramfs::read(system.root, &path) {
        Ok(Some(_)) => Vec::new(),
        Ok(None) | Err(_) => vec![format!("/{path}")],
    })
}

pub fn initramfs_ostree(system: &System<'_>) -> Result<Vec<String>> {
    let Some(path) = initramfs_path(system)? else {
        return Ok(Vec::new());
    };
    // Whether it can be read is another check.
    Ok(match initramfs::read(system.root, &path) {
        Ok(Some(found)) if !initramfs::mounts_deployments(&found) => vec![format!("/{path}")],
        _ => Vec::new(),
    })
}

pub fn initramfs_config(system: &System<'_>) -> Result<Vec<String>> {
    let Some(path) = initramfs_path(system)? else {
        return Ok(Vec::new());
    };
    let wanted = system.root.read(config::PATH)?;
    Ok(match initramfs::read(system.root, &path) {
        Ok(Some(found)) if found.contents.get(config::PATH) != wanted.as_ref() => {
            vec![format!("/{path}")]
        }
        _ => Vec::new(),
    })
}

pub fn kernel_arguments(system: &System<'_>) -> Result<Vec<String>> {
    let dir = "usr/lib/bootc/kargs.d";
    let mut found = Vec::new();
    for name in system.root.list(dir)? {
        let path = format!("{dir}/{name}");
        let text = system.root.read(&path)?.map(String::from_utf8);
        let is_fine = name.ends_with(".toml")
            && matches!(text, Some(Ok(text)) if text.lines().any(|line| {
                line.trim_start().starts_with("kargs") && line.contains('=')
            }));
        if !is_fine {
            found.push(format!("/{path}"));
        }
    }
    Ok(found)
}

pub fn prepare_root(system: &System<'_>) -> Result<Vec<String>> {
    super::would_change(config::plan(system))
}

pub fn boot_files(system: &System<'_>) -> Result<Vec<String>> {
    if system.root.is_mounted("boot") {
        return Ok(Vec::new());
    }
    let files = system.root.below("boot")?.into_iter();
    let files = files.filter(|(_, kind)| *kind != Kind::Directory);
    let files = files.map(|(path, _)| format!("/{path}"));
    // A kernel that 'seal' has made belongs there: bootc copies it to the partition.
    Ok(files
        .filter(|path| !path.starts_with("/boot/EFI/Linux/"))
        .collect())
}

pub fn podman(system: &System<'_>) -> Result<Vec<String>> {
    if system.kernel()?.is_none() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for path in ["usr/bin/podman", "usr/lib/podman/netavark"] {
        if system.root.resolve(path)?.is_none() {
            found.push(format!("/{path}"));
        }
    }
    Ok(found)
}
