#!/usr/bin/env bash
# The pages of the book, and the README, whose commands want podman: tests/project/book_runs.rs reads
# and runs them, in this storage.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

our_images=(localhost/my-os localhost/my-app localhost/os)

# What the words of the book leave out, because they are for a reader's machine: nested, a container
# has no network of its own.
nested_network() {
    if [[ -z ${CONTAINERS_CONF:-} ]]; then
        export CONTAINERS_CONF=$work/containers.conf
        printf '[containers]\n' >"$CONTAINERS_CONF"
    else
        cp "$CONTAINERS_CONF" "$work/containers.conf"
        CONTAINERS_CONF=$work/containers.conf
        grep -q '^\[containers\]' "$CONTAINERS_CONF" || printf '[containers]\n' >>"$CONTAINERS_CONF"
    fi
    sed -i '/^\[containers\]/a netns = "host"' "$CONTAINERS_CONF"
    export BUILDAH_ISOLATION=chroot
}

start book
helper_image
nested_network
AOH_BOOK_PODMAN=1 cargo test --locked --manifest-path "$top/Cargo.toml" --test project \
    book_runs::the_commands_of_the_book_that_want_podman_work -- --nocapture
podman rm -f NAME >/dev/null
