//! Checks for state that belongs to a machine, and for files that change with each build.

use anyhow::Result;

use super::would_change;
use crate::finalize::root::Kind;
use crate::finalize::system::System;
use crate::finalize::{
    byte_code as code, identity as machine, leftovers as left, package_state as packages,
    password_days, presets as units, run_tmp as volatile, sysusers as users, tmpfiles, var,
};

pub fn var_run(system: &System<'_>) -> Result<Vec<String>> {
    Ok(match system.root.kind("var/run")? {
        Kind::Absent | Kind::Link(_) => Vec::new(),
        _ => vec!["/var/run".into()],
    })
}

pub fn package_state(system: &System<'_>) -> Result<Vec<String>> {
    would_change(packages::plan(system))
}

pub fn run_tmp(system: &System<'_>) -> Result<Vec<String>> {
    would_change(volatile::plan(system))
}

pub fn var_files(system: &System<'_>) -> Result<Vec<String>> {
    let files = files_of_var(system)?.into_iter();
    Ok(files.filter(|path| !is_log(path)).collect())
}

pub fn var_log(system: &System<'_>) -> Result<Vec<String>> {
    let files = files_of_var(system)?.into_iter();
    Ok(files.filter(|path| is_log(path)).collect())
}

fn is_log(path: &str) -> bool {
    path.starts_with("/var/log/")
}

/// The regular files in `/var`, but for the state of packages, which is another check.
fn files_of_var(system: &System<'_>) -> Result<Vec<String>> {
    let entries = system.root.below("var")?.into_iter();
    let files = entries.filter(|(path, kind)| *kind == Kind::File && !var::is_package_state(path));
    Ok(files.map(|(path, _)| format!("/{path}")).collect())
}

pub fn var_tmpfiles(system: &System<'_>) -> Result<Vec<String>> {
    let declared = tmpfiles::declared(system.root, "")?;
    let entries = system.root.below("var")?.into_iter();
    let missing = entries.filter(|(path, kind)| {
        matches!(kind, Kind::Directory | Kind::Link(_))
            && !declared.contains(path)
            && !var::is_package_state(path)
    });
    Ok(missing.map(|(path, _)| format!("/{path}")).collect())
}

pub fn sysusers(system: &System<'_>) -> Result<Vec<String>> {
    let missing = users::missing(system.root, "")?.into_iter();
    let mut names: Vec<String> = missing.map(|(name, _)| name).collect();
    names.dedup();
    Ok(names)
}

pub fn identity(system: &System<'_>) -> Result<Vec<String>> {
    would_change(machine::plan(system))
}

pub fn leftovers(system: &System<'_>) -> Result<Vec<String>> {
    let mut found = would_change(left::plan(system))?;
    found.extend(would_change(password_days::plan(system))?);
    Ok(found)
}

pub fn byte_code(system: &System<'_>) -> Result<Vec<String>> {
    would_change(code::plan(system))
}

pub fn presets(system: &System<'_>) -> Result<Vec<String>> {
    match system.kernel()? {
        Some(_) => would_change(units::plan(system)),
        None => Ok(Vec::new()),
    }
}

pub fn stubs(system: &System<'_>) -> Result<Vec<String>> {
    const STUBS: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
    let mut found = Vec::new();
    for path in STUBS {
        let is_stub = system
            .root
            .stat(path)?
            .is_some_and(|stat| stat.st_mode == 0o100_755 && stat.st_size == 0);
        if is_stub && !system.root.is_mounted(path) {
            found.push(format!("/{path}"));
        }
    }
    Ok(found)
}
