# shellcheck shell=bash
# A virtual machine and a registry on loopback, for tests/e2e/boot and tests/e2e/composefs, which
# set where things are and in what phase they are. qemu emulates the processor, which needs no rights
# and no hardware, and is slow.
: "${place:=}" "${disk:=}" "${phase:=}"
# More options for qemu: firmware, a kernel, disks after the first.
machine_options=()

# A boot takes some minutes of an idle machine, and many times that of a busy one.
BOOT_SECONDS=${BOOT_SECONDS:-1800}
machine_pid=
registry_pid=
requests_before=0
boots=0

# Starts the machine and waits until ssh answers. The console is in console-N.log.
#
# The way in is a key that PID 1 gets from the firmware (systemd.system-credentials(7)): the image
# has neither a password nor a key. Time is counted in instructions (-icount): on a busy machine
# the units of the guest would end by their timeouts otherwise.
boot() {
    local start=$SECONDS key=$place/key console
    boots=$((boots + 1))
    console=$place/console-$phase-$boots.log
    [[ -e $key ]] || ssh-keygen -q -t ed25519 -N '' -f "$key"
    ssh_port=$(free_port)
    step "$phase: boot $boots (console: $console)"
    qemu-system-x86_64 -machine q35 -accel tcg,thread=single -icount shift=1 -cpu Nehalem -m 2048 \
        -display none -no-reboot -serial "file:$console" \
        -drive "file=$disk,format=raw,if=virtio,cache=unsafe" -device virtio-rng-pci \
        "${machine_options[@]}" \
        -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$ssh_port-:22" \
        -device virtio-net-pci,netdev=net -smbios "type=11,value=$(credential "$key.pub")" \
        >"$place/qemu.log" 2>&1 &
    machine_pid=$!
    while ! guest true 2>/dev/null; do
        kill -0 "$machine_pid" 2>/dev/null ||
            die "the machine has ended: $(tail -n 5 "$console" "$place/qemu.log")"
        ((SECONDS - start < BOOT_SECONDS)) ||
            die "no ssh after $BOOT_SECONDS s: $(tail -n 20 "$console")"
        sleep 2
    done
    printf 'ok: ssh from outside, after %s s\n' $((SECONDS - start))
}

# Boots the machine unless the phase before has left it running.
ensure_booted() {
    [[ -n $machine_pid ]] || boot
}

credential() {
    printf 'io.systemd.credential.binary:ssh.authorized_keys.root=%s' "$(base64 -w 0 "$1")"
}

# guest COMMAND...: by the shell of the machine's root.
guest() {
    ssh -i "$place/key" -p "$ssh_port" -o ConnectTimeout=60 -o LogLevel=ERROR \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 "$@"
}

shut_down() {
    local start=$SECONDS
    guest systemctl poweroff || true
    while kill -0 "$machine_pid" 2>/dev/null; do
        ((SECONDS - start < BOOT_SECONDS)) || die "the machine does not shut down"
        sleep 1
    done
    machine_pid=
    printf 'ok: shut down, after %s s\n' $((SECONDS - start))
}

stop_machine() {
    [[ -z $machine_pid ]] || kill "$machine_pid" 2>/dev/null || true
}

# A port that nobody listens on now.
free_port() {
    local port
    port=$((20000 + RANDOM % 10000))
    while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    printf '%s' "$port"
}

# push LAYOUT TAG: to a registry that keeps its blobs in `place`; registry.log has each request.
push() {
    step "$phase: pushed as $2"
    start_registry
    skopeo copy --quiet --preserve-digests --dest-tls-verify=false \
        "oci:$1" "docker://127.0.0.1:$registry_port/debian:$2"
}

# From here on requests count.
mark_requests() {
    requests_before=$(wc -l <"$place/registry.log")
}

# only_new_layers_are_fetched FIRST UPDATE: the digests of blobs that were asked for are those that
# the layout FIRST does not have.
only_new_layers_are_fetched() {
    blobs_of "$1" | sort >"$place/blobs.first"
    blobs_of "$2" | sort >"$place/blobs.update"
    comm -13 "$place/blobs.first" "$place/blobs.update" >"$place/blobs.expected"
    tail -n "+$((requests_before + 1))" "$place/registry.log" |
        grep -o '"GET /v2/debian/blobs/sha256:[0-9a-f]*' |
        sed 's/.*sha256://' | sort -u >"$place/blobs.fetched"
    holds "only the layers that changed are fetched" \
        cmp "$place/blobs.expected" "$place/blobs.fetched"
    printf '    %s of %s blobs, %s of %s KB\n' \
        "$(wc -l <"$place/blobs.fetched")" "$(wc -l <"$place/blobs.update")" \
        "$(size_of "$2" "$place/blobs.fetched")" "$(size_of "$2" "$place/blobs.update")"
}

# blobs_of LAYOUT: the digests of its config and layers.
blobs_of() {
    skopeo inspect --raw "oci:$1" | jq -r '.config, .layers[] | .digest' | sed 's/sha256://'
}

# size_of LAYOUT FILE: of the blobs that FILE lists, in KB.
size_of() {
    sed "s|^|$1/blobs/sha256/|" "$2" | xargs stat -c %s |
        awk '{ sum += $1 } END { print int(sum / 1000) }'
}

start_registry() {
    [[ -z $registry_pid ]] || return 0
    registry_port=$(free_port)
    cat >"$place/registry.yml" <<EOF
version: 0.1
storage: {filesystem: {rootdirectory: $place/registry}}
http: {addr: "127.0.0.1:$registry_port"}
EOF
    docker-registry serve "$place/registry.yml" >>"$place/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 100); do
        ! curl -fs "http://127.0.0.1:$registry_port/v2/" >/dev/null || return 0
        sleep 0.1
    done
    die "docker-registry does not start: $(tail -n 3 "$place/registry.log")"
}

stop_registry() {
    [[ -z $registry_pid ]] || kill "$registry_pid" 2>/dev/null || true
}
