# shellcheck shell=bash
# Of vm.sh, which is sourced beside this:
# shellcheck disable=SC2034,SC2154
# An image for bootc's composefs backend, installed by the bootc in it and booted by UEFI, for
# tests/e2e/composefs.
#
# The installation runs in a virtual machine as well: bootc mounts the EFI system partition and asks
# for fs-verity, which the kernel of the machine that tests need not have. That machine's root is
# the image's files on a file system as it is, with kernel and initramfs of the image.
: "${place:=}" "${phase:=}" "${work:=}" "${name:=}" "${layout:=}" "${digest:=}" "${kind:=}"
: "${kernel:=}" "${initramfs:=}"

FIRMWARE=/usr/share/OVMF/OVMF_CODE_4M.fd
FIRMWARE_VARIABLES=/usr/share/OVMF/OVMF_VARS_4M.fd

need_machine_tools() {
    need qemu-system-x86_64 qemu-system-x86
    need mkfs.ext4 e2fsprogs
    need docker-registry docker-registry
    need curl curl
    need ssh openssh-client
    [[ -e $FIRMWARE ]] || missing+=(ovmf)
}

look_at_by_bootc() {
    holds "bootc's lint has nothing to say" \
        in_image "$name" 'bootc container lint --fatal-warnings'
    equal "bootc computes the same digest" "$digest" "$(bootc_computes)"
}

# bootc reads the files as a container has them, we the layers of the layout.
bootc_computes() {
    local mounted
    mounted=$(podman image mount "$name")
    podman run --rm --network=none -v "$mounted:/target:ro" "$name" \
        bootc container compute-composefs-digest /target
    podman image unmount "$name" >/dev/null
}

# as_disk FILE SIZE DIRECTORY: a file system with the files of DIRECTORY.
as_disk() {
    rm -f "$1"
    truncate -s "$2" "$1"
    mkfs.ext4 -q -F -d "$3" "$1"
}

install_by_bootc() {
    local mounted kargs=""
    # A sealed image has its own, and takes no others.
    [[ $kind = sealed ]] || kargs="--karg console=ttyS0 --karg quiet"
    phase=install
    place=$work
    start_registry
    mounted=$(podman image mount "$name")
    logged "$work/installer.log" as_disk "$work/installer.img" 4G "$mounted"
    podman image unmount "$name" >/dev/null
    logged "$work/installer.log" as_disk "$work/layout.img" 2G "$layout"
    rm -f "$work/disk.img"
    truncate -s 10G "$work/disk.img"
    disk=$work/installer.img
    machine_options=(-kernel "$kernel" -initrd "$initramfs"
        -append "root=/dev/vda rw console=ttyS0 quiet"
        -drive "file=$work/layout.img,format=raw,if=virtio,readonly=on"
        -drive "file=$work/disk.img,format=raw,if=virtio,cache=unsafe")
    boot
    step "install: bootc writes a disk"
    logged "$work/install.log" guest "mkdir /run/layout && mount -o ro /dev/vdb /run/layout &&
        bootc install to-disk --composefs-backend --bootloader systemd --generic-image \
            --filesystem ext4 --skip-fetch-check --source-imgref oci:/run/layout \
            $kargs --target-imgref 10.0.2.2:$registry_port/debian:$kind /dev/vdc"
    shut_down
}

boot_installed() {
    phase=first
    disk=$work/disk.img
    cp "$FIRMWARE_VARIABLES" "$work/variables.fd"
    machine_options=(-drive "if=pflash,format=raw,readonly=on,file=$FIRMWARE"
        -drive "if=pflash,format=raw,file=$work/variables.fd")
    boot
}

update_by_bootc() {
    local update=$work/update/oci-out/img
    phase=update
    push "$update" "$kind"
    # The registry speaks no TLS.
    guest "mkdir -p /etc/containers/registries.conf.d && printf '[[registry]]\nlocation = \"%s\"\n\
insecure = true\n' 10.0.2.2:$registry_port >/etc/containers/registries.conf.d/loopback.conf"
    guest 'echo mine >/etc/mine && echo data >/var/lib/data'
    step "update: bootc pulls and stages it"
    mark_requests
    logged "$work/upgrade.log" guest bootc upgrade
    only_new_layers_are_fetched "$layout" "$update"
    shut_down
    boot
    look_at_composefs update "$(digest_of "$update")" "$name-update"
    survives_updates
}

roll_back_by_bootc() {
    phase=rollback
    logged "$work/rollback.log" guest bootc rollback
    shut_down
    boot
    look_at_composefs rollback "$digest" "$name"
    survives_updates
}

survives_updates() {
    holds "what was written to /var is there" guest grep -q data /var/lib/data
    [[ $phase = rollback ]] || holds "what was written to /etc is there" guest grep -q mine /etc/mine
}

# look_at_composefs NAME DIGEST IMAGE: the log of it is NAME.look.
look_at_composefs() {
    local state tolerated=
    # A sealed image has its kernel in the UKI, and not a second time.
    [[ $kind != sealed ]] || tolerated='^missing .*/vmlinuz$'
    state=$(guest systemctl is-system-running --wait || true)
    guest 'systemctl --failed --no-legend; bootc status; cat /proc/cmdline; findmnt; bootctl
        systemd-analyze; journalctl -b -p warning --no-pager' >"$work/$1.look" 2>&1 || true
    [[ $state = running ]] || sed 's/^/    | /' "$work/$1.look"
    equal "the system is running" running "$state"
    equal "the kernel was told the digest of the files" "composefs=$2" \
        "$(guest "tr ' ' '\n' </proc/cmdline | grep ^composefs=")"
    equal "the root is composefs" "composefs:$2" "$(guest findmnt -n -o SOURCE /)"
    equal "bootc has booted that deployment" "$2" \
        "$(guest bootc status --json | jq -r .status.booted.composefs.verity)"
    equal "dpkg -V misses nothing${tolerated:+ but the kernel}" "" \
        "$(guest dpkg -V | grep -v "${tolerated:-^$}")"
    equal "dpkg has as many packages as the image" \
        "$(in_image "$3" 'dpkg-query -W | wc -l')" "$(guest 'dpkg-query -W | wc -l')"
    holds "/usr is read-only" guest '! touch /usr/test 2>/dev/null'
    holds "/etc can be written" guest 'touch /etc/test && rm /etc/test'
    holds "/var is of the disk" guest 'touch /var/test && rm /var/test'
    holds "the network is configured" \
        guest 'networkctl --no-legend | grep -q "ether *routable *configured"'
    holds "podman answers" guest "podman info >/dev/null"
}
