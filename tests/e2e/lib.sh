# shellcheck shell=bash
# Shared by the end-to-end tests: storage of their own, a place to work in, and asserts.
# A test prints one line an assertion and exits at the first that does not hold.

# shellcheck source=contrib/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../contrib/lib.sh"

e2e=$target/e2e

# start NAME [SUITE]: `work` becomes an empty directory, podman, buildah and skopeo get storage apart
# from the user's, with a base and a helper image kept in it from one test to the next.
start() {
    local suite=${2:-trixie}
    current_step=$1
    work=$e2e/$1
    rm -rf "$work"
    mkdir -p "$work"
    trap finish EXIT
    private_storage
    base_image "$suite"
    ensure_podman_runs "$(base_image_name "$suite")"
}

# Removes the images that the test made, and the run directory: nothing is mounted any more.
finish() {
    local status=$? image
    for image in "${our_images[@]}"; do
        podman rmi -f "$image" >/dev/null 2>&1 || true
    done
    rm -rf --one-file-system "$runroot"
    ((status == 0)) || (exit "$status") || report_failure
}
our_images=()
runroot=

# All tools read CONTAINERS_STORAGE_CONF. The run directory holds mount counts, which must not
# outlive a boot, and its path may not be longer than 50 characters: hence not below target/.
private_storage() {
    local driver
    runroot=${XDG_RUNTIME_DIR:-/run}/aoh-$(cksum <<<"$e2e" | cut -d ' ' -f 1)
    mkdir -p "$e2e"
    export CONTAINERS_STORAGE_CONF=$e2e/storage.conf
    for driver in overlay vfs; do
        cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver = "$driver"
graphroot = "$e2e/storage"
runroot = "$runroot"
EOF
        podman info >/dev/null 2>&1 && return
    done
    die "podman takes neither overlay nor vfs storage in $e2e/storage"
}

# --- asserts ----------------------------------------------------------------------------------

# holds WHAT COMMAND...
holds() {
    local what=$1
    shift
    "$@" || die "does not hold: $what ($*)"
    printf 'ok: %s\n' "$what"
}

# equal WHAT EXPECTED FOUND
equal() {
    [[ $2 = "$3" ]] || die "$1: expected '$2', found '$3'"
    printf 'ok: %s\n' "$1"
}

# differ WHAT A B
differ() {
    [[ $2 != "$3" ]] || die "$1: both are '$2'"
    printf 'ok: %s\n' "$1"
}

# more_than WHAT LIMIT FOUND
more_than() {
    (($3 > $2)) || die "$1: expected more than $2, found $3"
    printf 'ok: %s (%s)\n' "$1" "$3"
}

# in_image IMAGE SCRIPT [ARGUMENT...]: runs SCRIPT by a container's shell.
in_image() {
    podman run --rm --network=none "$1" sh -c "${@:2}"
}

label() {
    podman image inspect --format "{{index .Config.Labels \"$2\"}}" "$1"
}

layer_count() {
    podman image inspect --format '{{len .RootFS.Layers}}' "$1"
}
