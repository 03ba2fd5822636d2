#!/usr/bin/env bash
# Every way in which people get at an image or a container, with podman and buildah, on overlay and
# vfs, as root and as an ordinary user; and that nothing is left behind, whatever ends us.
#
#   AOH_CONTAINERS_SUITE=sid  with the podman, buildah and skopeo of that suite, in its root
#   AOH_CONTAINERS_FLOWS=...  these flows only (the functions flow_* below)
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=${AOH_CONTAINERS_SUITE:-}
chroot=$target/e2e-suites/$suite
# Short, and where an ordinary user may go: sockets and mounts have paths in it.
place=/var/tmp/aoh-containers${suite:+-$suite}
helper=$place/apt-ostree-helper
base=localhost/base:1
user=4711

# --- where it runs ------------------------------------------------------------------------------

make_chroot() {
    [[ ! -d $chroot ]] || return 0
    rm -rf "$chroot.new"
    mkdir -p "$(dirname "$chroot")"
    # The lists of sid and testing are signed for a week, and a mirror may be behind.
    logged "$target/e2e-suites/$suite.log" mmdebstrap --mode=root --variant=minbase \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=podman,buildah,skopeo,uidmap,crun,runc,nftables,netavark,fuse-overlayfs,ca-certificates,procps \
        "$suite" "$chroot.new"
    mv "$chroot.new" "$chroot"
}

# On the machine: what is needed inside is brought to $place, and all goes on in a namespace whose
# mounts end with it, with that suite as its root where one is named.
outside() {
    local root='' dir static
    static=$("$top/tests/e2e/static")
    base_tarball trixie
    [[ -z $suite ]] || { make_chroot && root=$chroot; }
    rm -rf --one-file-system "$root/${place:?}"
    mkdir -p "$root$place"
    cp "$static" "$root$helper"
    ln -f "$tarball" "$root$place/base.tar" 2>/dev/null || cp "$tarball" "$root$place/base.tar"
    chmod 0644 "$root$place/base.tar"
    if [[ -n $suite ]]; then
        mkdir -p "$root$top"
        cp /etc/resolv.conf "$root/etc/resolv.conf"
    fi
    export AOH_CONTAINERS_INSIDE=1
    # shellcheck disable=SC2016 # for the shell inside
    unshare --mount --propagation private bash -euc '
        root=$1 top=$2
        if [[ -n $root ]]; then
            mount --bind "$root" "$root"
            for dir in /proc /sys /dev; do mount --rbind "$dir" "$root$dir"; done
            mount --bind "$top" "$root$top"
            # Not a chroot: from within one, no user may make a user namespace.
            mkdir -p "$root/.old"
            cd "$root"
            pivot_root . .old
            umount -l /.old
        fi
        exec "$3"' - "$root" "$top" "$(realpath "${BASH_SOURCE[0]}")"
    rm -rf --one-file-system "$root/${place:?}"
}

# use_storage DRIVER: storage of its own for all tools.
use_storage() {
    driver=$1
    graph=$place/$driver
    mkdir -p "$graph" "$place/tmp"
    export TMPDIR=$place/tmp
    export CONTAINERS_STORAGE_CONF=$place/$driver.conf
    cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver = "$driver"
graphroot = "$graph/g"
runroot = "/run/aoh-$driver"
EOF
    podman image exists "$base" || podman import --quiet --change CMD=/bin/bash --change ENV=A=b \
        --change LABEL=keep=1 --change LABEL=ostree.commit=stale --change USER=nobody "$place/base.tar" "$base" >/dev/null
}

# --- asserts ------------------------------------------------------------------------------------

# nothing_left WHAT: no mount, container, process, record or temporary directory of ours.
nothing_left() {
    local left
    left=$(
        podman ps -a --external --format '{{.Names}}'
        buildah containers --format '{{.ContainerName}}'
        podman image mount
        grep -F "$graph/" /proc/self/mountinfo | grep -vF " $graph/g/$driver " || true
        grep -rlF "$place/" /run/apt-ostree-helper 2>/dev/null || true
        find "$place/tmp" -mindepth 1 -maxdepth 1 -name '.apt-ostree-helper-*'
        grep -lzs '^APT_OSTREE_HELPER_OWNER=' /proc/[0-9]*/environ | xargs -r grep -lzs "^TMPDIR=$place/" || true
    )
    equal "$1: nothing is left" '' "$left"
}

# layers COMMAND...: the diff ids of the image that a build makes.
layers() {
    "$@" --json 2>"$place/messages" | grep -o '"diff_id": "[^"]*"' || die "$*: $(cat "$place/messages")"
}

# fails WHAT PATTERN COMMAND...
fails() {
    local what=$1 pattern=$2 said
    shift 2
    if said=$("$@" 2>&1); then
        die "$what: succeeded ($*)"
    fi
    [[ $said =~ $pattern ]] || die "$what: said '$said', not '$pattern'"
    printf 'ok: %s\n' "$what"
}

# layers_of LAYOUT: as `layers`, of an image that is there.
layers_of() {
    config "$1" | grep -o '"diff_ids":\[[^]]*\]' | grep -o 'sha256:[0-9a-f]*' | sed 's/.*/"diff_id": "&"/'
}

# config LAYOUT: the config of the image in a layout.
config() {
    local dir=$1 manifest
    manifest=$(grep -o 'sha256:[0-9a-f]*' "$dir/index.json" | head -n 1)
    manifest=$(grep -o '"config":{[^}]*}' "$dir/blobs/sha256/${manifest#sha256:}" | grep -o 'sha256:[0-9a-f]*')
    cat "$dir/blobs/sha256/${manifest#sha256:}"
}

# --- the flows ----------------------------------------------------------------------------------

# An image of the storage: the layers of the rootfs it is, the config it has, by both backends the
# same bytes.
flow_from() {
    local backend path expected digests=()
    path=$("$helper" mount --backend podman "$base")
    expected=$(layers "$helper" build --rootfs "$path" -o "oci:$place/rootfs")
    "$helper" umount --backend podman "$path"
    for backend in podman buildah; do
        equal "$driver, $backend, --from: the layers of --rootfs" "$expected" \
            "$(layers "$helper" build --backend "$backend" --from "$base" -o "oci:$place/from")"
        digests+=("$("$helper" build -q --backend "$backend" --from "$base" -o "oci:$place/from")")
        nothing_left "$driver, $backend, --from"
    done
    equal "$driver: podman and buildah give the same image" "${digests[0]}" "${digests[1]}"
    holds "the environment is inherited" grep -q '"Env":\["[^]]*A=b"\]' <(config "$place/from")
    holds "a label is inherited" grep -q '"keep":"1"' <(config "$place/from")
    holds "the user is inherited" grep -q '"User":"nobody"' <(config "$place/from")
    holds "a stale label is not" grep -qv '"ostree.commit":"stale"' <(config "$place/from")
    "$helper" build -q --rootfs "$place/small" --config-from "$base" -o "oci:$place/from"
    holds "--config-from takes it, too" grep -q '"keep":"1"' <(config "$place/from")
}

# A container, changed and configured, of either backend.
flow_container() {
    local name
    name=$(buildah from --pull=never "$base")
    buildah config --env X=y "$name"
    buildah run --isolation=chroot --network=host --user=root "$name" -- sh -c 'echo changed >/opt/changed'
    "$helper" build -q --container "$name" -o "oci:$place/container"
    holds "buildah's container: its config" grep -q 'X=y' <(config "$place/container")
    holds "buildah's container: its files" tar_has "$place/container" opt/changed
    equal "it is not left mounted" '' "$(buildah mount | grep -F "$name " || true)"
    buildah rm "$name" >/dev/null
    podman create --name aoh-test --network=none "$base" true >/dev/null
    "$helper" build -q --container aoh-test -o "oci:$place/container"
    holds "podman's container: its image's config" grep -q '"keep":"1"' <(config "$place/container")
    podman rm aoh-test >/dev/null
    nothing_left "$driver, --container"
    fails "an unknown container" 'no container nosuch' "$helper" build --container nosuch -o "oci:$place/x"
}

# tar_has LAYOUT PATH: whether a layer has it.
tar_has() {
    local blob
    for blob in "$1"/blobs/sha256/*; do
        # The first lines are not all of it: grep must read on.
        ! tar -tf "$blob" 2>/dev/null | grep -cxF "$2" >/dev/null || return 0
    done
    return 1
}

# An image without a command, and names that are none.
flow_odd_images() {
    tar -C "$place/small" -cf - . | podman import --quiet - localhost/nocmd:1 >/dev/null
    local backend
    for backend in podman buildah; do
        "$helper" build -q --backend "$backend" --from localhost/nocmd:1 -o "oci:$place/nocmd" >/dev/null
        nothing_left "$driver, $backend, an image without a command"
        fails "an unknown image" 'localhost/nosuch:1' "$helper" build --backend "$backend" --from localhost/nosuch:1 -o "oci:$place/x"
        nothing_left "$driver, $backend, an unknown image"
    done
    podman rmi localhost/nocmd:1 >/dev/null
}

# Into the storage that both use, under the name that podman gives.
flow_storage() {
    # On vfs every layer is a copy of all below it.
    "$helper" build -q --from "$base" --cmd /bin/true --max-layers 4 -o containers-storage:aoh-out
    holds "the image is in the storage" podman image exists localhost/aoh-out:latest
    equal "it starts" ID=debian "$(podman run --rm --network=none localhost/aoh-out grep ^ID= /etc/os-release)"
    "$helper" compose build-chunked-oci --bootc --from "$base" --max-layers 4 --output containers-storage:aoh-out -q
    equal "build-chunked-oci --from" 1 "$(label localhost/aoh-out containers.bootc)"
    nothing_left "$driver, containers-storage:"
    podman rmi localhost/aoh-out >/dev/null
    # What is known is stored in no time.
    podman image prune --force >/dev/null
    start_job "$helper" build -q --from "$base" --max-layers 4 -o containers-storage:aoh-out
    until_running 'skopeo .*aoh-out'
    kill -TERM "$job"
    local status=0
    wait "$job" || status=$?
    equal "$driver: SIGTERM while the image is stored" 143 "$status"
    equal "skopeo is gone" '' "$(pgrep -f 'skopeo .*aoh-out' || true)"
    holds "there is no half image" not podman image exists localhost/aoh-out:latest
    nothing_left "$driver, SIGTERM while storing"
}

write_context() {
    mkdir -p "$place/context"
    cat >"$place/context/Containerfile" <<EOF
FROM $base AS first
USER root
ARG WHAT=nothing
RUN echo "\$WHAT" >/opt/what
CMD ["/bin/true"]
FROM first
RUN echo second >/opt/second
EOF
}

# One command from a Containerfile to a chunked image.
flow_build_image() {
    local backend
    write_context
    for backend in podman buildah; do
        "$helper" compose build-image --backend "$backend" "$place/context" --target first --build-arg WHAT=this \
            -o "oci:$place/made" -- "${build_flags[@]}" >"$place/digest" 2>"$place/messages"
        holds "$driver, $backend, build-image: its output is shown" grep -q 'STEP.*FROM' "$place/messages"
        holds "$driver, $backend, build-image: the target's files" tar_has "$place/made" opt/what
        holds "$driver, $backend, build-image: no more than the target" not tar_has "$place/made" opt/second
        holds "$driver, $backend, build-image: the config" grep -q '"Cmd":\["/bin/true"\]' <(config "$place/made")
        nothing_left "$driver, $backend, build-image"
        "$helper" compose build-image --backend "$backend" "$place/context" --target first --build-arg WHAT=this \
            --format plain --base auto -o "oci:$place/above" -- "${build_flags[@]}" >/dev/null 2>"$place/messages"
        equal "$driver, $backend, build-image --base auto: the layer of the base stays" \
            "$(podman image inspect --format '{{index .RootFS.Layers 0}}' "$base")" \
            "$(layers_of "$place/above" | grep -o 'sha256:[0-9a-f]*' | head -n 1)"
        nothing_left "$driver, $backend, build-image --base auto"
        "$helper" compose build-image --finalize --backend "$backend" "$place/context" --target first \
            --build-arg WHAT=this -o "oci:$place/finalized" -- "${build_flags[@]}" >/dev/null 2>"$place/messages"
        holds "$driver, $backend, build-image --finalize: dpkg's state is the image's" \
            tar_has "$place/finalized" usr/lib/sysimage/dpkg/status
        # buildah keeps no steps from one build to the next: its second image is another.
        if [[ $backend = podman ]]; then
            "$helper" compose build-image --backend "$backend" "$place/context" --target first --build-arg WHAT=this \
                -o "oci:$place/made" -- "${build_flags[@]}" >"$place/digest.again" 2>"$place/messages"
            holds "$driver, $backend, build-image --finalize: what was built is as it was" \
                cmp "$place/digest" "$place/digest.again"
        fi
        nothing_left "$driver, $backend, build-image --finalize"
        fails "a build that fails" 'building the image in' "$helper" compose build-image --backend "$backend" \
            "$place/context" --target nosuch -o "oci:$place/x" -- "${build_flags[@]}"
        nothing_left "$driver, $backend, a build that fails"
    done
}

not() {
    ! "$@"
}

# A step that reads another stage, and one that reads the very stage it runs in.
flow_run_step() {
    mkdir -p "$place/steps/out"
    cp "$helper" "$place/steps/"
    echo secret >"$place/steps/secret"
    cat >"$place/steps/Containerfile" <<EOF
FROM $base AS target
USER root
RUN echo made >/opt/made && chmod 1777 /tmp

FROM target AS in-place
COPY apt-ostree-helper /usr/bin/
RUN --mount=type=secret,id=s,target=/etc/secret --mount=type=bind,source=.,target=/mnt/context \\
    apt-ostree-helper build --rootfs / --prune /usr/bin/apt-ostree-helper --prune /out --prune /mnt/context --prune /etc/secret -q -o oci:/out/in-place

FROM $base
USER root
COPY apt-ostree-helper /usr/bin/
COPY --from=in-place /opt/made /opt/made
RUN --mount=type=bind,from=target,target=/rootfs,ro \\
    apt-ostree-helper build --prune /out --prune /mnt/context -q -o oci:/out/other
EOF
    (cd "$place/steps" && podman build "${build_flags[@]}" --layers=false --skip-unused-stages=false \
        --secret id=s,src=secret -v "$place/steps/out:/out" . >"$place/messages" 2>&1) || die "$(cat "$place/messages")"
    holds "$driver: a step on another stage" tar_has "$place/steps/out/other" opt/made
    holds "$driver: a step in its own stage" tar_has "$place/steps/out/in-place" opt/made
    local path
    for path in etc/hosts etc/resolv.conf etc/hostname usr/etc/hosts usr/etc/resolv.conf run/.containerenv usr/etc/secret; do
        holds "in its own stage: without /$path" not tar_has "$place/steps/out/in-place" "$path"
    done
    rm -rf "$place/steps"
    podman image prune --force >/dev/null
    nothing_left "$driver, a step in a build"
}

# The way that needs no privilege: podman mounts the image for the helper's container.
flow_image_mount() {
    mkdir -p "$place/out"
    podman run --rm --network=none --user=root -v "$helper:/usr/bin/apt-ostree-helper:ro" -v "$place/out:/out" \
        --mount "type=image,src=$base,dst=/rootfs" "$base" apt-ostree-helper build -q -o oci:/out/img >/dev/null
    holds "$driver: podman run --mount type=image" test -e "$place/out/img/index.json"
    equal "the layers of --from" "$(layers "$helper" build --from "$base" -o "oci:$place/from")" \
        "$(layers_of "$place/out/img")"
}

# In a container that has the host's storage and the capabilities to mount: with buildah.
flow_nested() {
    local options=(--rm --network=none --user=root --security-opt=label=disable --security-opt=apparmor=unconfined
        -v "$graph/g:/var/lib/containers/storage" -v "$helper:/usr/bin/apt-ostree-helper:ro" -v "$place/out:/out")
    mkdir -p "$place/out" "$place/nested"
    podman build "${build_flags[@]}" --build-arg HELPER="$base" -f "$top/containerfiles/Containerfile.nested" \
        -t localhost/nested:1 "$place/nested" >"$place/messages" 2>&1 || die "$(cat "$place/messages")"
    podman run "${options[@]}" --cap-add=sys_admin,mknod localhost/nested:1 \
        apt-ostree-helper build -q --from "$base" -o oci:/out/nested >/dev/null
    equal "nested: the layers of --from" "$(layers "$helper" build --from "$base" -o "oci:$place/from")" \
        "$(layers_of "$place/out/nested")"
    fails "nested without the capabilities" 'SYS_ADMIN|[Pp]ermission|not permitted' podman run "${options[@]}" localhost/nested:1 \
        apt-ostree-helper build -q --from "$base" -o oci:/out/refused
    nothing_left "$driver, nested"
    nested_ended TERM "${options[@]}"
    nested_ended KILL "${options[@]}"
    podman rmi localhost/nested:1 >/dev/null
}

# nested_ended SIGNAL OPTION...: as process 1 of a container, which knows only the signals it has
# asked for.
nested_ended() {
    local signal=$1 tries status
    shift
    podman run --name aoh-nested "$@" --cap-add=sys_admin,mknod localhost/nested:1 apt-ostree-helper build -q --from "$base" \
        --compression zstd --compression-level 19 -o oci:/out/ended >"$place/messages" 2>&1 &
    job=$!
    # The container in which it mounts is on record in the run directory of the inner buildah, and
    # not to be seen here.
    for ((tries = 0; tries < 300; tries++)); do
        [[ -z $(find "$place/out" -name '.apt-ostree-helper-*') ]] || break
        sleep 0.1
    done
    ((tries < 300)) || die "the nested build never began to write: $(cat "$place/messages")"
    podman kill --signal "$signal" aoh-nested >/dev/null
    status=0
    wait "$job" || status=$?
    equal "nested: SIG$signal as process 1" $((128 + $(kill -l "$signal"))) "$status"
    [[ $signal = KILL ]] || equal "nested: its output is removed" '' "$(find "$place/out" -name '.apt-ostree-helper-*')"
    "$helper" umount --leftovers >/dev/null
    rm -rf "$place"/out/.apt-ostree-helper-*
    nothing_left "$driver, nested, SIG$signal"
}

# --- what ends us -------------------------------------------------------------------------------

# start_job COMMAND...: in the background; `job` is its number.
start_job() {
    rm -rf "$place/killed"
    "$@" >/dev/null 2>"$place/messages" &
    job=$!
}

flow_signals() {
    local backend pause status
    write_context
    # A step that takes its time.
    echo 'RUN echo $$ >/opt/pid; sleep 4711' >>"$place/context/Containerfile"
    for backend in podman buildah; do
        for pause in 0.05 0.15 0.3 0.6; do
            start_job "$helper" build --backend "$backend" --from "$base" -o "oci:$place/killed" \
                --compression zstd --compression-level 19
            sleep "$pause"
            kill -TERM "$job"
            status=0
            wait "$job" || status=$?
            equal "$driver, $backend: SIGTERM after $pause s" 143 "$status"
            nothing_left "$driver, $backend, SIGTERM"
        done
        start_job "$helper" compose build-image --backend "$backend" "$place/context" -o "oci:$place/killed" -- "${build_flags[@]}"
        until_running 'sleep 4711'
        kill -TERM "$job"
        status=0
        wait "$job" || status=$?
        equal "$driver, $backend: SIGTERM in a build" 143 "$status"
        equal "what ran in the build is gone" '' "$(pgrep -f 'sleep 4711' || true)"
        nothing_left "$driver, $backend, SIGTERM in a build"
        start_job "$helper" compose build-image --backend "$backend" "$place/context" -o "oci:$place/killed" -- "${build_flags[@]}"
        until_running 'sleep 4711'
        kill -KILL "$job"
        wait "$job" 2>/dev/null || true
        # Directories for temporary files are left alone while they are new.
        sleep 2.1
        "$helper" umount --leftovers >/dev/null
        equal "what ran in a killed build is gone" '' "$(pgrep -f 'sleep 4711' || true)"
        nothing_left "$driver, $backend, SIGKILL in a build"
    done
}

until_running() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        ! pgrep -f "$1" >/dev/null || return 0
        sleep 0.1
    done
    die "'$1' never ran: $(cat "$place/messages")"
}

# Killed 50 times at moments of chance.
flow_kills() {
    local backend kill
    for ((kill = 0; kill < 50; kill++)); do
        backend=podman
        ((kill % 2)) || backend=buildah
        start_job "$helper" build --backend "$backend" --from "$base" -o "oci:$place/killed" \
            --compression zstd --compression-level 19
        sleep "0.$(printf '%03d' $((RANDOM % 800)))"
        kill -KILL "$job" 2>/dev/null || true
        wait "$job" 2>/dev/null || true
        rm -rf "$place"/.apt-ostree-helper-*
        "$helper" umount --leftovers >"$place/removed"
    done
    sleep 2.1
    "$helper" umount --leftovers >/dev/null
    nothing_left "$driver: killed 50 times"
}

# --- an ordinary user ---------------------------------------------------------------------------

# In this namespace only: a user who can do nothing, with subordinate ids.
make_user() {
    local file
    for file in passwd group subuid subgid; do
        touch "/etc/$file"
        cp "/etc/$file" "$place/$file"
    done
    echo "aoh:x:$user:$user::$place/home:/bin/sh" >>"$place/passwd"
    echo "aoh:x:$user:" >>"$place/group"
    echo "aoh:300000:65536" | tee -a "$place/subuid" >>"$place/subgid"
    for file in passwd group subuid subgid; do
        mount --bind "$place/$file" "/etc/$file"
    done
    mkdir -p "$place/home" "$place/run" "$place/home/tmp"
    chmod 0755 "$place"
    chmod 0700 "$place/run"
    chown -R "$user:$user" "$place/home" "$place/run"
    chmod 0755 "$helper"
}

# Before a command: the user's. All that it names become the command, so that a signal reaches that.
as_user=(env -u CONTAINERS_STORAGE_CONF "HOME=$place/home" USER=aoh "XDG_RUNTIME_DIR=$place/run" "TMPDIR=$place/home/tmp"
    setpriv "--reuid=$user" "--regid=$user" --clear-groups --inh-caps=-all env -C "$place/home")

user_has_nothing_left() {
    local left
    left=$(
        "${as_user[@]}" podman ps -a --external --format '{{.Names}}'
        "${as_user[@]}" buildah containers --format '{{.ContainerName}}'
        ls -A "$place/run/apt-ostree-helper" 2>/dev/null || true
        find "$place/home/tmp" -mindepth 1 -maxdepth 1 -name '.apt-ostree-helper-*'
        pgrep -u "$user" -f apt-ostree-helper || true
    )
    equal "$1: nothing is left" '' "$left"
}

flow_user() {
    local backend expected driver_of_user pause status
    make_user
    "${as_user[@]}" podman import --quiet --change CMD=/bin/bash --change LABEL=keep=1 "$place/base.tar" "$base" >/dev/null
    driver_of_user=$("${as_user[@]}" podman info --format '{{.Store.GraphDriverName}}')
    expected=$(layers "$helper" build --from "$base" -o "oci:$place/from")
    for backend in podman buildah; do
        equal "a user on $driver_of_user, $backend, --from: the layers that root gets" "$expected" \
            "$(layers "${as_user[@]}" "$helper" build --backend "$backend" --from "$base" -o oci:from)"
        equal "the image belongs to the user" "$user" "$(stat -c %u "$place/home/from/index.json")"
        user_has_nothing_left "a user, $backend, --from"
        # Before the process in the user namespace is there, as it comes, and when it is at work.
        for pause in 0.05 0.15 0.3 0.45 0.6 0.7 1; do
            start_job "${as_user[@]}" "$helper" build --backend "$backend" --from "$base" -o oci:killed \
                --compression zstd --compression-level 19
            sleep "$pause"
            kill -TERM "$job"
            status=0
            wait "$job" || status=$?
            equal "a user, $backend: SIGTERM after $pause s" 143 "$status"
            user_has_nothing_left "a user, $backend, SIGTERM after $pause s"
        done
    done
    equal "a directory needs no user namespace" yes \
        "$("${as_user[@]}" env PATH=/nonexistent "$helper" build -q --rootfs "$place/small" -o oci:small >/dev/null && echo yes)"
    "${as_user[@]}" "$helper" build -q --from "$base" --max-layers 4 -o containers-storage:aoh-out >/dev/null
    holds "into the user's storage" "${as_user[@]}" podman image exists localhost/aoh-out:latest
    "${as_user[@]}" "$helper" build -q --rootfs "$place/small" -o containers-storage:aoh-small >/dev/null
    holds "and from a directory" "${as_user[@]}" podman image exists localhost/aoh-small:latest
    fails "mount outside of the user namespace" 'podman unshare' "${as_user[@]}" "$helper" mount "$base"
    holds "mount inside" "${as_user[@]}" podman unshare sh -ec \
        "p=\$('$helper' mount --backend podman '$base'); test -e \"\$p/etc/os-release\"; '$helper' umount \"\$p\""
    user_has_nothing_left "a user, mount and umount"
    "${as_user[@]}" podman system migrate >/dev/null 2>&1 || true
    pkill -u "$user" || true
    : >"$place/subuid"
    : >"$place/subgid"
    fails "a user without subordinate ids" 'subordinate' "${as_user[@]}" "$helper" build --backend podman --from "$base" -o oci:x
    fails "the same with buildah" 'subordinate' "${as_user[@]}" "$helper" build --backend buildah --from "$base" -o oci:x
    "${as_user[@]}" podman system migrate >/dev/null 2>&1 || true
    pkill -u "$user" || true
}

# --- all of it ----------------------------------------------------------------------------------

flows() {
    local flow
    for flow in ${AOH_CONTAINERS_FLOWS:-"$@"}; do
        [[ " $* " = *" $flow "* ]] || continue
        printf '== %s, %s\n' "$driver" "$flow"
        "flow_$flow"
    done
}

inside() {
    current_step=containers
    trap report_failure EXIT
    podman --version
    buildah --version
    mkdir -p "$place/small/usr/bin" "$place/small/etc"
    echo small >"$place/small/usr/bin/small"
    # Not a cgroup v2 that is not alone: crun refuses it (in this namespace only).
    ! mountpoint -q /sys/fs/cgroup/unified || umount -l /sys/fs/cgroup/unified
    target=$place/target
    use_storage overlay
    ensure_podman_runs "$base"
    if [[ -z ${CONTAINERS_CONF:-} ]]; then
        # Newer builds ask for limits, too, where containers alone do not.
        export CONTAINERS_CONF=$target/containers.conf
        write_containers_conf "$CONTAINERS_CONF" limits
    fi
    flows from container odd_images storage build_image run_step image_mount nested signals kills user
    use_storage vfs
    flows from container storage build_image signals
}

if [[ -n ${AOH_CONTAINERS_INSIDE:-} ]]; then
    inside
else
    outside
fi
