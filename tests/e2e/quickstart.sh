#!/usr/bin/env bash
# The first command of the README, with few packages.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=localhost/debian-chunked:trixie
our_images=("$image")

quickstart() {
    logged "$work/log" "$top/contrib/quickstart" --packages "$1"
}

start quickstart
quickstart tini
holds "it ends with a command to type" grep -q '^Ready: .*podman run .*'"$image" "$work/log"
holds "it has started the image" grep -q '^ *packages: [1-9]' "$work/log"
more_than "rows in its table of layers" 10 "$(sed -n '/SIZE *LAYER/,/^$/p' "$work/log" | wc -l)"

quickstart "tini file"
equal "a second run ships what it was asked for" /usr/bin/file "$(in_image "$image" 'command -v file')"
