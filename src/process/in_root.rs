//! A program of another root filesystem, run there: in a chroot, in mount and process namespaces of
//! its own, so that nothing stays mounted and nothing runs on, however this process ends.

use std::time::Duration;

use anyhow::{Context, Result};
use camino::Utf8Path;

use super::Call;

/// dracut takes a minute on a slow machine; more than this is a fault.
const LIMIT: Duration = Duration::from_secs(3600);

/// What programs there find in their environment.
const ENVIRONMENT: [&str; 4] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/tmp",
    "LC_ALL=C.UTF-8",
    "TZ=UTC",
];

/// The devices that programs need which touch no hardware, and temporary directories in memory.
const SCRIPT: &str = r#"
cd "$1"
shift
for dir in dev proc run tmp var/tmp; do
    if [ -L "$dir" ] || ! [ -d "$dir" ]; then
        echo "$dir is not a directory in the root filesystem" >&2
        exit 1
    fi
done
mount -t proc proc proc 2>/dev/null || mount --rbind /proc proc
devices=$(mktemp -d)
mount -t tmpfs -o mode=0755 tmpfs "$devices"
for device in null zero full random urandom; do
    : >"$devices/$device"
    mount --bind "/dev/$device" "$devices/$device"
done
ln -s /proc/self/fd "$devices/fd"
ln -s fd/0 "$devices/stdin"
ln -s fd/1 "$devices/stdout"
ln -s fd/2 "$devices/stderr"
mount --move "$devices" dev
rmdir "$devices"
for dir in run tmp var/tmp; do
    mount -t tmpfs -o mode=1777 tmpfs "$dir"
done
exec chroot . env -i "$@"
"#;

/// Runs `command` in the system at `root`; with `is_own` that is where this process runs itself,
/// and nothing is changed about it. `variables` are `NAME=VALUE`.
///
/// # Errors
/// When it fails, or the namespaces cannot be made: that asks for the capability SYS_ADMIN.
pub fn run_in_root(
    root: &Utf8Path,
    is_own: bool,
    variables: &[String],
    command: &[String],
) -> Result<String> {
    let mut arguments: Vec<&str> = Vec::new();
    let program = if is_own {
        arguments.push("-i");
        "env"
    } else {
        arguments.extend(["--mount", "--propagation", "private", "--ipc", "--net"]);
        arguments.extend(["--pid", "--fork", "--kill-child=KILL", "--"]);
        arguments.extend(["sh", "-euc", SCRIPT, "sh", root.as_str()]);
        "unshare"
    };
    arguments.extend(ENVIRONMENT);
    arguments.extend(variables.iter().map(String::as_str));
    arguments.extend(command.iter().map(String::as_str));
    let call = Call::new(program, arguments).limit(LIMIT);
    let name = command.join(" ");
    call.run().with_context(|| {
        format!(
            "running '{name}' in {root}, which asks for the capability SYS_ADMIN outside of a build step on the system itself"
        )
    })
}
