#!/usr/bin/env bash
# Deploys an image to the one partition of a disk image, for tests/e2e/boot: by `import`, and by
# the `ostree` of the image itself. Runs in a mount namespace of its own.
#
#   helper layout   the program, and the OCI layout of the image
#   tree            the image's files, mounted
#   disk            the disk image, whose partition begins at 1 MiB and has a file system
#   stateroot branch   names in OSTree
set -euxo pipefail
: "${helper:?}" "${layout:?}" "${tree:?}" "${disk:?}" "${stateroot:?}" "${branch:?}"

# The image's programs see the disk at /sysroot, and write nowhere else.
system=$tree/sysroot
mount -o loop,offset=1048576 "$disk" "$system"
mount --bind /proc "$tree/proc"
mount --bind /dev "$tree/dev"
ostree() {
    chroot "$tree" ostree "$@"
}

ostree admin init-fs --modern /sysroot
ostree admin stateroot-init --sysroot=/sysroot "$stateroot"
# One partition: to the loader the kernels are below /boot.
ostree config --repo=/sysroot/ostree/repo set sysroot.bootprefix true
# What prepare-root.conf says, for the tools.
ostree config --repo=/sysroot/ostree/repo set sysroot.readonly true
"$helper" import --repo "$system/ostree/repo" --branch "$branch" "oci:$layout"

# By this link libostree knows that the loader is of the syslinux family, and configures it.
mkdir -p "$system/boot/syslinux" "$system/boot/loader.0"
ln -s ../loader/syslinux.cfg "$system/boot/syslinux/syslinux.cfg"
ln -sfn loader.0 "$system/boot/loader"
printf 'SERIAL 0 115200\nPROMPT 0\nTIMEOUT 30\n' >"$system/boot/loader.0/syslinux.cfg"
ostree admin deploy --sysroot=/sysroot --os="$stateroot" \
    --karg=root=LABEL=root --karg=rw --karg=console=ttyS0 "$branch"
extlinux --install "$system/boot/syslinux"
ostree admin status --sysroot=/sysroot
cat "$system/boot/loader/syslinux.cfg"
umount "$system"
