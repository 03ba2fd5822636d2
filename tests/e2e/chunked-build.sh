#!/usr/bin/env bash
# One podman build from packages to a chunked image, by the Containerfiles that are shipped, with
# a step of our own in the target stage.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=localhost/aoh-e2e-chunked
child=localhost/aoh-e2e-child
local_image=localhost/aoh-e2e-local
in_place_image=localhost/aoh-e2e-in-place
our_images=("$image" "$child" "$local_image" "$in_place_image")
packages="libcap2-bin python3-minimal"

# with_own_step CONTAINERFILE MARKER: CONTAINERFILE with one more RUN at the end of its target
# stage, whose content holds MARKER.
with_own_step() {
    awk -v step="$work/step" '/^FROM .* AS chunker$/ { while ((getline line < step) > 0) print line } { print }' \
        "$top/containerfiles/$1" >"$work/$1"
    sed -i "s/@MARKER@/$2/" "$work/$1"
}

write_step() {
    cat >"$work/step" <<'EOF'
RUN install -m 4755 /usr/bin/id /usr/local/bin/id-setuid \
 && install -m 0755 /usr/bin/id /usr/local/bin/id-cap \
 && setcap cap_net_bind_service=ep /usr/local/bin/id-cap \
 && mkdir /opt/odd && cd /opt/odd \
 && touch -- ' a space ' '-dash' 'back\slash' '*' '"quoted"' 'grün ☃' "$(printf 'new\nline')" '#hash,comma=x' \
 && echo linked > one && ln one two && ln -s -- '-dash' link \
 && echo @MARKER@ > /opt/marker

EOF
}

build() {
    with_own_step Containerfile.chunked "$1"
    chunked_image "$image" "$work/Containerfile.chunked" "$(base_image_name trixie)" "$work" \
        --build-arg PACKAGES="$packages"
}

check_content() {
    equal "the image starts" "ID=debian" "$(in_image "$image" 'grep ^ID= /etc/os-release')"
    more_than "dpkg knows its packages" 80 "$(in_image "$image" 'dpkg -l | grep -c ^ii')"
    equal "a setuid bit" "4755" "$(in_image "$image" 'stat -c %a /usr/local/bin/id-setuid')"
    equal "a setuid bit that works" "0" \
        "$(podman run --rm --network=none --user 65534 "$image" /usr/local/bin/id-setuid -u)"
    equal "a capability" "/usr/local/bin/id-cap cap_net_bind_service=ep" \
        "$(in_image "$image" 'getcap /usr/local/bin/id-cap')"
    # shellcheck disable=SC2016 # for the shell in the container
    equal "odd file names" 11 "$(in_image "$image" 'cd /opt/odd && set -- *; echo $#')"
    # shellcheck disable=SC2016 # for the shell in the container
    equal "an odd name as it was" "found" \
        "$(in_image "$image" 'test -e "/opt/odd/$(printf "new\nline")" && test -e "/opt/odd/grün ☃" && echo found')"
    # Not by the number of links: in the OSTree format the object is one more.
    equal "a hard link" 1 "$(in_image "$image" 'stat -c %i /opt/odd/one /opt/odd/two | uniq | wc -l')"
    equal "no mount point of the build is left" "gone" \
        "$(in_image "$image" 'test -e /oci-out || test -e /rootfs || echo gone')"
}

check_config() {
    more_than "layers" 10 "$(layer_count "$image")"
    holds "the label ostree.commit is there" test -n "$(label "$image" ostree.commit)"
}

check_next_build() {
    local commit
    commit=$(label "$image" ostree.commit)
    build second
    equal "the next build ships what changed in the target stage" second "$(in_image "$image" 'cat /opt/marker')"
    differ "ostree.commit follows" "$commit" "$(label "$image" ostree.commit)"
}

check_child_image() {
    printf 'FROM %s\nRUN echo more >> /opt/marker && rm /opt/odd/two && dpkg --audit\n' "$image" >"$work/Containerfile.child"
    logged "$work/child.log" podman build "${build_flags[@]}" -f "$work/Containerfile.child" -t "$child" "$work/context"
    equal "a build from the image adds to it" "second more" "$(in_image "$child" 'xargs < /opt/marker')"
    equal "a build from the image removes from it" 10 "$(in_image "$child" 'ls -b /opt/odd | wc -l')"
    equal "its layers lie on top" $(($(layer_count "$image") + 1)) "$(layer_count "$child")"
}

build_local() {
    with_own_step Containerfile.chunked-local "$1"
    # podman adds to what it finds there.
    rm -rf "$work/out"
    logged "$work/local.log" podman build "${build_flags[@]}" --layers=false -o "type=local,dest=$work/out" \
        --build-arg BASE="$(base_image_name trixie)" --build-arg HELPER="$HELPER_IMAGE" \
        --build-arg PACKAGES="$packages" --iidfile "$work/local.iid" \
        -f "$work/Containerfile.chunked-local" "$work/context"
    our_images+=("$(cat "$work/local.iid")")
}

check_local_form() {
    build_local third
    skopeo copy -q "oci:$work/out" "containers-storage:$local_image"
    equal "the form without a volume starts, too" third "$(in_image "$local_image" 'cat /opt/marker')"
    podman rmi "$local_image" >/dev/null
    build_local fourth
    skopeo copy -q "oci:$work/out" "containers-storage:$local_image"
    equal "and ships what changed" fourth "$(in_image "$local_image" 'cat /opt/marker')"
}

check_in_place_form() {
    chunked_image "$in_place_image" "$top/containerfiles/Containerfile.in-place" "$(base_image_name trixie)" "$work" \
        --build-arg PACKAGES="$packages"
    equal "the form in place starts" "ID=debian" "$(in_image "$in_place_image" 'grep ^ID= /etc/os-release')"
    equal "without what was mounted there" "" \
        "$(in_image "$in_place_image" 'ls -d /oci-out /helper /usr/bin/apt-ostree-helper 2>/dev/null')"
    more_than "with its packages" 80 "$(in_image "$in_place_image" 'dpkg -l | grep -c ^ii')"
    holds "and the label ostree.commit" test -n "$(label "$in_place_image" ostree.commit)"
}

start chunked-build
helper_image
write_step
build first
check_content
check_config
check_next_build
check_child_image
check_local_form
check_in_place_form
