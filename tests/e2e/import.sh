#!/usr/bin/env bash
# Images on their way through podman's storage and a registry and back into commits; an image that
# podman built on an encapsulated one, imported and chunked again.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=localhost/aoh-e2e-import
derived=localhost/aoh-e2e-derived
flattened=localhost/aoh-e2e-flattened
our_images=("$flattened" "$derived" "$image")
registry_pid=

make_rootfs() {
    rootfs=$work/rootfs
    base_tarball trixie
    mkdir "$rootfs"
    tar -C "$rootfs" --xattrs --xattrs-include='*' --numeric-owner --exclude='./dev/*' -xf "$tarball"
    # As a bootable system has it, and every encapsulated image.
    mkdir "$rootfs/sysroot"
    # Directories whose owner and mode matter, with something in them.
    mkdir -m 0750 "$rootfs/etc/secret.d"
    echo secret >"$rootfs/etc/secret.d/key"
    touch "$rootfs/var/mail/root"
}

new_repository() {
    rm -rf "$work/repo"
    ostree init --repo="$work/repo" --mode=bare-user
    ostree config --repo="$work/repo" set core.fsync false
}

# imported IMAGE [OPTION...]: prints the commit.
imported() {
    "$helper" import -q --repo "$work/repo" --branch test "$@"
}

is_whole() {
    holds "$1: ostree fsck is clean" ostree fsck -q --repo="$work/repo"
}

start_registry() {
    local port
    for port in 5123 5124 5125; do
        cat >"$work/registry.yml" <<EOF
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
EOF
        docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
        registry_pid=$!
        for _ in $(seq 50); do
            kill -0 "$registry_pid" 2>/dev/null || break
            if curl -fs "http://127.0.0.1:$port/v2/" >/dev/null; then
                registry=127.0.0.1:$port
                return
            fi
            sleep 0.1
        done
        kill "$registry_pid" 2>/dev/null || true
    done
    die "docker-registry does not start: $(tail -n 3 "$work/registry.log")"
}

stop_registry() {
    [[ -z $registry_pid ]] || kill "$registry_pid" 2>/dev/null || true
}

check_storage() {
    skopeo copy -q "oci:$work/img" "containers-storage:$image"
    new_repository
    equal "the commit comes back from podman's storage" "$commit" "$(imported "containers-storage:$image")"
    is_whole "from podman's storage"
}

check_registry() {
    start_registry
    skopeo copy -q --dest-tls-verify=false --preserve-digests "oci:$work/img" "docker://$registry/os:1"
    new_repository
    equal "the commit comes back from a registry" "$commit" \
        "$(imported "docker://$registry/os:1" --tls-verify=false)"
    is_whole "from a registry"
    if imported "docker://$registry/os:none" --tls-verify=false 2>"$work/error"; then
        die "an image that the registry does not have was imported"
    fi
    holds "an image that is not there is named" grep -q "docker://$registry/os:none" "$work/error"
}

# Version 1 leaves out directories, and podman makes them up: what the image shows is wrong, what is
# built of it again is right.
check_chunking_again() {
    local mounted again
    mounted=$(podman image mount "$image")
    differ "podman has lost the mode of a directory" 750 "$(stat -c %a "$mounted/etc/secret.d")"
    again=$("$helper" build -q --json --rootfs "$mounted" --timestamp "$timestamp" -o "oci:$work/again" |
        sed -n 's/^ *"commit": "\(.*\)",/\1/p')
    podman image unmount "$image" >/dev/null
    equal "its rootfs built again is the same commit" "$commit" "$again"
}

check_derived() {
    local mounted
    mkdir -p "$work/context"
    cat >"$work/context/Containerfile" <<EOF
FROM $image
RUN echo new >/etc/new && rm /usr/share/common-licenses/BSD && mkdir /usr/share/added && ln -s /etc/new /usr/share/added/link
EOF
    logged "$work/build.log" podman build "${build_flags[@]}" -t "$derived" "$work/context"
    new_repository
    imported "containers-storage:$derived" --json >"$work/derived.json"
    equal "the commit below is named" "$commit" "$(sed -n 's/^ *"base": "\(.*\)",/\1/p' "$work/derived.json")"
    is_whole "a derived image"
    ostree --repo="$work/repo" checkout test "$work/checkout"
    equal "a new file is there" new "$(cat "$work/checkout/usr/etc/new")"
    equal "a new link is there" /etc/new "$(readlink "$work/checkout/usr/share/added/link")"
    holds "a removed file is gone" test ! -e "$work/checkout/usr/share/common-licenses/BSD"
    equal "directories are those of the commit" "750 2775 1777" \
        "$(cd "$work/checkout" && stat -c %a usr/etc/secret.d var/mail var/tmp | xargs)"

    mounted=$(podman image mount "$derived")
    "$helper" build -q --rootfs "$mounted" -o "oci:$work/chunked" >"$work/digest"
    podman image unmount "$derived" >/dev/null
    holds "chunked again, it verifies" test -s "$work/chunked/index.json"
    new_repository
    imported "oci:$work/chunked" >/dev/null
    is_whole "chunked again"
    equal "the old commit is not in it" 1 "$(find "$work/repo/objects" -name '*.commit' | wc -l)"
}

# shows WHAT IMAGE: a commit of IMAGE has the files that a container of it shows.
shows() {
    local mounted
    new_repository
    imported "containers-storage:$2" >/dev/null
    is_whole "$1"
    rm -rf "$work/checkout"
    ostree --repo="$work/repo" checkout test "$work/checkout"
    mounted=$(podman image mount "$2")
    holds "$1: the files of a container" diff -r --no-dereference \
        --exclude=etc --exclude=sysroot "$mounted/usr" "$work/checkout/usr"
    holds "$1: its configuration" diff -r --no-dereference \
        --exclude=resolv.conf --exclude=hosts --exclude=hostname \
        "$mounted/etc" "$work/checkout/usr/etc"
    podman image unmount "$2" >/dev/null
}

# What others make of an encapsulated image was refused as damaged: one layer of all, an export, a
# file that was edited in place.
check_flattened() {
    local container mounted
    printf 'FROM %s\nRUN echo flat >/usr/share/flat\n' "$image" >"$work/context/Containerfile"
    logged "$work/squash.log" \
        podman build "${build_flags[@]}" --squash-all -t "$flattened" "$work/context"
    shows "podman build --squash-all" "$flattened"

    container=$(podman create --network=none "$image" true)
    podman export "$container" | podman import -q - "$flattened" >/dev/null
    podman rm "$container" >/dev/null
    shows "podman export and import" "$flattened"

    container=$(buildah from --pull-never "$image")
    mounted=$(buildah mount "$container")
    echo '# edited' >>"$mounted/etc/profile"
    buildah umount "$container" >/dev/null
    buildah commit -q "$container" "$flattened" >/dev/null
    buildah rm "$container" >/dev/null
    shows "a file edited in place" "$flattened"
    holds "a file edited in place: the edit" grep -q '^# edited' "$work/checkout/usr/etc/profile"
}

start import
trap 'stop_registry; finish' EXIT
logged "$work/cargo.log" build_helper
make_rootfs
timestamp=1700000000
commit=$("$helper" build -q --json --rootfs "$rootfs" --format-version 1 --compression gzip \
    --timestamp "$timestamp" -o "oci:$work/img" | sed -n 's/^ *"commit": "\(.*\)",/\1/p')
check_storage
check_registry
check_chunking_again
check_derived
check_flattened
