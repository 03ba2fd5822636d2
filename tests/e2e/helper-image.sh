#!/usr/bin/env bash
# The image that carries the helper: it builds, its program starts, and it splits an image that
# is mounted into it with no more than default capabilities and no network.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

split_a_mounted_image() {
    mkdir -p "$work/out"
    podman run --rm --network=none \
        --mount type=image,src="$(base_image_name trixie)",dst=/rootfs -v "$work/out:/out" \
        "$HELPER_IMAGE" build --rootfs /rootfs -o oci:/out/img
}

start helper-image
helper_image

version=$(podman run --rm --network=none "$HELPER_IMAGE" --version)
equal "the entry point is the helper" "apt-ostree-helper" "${version%% *}"

size=$(podman run --rm --network=none --entrypoint /usr/bin/stat "$HELPER_IMAGE" -c %s /usr/bin/apt-ostree-helper)
holds "the program is below 16 MB ($size)" [ "$size" -lt 16000000 ]

before=$(podman image inspect --format '{{.Id}}' "$HELPER_IMAGE")
helper_image
equal "an unchanged source is not built again" "$before" \
    "$(podman image inspect --format '{{.Id}}' "$HELPER_IMAGE")"

digest=$(split_a_mounted_image)
equal "build prints the digest of the manifest" "$digest" \
    "sha256:$(skopeo inspect --raw "oci:$work/out/img" | sha256sum | cut -d ' ' -f 1)"
equal "a second run replaces the layout by the same" "$digest" "$(split_a_mounted_image)"
