//! Identities that no two machines may share: the machine id and the keys of the ssh server. They
//! are removed from the image, and each machine gets its own when it boots first.

use anyhow::Result;

use super::change::Plan;
use super::root::Kind;
use super::system::System;

const SYSTEMD: &str = "usr/lib/systemd/systemd";
const UNITS: &str = "usr/lib/systemd/system";
const MACHINE_ID: &str = "etc/machine-id";
/// With this word, and no other, systemd knows that it boots for the first time (machine-id(5)).
const UNINITIALIZED: &str = "uninitialized\n";

/// Keys of the machine that the build ran on, and its names.
const FILES: [(&str, &str); 5] = [
    (
        "etc/ssl/private/ssl-cert-snakeoil.key",
        "a key that all machines would share",
    ),
    (
        "etc/ssl/certs/ssl-cert-snakeoil.pem",
        "the certificate of a key that all machines would share",
    ),
    (
        "etc/hostname",
        "the name of the machine that built the image",
    ),
    (".dockerenv", "the mark of a container"),
    ("run/.containerenv", "the mark of a container"),
];

/// Makes the keys of the ssh server, where Debian 12's has no unit for that.
const KEY_UNIT: &str = "ssh-host-keys.service";
const KEY_UNIT_TEXT: &str = "\
[Unit]
Description=Host keys of the ssh server
Before=ssh.service ssh.socket
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
";

/// Takes out what identifies a machine.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    if root.kind(SYSTEMD)? == Kind::File || root.kind(MACHINE_ID)? == Kind::File {
        let why = "each machine gets its own, and with this word systemd knows its first boot";
        plan.write(MACHINE_ID, UNINITIALIZED, why)?;
    }
    for file in root.list("etc/ssh")? {
        if file.starts_with("ssh_host_") {
            plan.remove(
                &format!("etc/ssh/{file}"),
                "a key that all machines would share",
            )?;
        }
    }
    for (path, why) in FILES {
        if root.kind(path)? == Kind::File {
            plan.remove(path, why)?;
        }
    }
    if root.kind("etc/resolv.conf")? == Kind::File {
        plan.remove(
            "etc/resolv.conf",
            "the name servers of the machine that built the image",
        )?;
    }
    let has_server = root.kind("usr/sbin/sshd")? == Kind::File;
    let has_unit = root.kind(&format!("{UNITS}/sshd-keygen.service"))? == Kind::File;
    if has_server && !has_unit && root.kind(UNITS)? == Kind::Directory {
        let why = "the ssh server of this release does not make its keys when it has none";
        plan.write(&format!("{UNITS}/{KEY_UNIT}"), KEY_UNIT_TEXT, why)?;
        let wants = format!("{UNITS}/multi-user.target.wants/{KEY_UNIT}");
        plan.link(&wants, &format!("../{KEY_UNIT}"), why)?;
    }
    Ok(plan)
}
