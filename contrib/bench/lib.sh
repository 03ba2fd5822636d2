# shellcheck shell=bash
# Shared by the benchmarks: the Debian that they read, measuring, and rows of a table. Sourced by
# bash with `set -euo pipefail`.

# shellcheck source=contrib/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

packages=systemd,systemd-sysv,linux-image-$(dpkg --print-architecture),openssh-server,network-manager,podman,python3,vim,curl,locales,firmware-linux-free,git,build-essential

need_bench_tools() {
    need mmdebstrap mmdebstrap
    need /usr/bin/time time
}

# Makes the data, once; sets `rootfs`.
make_data() {
    rootfs=$target/bench/trixie
    [[ ! -d $rootfs ]] || return 0
    mkdir -p "$target/bench"
    rm -rf "$rootfs.new"
    logged "$target/bench/mmdebstrap.log" \
        mmdebstrap --mode=root --variant=important --include="$packages" trixie "$rootfs.new"
    find "$rootfs.new/dev" -mindepth 1 -delete
    mv "$rootfs.new" "$rootfs"
}

# updated_copy DIR: `rootfs`, as if an update had changed every file of these packages.
updated_copy() {
    local new=$1.new package list path
    rm -rf --one-file-system "$new"
    cp -a --reflink=auto "$rootfs" "$new"
    for package in bash openssh-client libssl3t64; do
        list=$(find "$new/var/lib/dpkg/info" -name "$package.list" -o -name "$package:*.list")
        while read -r path; do
            path=$new$path
            [[ -f $path && ! -L $path && -s $path ]] || continue
            printf x | dd of="$path" conv=notrunc status=none
        done <"$list"
    done
    mv "$new" "$1"
}

# The published ostree-ext as a release has it: the tests' build of it optimises little. Sets
# `ostree_ext`.
optimised_ostree_ext() {
    # shellcheck disable=SC2034 # for those who source this
    ostree_ext=$target/interop-optimised/release/ostree-ext-cli
    cargo build --release --locked --manifest-path "$top/tests/interop/Cargo.toml" --bin ostree-ext-cli \
        --config 'profile.release.package."*".opt-level=3' --target-dir "$target/interop-optimised"
}

describe_data() {
    printf '    %s entries, %s\n' "$(find "$rootfs" | wc -l)" "$(du -sh --apparent-size "$rootfs" | cut -f 1)"
}

# measured FILE COMMAND...: appends wall seconds, the largest process's peak in KiB, and the CPU
# seconds of user and system to FILE.
measured() {
    local file=$1
    shift
    # shellcheck disable=SC2016 # for the inner shell
    /usr/bin/time -f '%e %M %U %S' -a -o "$file" bash -c '"$@" >/dev/null' bash "$@"
}

# median FILE COLUMN
median() {
    awk -v column="$2" '{ print $column }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

heading() {
    printf '%-24s %10s %7s %12s\n' "" "wall" "ratio" "peak memory"
}

# row NAME FILE REFERENCE-FILE
row() {
    awk -v name="$1" -v seconds="$(median "$2" 1)" -v reference="$(median "$3" 1)" -v peak="$(median "$2" 2)" \
        'BEGIN { printf "%-24s %8.2f s %7.2f %8.1f MiB\n", name, seconds, seconds / reference, peak / 1024 }'
}
