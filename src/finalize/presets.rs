//! Which units run. On its first boot systemd enables what presets say (systemd.preset(5)), and all
//! that they do not mention: of Debian's packages some that their own scripts leave off. A preset
//! file that names the installed units, enabled and disabled, keeps each as it is now.
//!
//! No line says `disable *`: `deb-systemd-helper` asks presets, too, when a package is first
//! installed, and the service of a package that a derived image adds would stay off.

use std::collections::BTreeSet;

use anyhow::Result;

use super::change::Plan;
use super::root::{Kind, Root};
use super::system::System;

/// After what others ship for their own units, and before systemd's own, whose name begins with 90.
const FILE: &str = "85-apt-ostree-helper.preset";
const DIRECTORY: &str = "usr/lib/systemd/system-preset";
const ENABLED: &str = "etc/systemd/system";
/// Where packages put their units. `/lib` is a link to `/usr/lib` in every Debian since 12.
const UNITS: &str = "usr/lib/systemd/system";
/// The types of units that an [Install] section makes sense in.
const UNIT_TYPES: [&str; 7] = [
    "automount",
    "mount",
    "path",
    "service",
    "socket",
    "target",
    "timer",
];

/// Writes the preset file.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let mut plan = Plan::new(system.root);
    if system.root.kind(DIRECTORY)? != Kind::Directory {
        return Ok(plan);
    }
    let mut text = String::from(
        "# The units of this image as they are enabled in it: by 'apt-ostree-helper finalize'.\n",
    );
    let enabled = enabled(system.root)?;
    for unit in &enabled {
        text.push_str(&format!("enable {unit}\n"));
    }
    for unit in installable(system.root)? {
        // The line of a template with instances begins with its name.
        let is_enabled = enabled
            .iter()
            .any(|line| line.split(' ').next() == Some(unit.as_str()));
        if !is_enabled {
            text.push_str(&format!("disable {unit}\n"));
        }
    }
    let why = "on its first boot a machine would enable units that are off in the image";
    plan.write(&format!("{DIRECTORY}/{FILE}"), text, why)?;
    Ok(plan)
}

/// The units that links in `/etc` enable, as preset files name them; sorted.
fn enabled(root: &Root) -> Result<BTreeSet<String>> {
    let mut units = BTreeSet::new();
    for name in root.list(ENABLED)? {
        let path = format!("{ENABLED}/{name}");
        match root.kind(&path)? {
            Kind::Directory if name.ends_with(".wants") || name.ends_with(".requires") => {
                for unit in root.list(&path)? {
                    if let Kind::Link(target) = root.kind(&format!("{path}/{unit}"))? {
                        if target != "/dev/null" {
                            units.insert(unit);
                        }
                    }
                }
            }
            // An alias, by which it is enabled too; a link to nothing masks a unit.
            Kind::Link(target) if target != "/dev/null" => {
                let unit = target
                    .rsplit_once('/')
                    .map_or(target.as_str(), |(_, unit)| unit);
                // default.target is no unit that is enabled.
                if !name.ends_with(".target") {
                    units.insert(unit.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(units.iter().filter_map(|unit| as_preset(unit)).collect())
}

/// The units that packages brought and that can be enabled (systemd.unit(5), "\[Install\] section
/// options"), as preset files name them; sorted. Links are other names of such units.
fn installable(root: &Root) -> Result<BTreeSet<String>> {
    let mut units = BTreeSet::new();
    for name in root.list(UNITS)? {
        let path = format!("{UNITS}/{name}");
        let is_unit = name
            .rsplit_once('.')
            .is_some_and(|(_, kind)| UNIT_TYPES.contains(&kind));
        if !is_unit || root.kind(&path)? != Kind::File {
            continue;
        }
        if root
            .text(&path)?
            .lines()
            .any(|line| line.trim_end() == "[Install]")
        {
            units.extend(as_preset(&name));
        }
    }
    Ok(units)
}

/// `NAME@INSTANCE.TYPE` is written `NAME@.TYPE INSTANCE`. Names that presets cannot have are left
/// out.
fn as_preset(unit: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:\\@".contains(c);
    if !unit.contains('.') || !unit.chars().all(fine) {
        return None;
    }
    Some(match (unit.split_once('@'), unit.rsplit_once('.')) {
        (Some((name, rest)), Some((_, kind))) => {
            let instance = rest.strip_suffix(&format!(".{kind}"))?;
            match instance {
                "" => unit.to_owned(),
                instance => format!("{name}@.{kind} {instance}"),
            }
        }
        _ => unit.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_as_presets_name_them() {
        let table = [
            ("ssh.service", Some("ssh.service")),
            ("getty@tty1.service", Some("getty@.service tty1")),
            ("sshd@.service", Some("sshd@.service")),
            (
                "dbus-org.freedesktop.x.service",
                Some("dbus-org.freedesktop.x.service"),
            ),
            ("a b.service", None),
            ("nothing", None),
        ];
        for (unit, expected) in table {
            assert_eq!(as_preset(unit).as_deref(), expected, "{unit}");
        }
    }
}
