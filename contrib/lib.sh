# shellcheck shell=bash
# Shared by contrib/ and tests/e2e/: steps and logs, Debian packages, a base image, the helper
# image, and what podman needs to work on this machine. Sourced by bash with `set -euo pipefail`.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}
[[ $target = /* ]] || target=$PWD/$target
# Debian keeps runc, getcap and others out of a user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

HELPER_IMAGE=localhost/apt-ostree-helper
# Older releases have no Rust that builds the helper.
HELPER_SUITE=trixie
# Every version of podman builds with these, nested, rootless and in CI.
build_flags=(--isolation=chroot --network=host)

# --- steps and logs ---------------------------------------------------------------------------

current_step=start
current_log=

step() {
    current_step=$*
    current_log=
    printf '==> %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# logged LOG COMMAND...: the output goes to LOG, its end to the terminal when COMMAND fails.
logged() {
    current_log=$1
    shift
    mkdir -p "$(dirname "$current_log")"
    "$@" >"$current_log" 2>&1
    current_log=
}

# For `trap report_failure EXIT`.
report_failure() {
    local status=$?
    ((status == 0)) && return
    if [[ -n $current_log && -s $current_log ]]; then
        tail -n 30 "$current_log" >&2
        printf 'the whole log: %s\n' "$current_log" >&2
    fi
    printf 'failed: %s\n' "$current_step" >&2
    exit "$status"
}

# --- Debian packages --------------------------------------------------------------------------

missing=()

# need COMMAND PACKAGE: remembers PACKAGE when COMMAND is not there.
need() {
    command -v "$1" >/dev/null || missing+=("$2")
}

# Installs what `need` found missing; says what to install where that is not possible.
install_missing() {
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "install these programs first: ${missing[*]}"
    local sudo=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            die "not root, and no sudo; as root: apt-get install --no-install-recommends ${missing[*]}"
        sudo=(sudo)
    fi
    printf '    installing %s\n' "${missing[*]}"
    # Another apt may be at work, as after the start of a machine.
    logged "$target/install.log" "${sudo[@]}" apt-get update
    logged "$target/install.log" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"
    missing=()
}

# What containers and root filesystems need, here or for a user.
need_container_tools() {
    need podman podman
    need skopeo skopeo
    need mmdebstrap mmdebstrap
    need newuidmap uidmap
    # Both are only recommended by what needs them: apt verifies the archive with the one, and
    # mmdebstrap looks at the architecture with the other.
    need gpgv gpgv
    need arch-test arch-test
}

# What the program is compiled with, besides Rust.
need_compile_tools() {
    need cc gcc
    need pkg-config pkg-config
    need_library ostree-1 libostree-dev
}

# What the published ostree-ext needs to be built, and to run.
need_interop_tools() {
    need docker-registry docker-registry
    need ostree ostree
    need skopeo skopeo
    need jq jq
    need openssl openssl
    need setcap libcap2-bin
    need_compile_tools
    need_library openssl libssl-dev
    need_library libzstd libzstd-dev
}

# need_library NAME PACKAGE: by the name that pkg-config knows.
need_library() {
    pkg-config --exists "$1" 2>/dev/null || missing+=("$2")
}

# --- podman on this machine -------------------------------------------------------------------

# ensure_podman_runs IMAGE: where a container cannot be started as podman is set up, tries other
# settings and exports CONTAINERS_CONF with those that work. Two things are known to be in the
# way: limits that may not be raised (podman asks for more than a nested root may set), and
# cgroup v1 hierarchies that crun refuses and runc takes. A CONTAINERS_CONF file replaces every
# other containers.conf, so it is written only then, and only for this process.
ensure_podman_runs() {
    local image=$1 conf=$target/containers.conf settings
    starts_container "$image" && return
    if ! command -v runc >/dev/null && ((EUID == 0)); then
        missing+=(runc)
        install_missing
    fi
    export CONTAINERS_CONF=$conf
    for settings in limits runc "limits runc"; do
        # shellcheck disable=SC2086 # words are wanted
        write_containers_conf "$conf" $settings
        if starts_container "$image"; then
            printf '    podman needs CONTAINERS_CONF=%s here (%s)\n' "$conf" "$settings"
            return
        fi
    done
    unset CONTAINERS_CONF
    logged "$target/podman-run.log" podman run --rm --network=none "$image" true
}

starts_container() {
    podman run --rm --network=none "$1" true >/dev/null 2>&1
}

# at_most MAX LIMIT
at_most() {
    if [[ $2 = unlimited ]] || (($2 > $1)); then
        printf '%s' "$1"
    else
        printf '%s' "$2"
    fi
}

# write_containers_conf FILE [limits] [runc]
write_containers_conf() {
    local file=$1 nofile nproc
    shift
    nofile=$(at_most 1048576 "$(ulimit -Hn)")
    nproc=$(at_most 32768 "$(ulimit -Hu)")
    mkdir -p "$(dirname "$file")"
    {
        if [[ " $* " = *" limits "* ]]; then
            printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' \
                "$nofile" "$nofile" "$nproc" "$nproc"
        fi
        if [[ " $* " = *" runc "* ]]; then
            printf '[engine]\nruntime = "runc"\n'
        fi
    } >"$file"
}

# The words to put before a podman command that a reader is to type.
podman_prefix() {
    [[ -z ${CONTAINERS_CONF:-} ]] || printf 'CONTAINERS_CONF=%q ' "$CONTAINERS_CONF"
}

# --- images -----------------------------------------------------------------------------------

# base_tarball SUITE: a minimal Debian, made once, by one of those that want it at once; sets
# `tarball`. mmdebstrap and not a registry: it works wherever apt works, for any suite, and apt
# verifies what it fetches.
base_tarball() {
    local suite=$1 dir=$target/bases options=() lock
    tarball=$dir/debian-$suite.tar
    [[ ! -e $tarball ]] || return 0
    mkdir -p "$dir"
    exec {lock}>"$dir/$suite.lock"
    flock "$lock"
    [[ ! -e $tarball ]] || { exec {lock}>&- && return 0; }
    # The lists of sid are signed for a week, and a mirror may be behind.
    [[ $suite != sid ]] || options=(--aptopt='Acquire::Check-Valid-Until "false"')
    logged "$dir/$suite.log" \
        mmdebstrap --variant=minbase "${options[@]}" "$suite" "$dir/new-$suite.tar"
    mv "$dir/new-$suite.tar" "$tarball"
    exec {lock}>&-
}

base_image_name() {
    printf 'localhost/debian:%s' "$1"
}

# base_image SUITE: makes sure that podman has it.
base_image() {
    local suite=$1 tarball
    ! podman image exists "$(base_image_name "$suite")" || return 0
    base_tarball "$suite"
    logged "$target/bases/import-$suite.log" \
        podman import --change CMD=/bin/bash "$tarball" "$(base_image_name "$suite")"
}

# Fetches the crates where this machine's certificates and proxies are known, which they may not
# be inside a container.
vendor_crates() {
    command -v cargo >/dev/null || return 0
    ! cmp -s "$top/Cargo.lock" "$target/vendor/.Cargo.lock" || return 0
    rm -rf "$target/vendor"
    logged "$target/vendor.log" cargo vendor --manifest-path "$top/Cargo.toml" \
        --locked --versioned-dirs "$target/vendor"
    cp "$top/Cargo.lock" "$target/vendor/.Cargo.lock"
}

# The program as the tests build it, unless AOH_HELPER names one: `helper` is its path.
build_helper() {
    # shellcheck disable=SC2034 # for the caller
    helper=${AOH_HELPER:-$target/debug/apt-ostree-helper}
    [[ -n ${AOH_HELPER:-} ]] || cargo build --locked --manifest-path "$top/Cargo.toml"
}

# What others have published: target/interop/release/{ostree-ext-cli,composefs-digest,ocidir-check}.
build_ostree_ext() {
    cargo build --release --locked --manifest-path "$top/tests/interop/Cargo.toml" --target-dir "$target/interop"
}

# The image that carries the helper; podman's cache makes it quick while the source is the same.
# AOH_HELPER_QUICK=1 compiles it sooner than a release is.
helper_image() {
    local vendor=() quick=() lock
    mkdir -p "$target"
    # Two that want it at once would both compile it.
    exec {lock}>"$target/helper-image.lock"
    flock "$lock"
    base_image "$HELPER_SUITE"
    vendor_crates
    [[ ! -d $target/vendor ]] || vendor=(-v "$target/vendor:/vendor:ro")
    [[ -z ${AOH_HELPER_QUICK:-} ]] || quick=(--build-arg CARGO_PROFILE_RELEASE_LTO=off
        --build-arg CARGO_PROFILE_RELEASE_OPT_LEVEL=1)
    logged "$target/helper-image.log" podman build "${build_flags[@]}" "${vendor[@]}" "${quick[@]}" \
        --ignorefile "$top/containerfiles/Containerfile.helper.containerignore" \
        --build-arg BASE="$(base_image_name "$HELPER_SUITE")" \
        -f "$top/containerfiles/Containerfile.helper" -t "$HELPER_IMAGE" "$top"
    exec {lock}>&-
}

# chunked_image NAME CONTAINERFILE BASE DIR [OPTION...]: a podman build by Containerfile.chunked or
# one like it. The layout is DIR/oci-out/img; the log is DIR/build.log.
chunked_image() {
    local name=$1 containerfile=$2 base=$3 dir=$4 before
    shift 4
    before=$(podman image inspect --format '{{.Id}}' "$name" 2>/dev/null || true)
    mkdir -p "$dir/oci-out" "$dir/context"
    # FROM oci:oci-out/img is relative to the directory that podman runs in.
    logged "$dir/build.log" env -C "$dir" podman build "${build_flags[@]}" \
        --layers=false --skip-unused-stages=false -v "$dir/oci-out:/oci-out" \
        --build-arg BASE="$base" --build-arg HELPER="$HELPER_IMAGE" "$@" \
        -f "$containerfile" -t "$name" context
    # podman also names the image after the layout, and keeps the one that had the name before.
    podman untag "$name" localhost/oci-out/img >/dev/null 2>&1 || true
    if [[ -n $before && $before != "$(podman image inspect --format '{{.Id}}' "$name")" ]]; then
        podman rmi "$before" >/dev/null 2>&1 || true
    fi
}
