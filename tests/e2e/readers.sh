#!/usr/bin/env bash
# What other programs make of our layouts: skopeo and podman for every format and compression,
# umoci and oci-image-tool for gzip (they know no other).
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=localhost/aoh-e2e-reader
our_images=("$image")

make_rootfs() {
    rootfs=$work/rootfs
    base_tarball trixie
    mkdir "$rootfs"
    tar -C "$rootfs" --xattrs --xattrs-include='*' --numeric-owner --exclude='./dev/*' -xf "$tarball"
}

build() {
    "$helper" build --rootfs "$rootfs" --format "$1" --compression "$2" -o "oci:$work/img:latest" -q >"$work/digest"
}

check_skopeo_and_podman() {
    skopeo copy -q "oci:$work/img:latest" "containers-storage:$image"
    equal "$1, $2: skopeo imports it, podman starts it" "ID=debian" "$(in_image "$image" 'grep ^ID= /etc/os-release')"
    equal "$1, $2: dpkg finds every file" "" "$(in_image "$image" 'dpkg --verify --verify-format rpm | grep missing || true')"
    podman rmi -f "$image" >/dev/null
}

check_umoci() {
    rm -rf "$work/bundle"
    logged "$work/umoci.log" umoci unpack --image "$work/img:latest" "$work/bundle"
    holds "$1: umoci unpacks it" test -e "$work/bundle/rootfs/usr/bin/dpkg"
    equal "$1: as many files below /usr/bin" "$(find "$rootfs/usr/bin" | wc -l)" \
        "$(find "$work/bundle/rootfs/usr/bin" | wc -l)"
    rm -rf "$work/bundle"
}

check_oci_image_tool() {
    logged "$work/validate.log" oci-image-tool validate --type image --ref name=latest "$work/img"
    printf 'ok: %s: oci-image-tool finds it valid\n' "$1"
}

check_format() {
    local format=$1 compression
    for compression in none gzip zstd; do
        build "$format" "$compression"
        check_skopeo_and_podman "$format" "$compression"
        if [[ $compression = gzip ]]; then
            check_umoci "$format"
            check_oci_image_tool "$format"
        fi
    done
}

# An image whose lower layers have files that were changed or are gone since.
check_waste() {
    local format=$1
    mkdir -p "$rootfs/usr/share/extra"
    printf 'old\n' | tee "$rootfs/usr/share/extra/gone" >"$rootfs/usr/share/extra/changed"
    build "$format" gzip
    rm -rf "$work/before"
    mv "$work/img" "$work/before"
    rm "$rootfs/usr/share/extra/gone"
    printf 'new\n' >"$rootfs/usr/share/extra/changed"
    "$helper" build --rootfs "$rootfs" --format "$format" --compression gzip -o "oci:$work/img:latest" -q --json \
        --previous "oci:$work/before:latest" --max-waste 10% >"$work/said"
    holds "$format: there are layers with files of no use" \
        test "$(jq '[.layers[].dead_size] | add' "$work/said")" -gt 0
    skopeo copy -q "oci:$work/img:latest" "containers-storage:$image"
    equal "$format: podman sees what is there" "changed:new" \
        "$(in_image "$image" 'cd /usr/share/extra && grep -H . -- *')"
    podman rmi -f "$image" >/dev/null
    check_umoci "$format, with whiteouts"
    check_oci_image_tool "$format, with whiteouts"
    rm -rf "$rootfs/usr/share/extra" "$work/before"
}

start readers
logged "$work/cargo.log" build_helper
make_rootfs
check_format plain
check_format ostree
check_waste plain
check_waste ostree
