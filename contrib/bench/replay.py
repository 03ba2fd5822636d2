#!/usr/bin/env python3
"""A year of updates of a real system: the versions that two root filesystems have of their packages, replayed.

  replay.py PROGRAM OLD NEW WORK [WEEKS] [OPTION...]

Begins with a copy of OLD. Each week an eighth of the sources that differ, in random order, change to the version that
the other root filesystem has, and an image is built that follows the one of the week before, with the OPTIONs of
`build` (default: --max-waste 10%). Prints what a client of the week before fetches, what the changed packages weigh
whole, layers, and bytes that are of no use, all before compression. Wants root. Shares no code with the program.
Standard library only.
"""

import collections
import json
import os
import random
import shutil
import stat
import subprocess
import sys

import updates

STATUS = "var/lib/dpkg/status"
INFO = "var/lib/dpkg/info"


class System:
    """A root filesystem and what its package database says."""

    def __init__(self, root):
        self.root = root
        self.packages = updates.packages(root)
        self.sources = collections.defaultdict(dict)
        for package, (source, version) in self.packages.items():
            self.sources[source][package] = version
        self.paths = collections.defaultdict(list)
        for path, source in updates.owners(root, self.packages).items():
            if os.path.lexists(os.path.join(root, path)):
                self.paths[source].append(path)
        self.stanzas = {}
        with open(os.path.join(root, STATUS), encoding="utf-8") as file:
            for stanza in file.read().strip().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
                self.stanzas[fields["Package"], fields["Architecture"]] = stanza

    def info_files(self, source):
        names = {f"{name}{suffix}" for name, architecture in self.sources[source] for suffix in ("", ":" + architecture)}
        return [f"{INFO}/{file}" for file in os.listdir(os.path.join(self.root, INFO)) if file.rsplit(".", 1)[0] in names]

    def size(self, source):
        infos = [os.lstat(os.path.join(self.root, path)) for path in self.paths[source]]
        return sum(updates.tar_size(info) for info in infos if not stat.S_ISDIR(info.st_mode))


def copy(old_root, new_root, path):
    """Makes `path` what it is in `old_root`; a directory only where there is none."""
    source, target = os.path.join(old_root, path), os.path.join(new_root, path)
    info = os.lstat(source)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISDIR(info.st_mode):
        if os.path.lexists(target):
            return
        os.mkdir(target)
    else:
        if os.path.lexists(target):
            os.unlink(target)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(source), target)
        else:
            shutil.copyfile(source, target)
    os.lchown(target, info.st_uid, info.st_gid)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def change(tree, source, old, new):
    """Changes one source of `tree` from what `old` has of it to what `new` has."""
    wanted = set(new.paths[source])
    for path in sorted(old.paths[source] + old.info_files(source), reverse=True):
        target = os.path.join(tree, path)
        if path in wanted or not os.path.lexists(target):
            continue
        if os.path.isdir(target) and not os.path.islink(target):
            if not os.listdir(target):
                os.rmdir(target)
        else:
            os.unlink(target)
    for path in sorted(new.paths[source]) + new.info_files(source):
        copy(new.root, tree, path)


def write_status(tree, state):
    stanzas = {}
    for source, system in state.items():
        for package in system.sources.get(source, {}):
            stanzas[package] = system.stanzas[package]
    path = os.path.join(tree, STATUS)
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(stanzas[package] + "\n\n" for package in sorted(stanzas)))


def main():
    program, old_root, new_root, work = sys.argv[1:5]
    weeks = int(sys.argv[5]) if len(sys.argv) > 5 else 52
    options = sys.argv[6:] or ["--max-waste", "10%"]
    old, new = System(old_root), System(new_root)
    sources = sorted(set(old.sources) | set(new.sources))
    changing = [source for source in sources if old.sources.get(source) != new.sources.get(source)]
    state = {source: old for source in sources}
    tree, dice = os.path.join(work, "tree"), random.Random(1)
    os.makedirs(work, exist_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", old_root, tree], check=True)
    order, costs, built = [], [], None
    print(f"{len(changing)} of {len(sources)} sources differ")
    for week in range(weeks + 1):
        changed = []
        while week > 0 and len(changed) < -(-len(changing) // 8):
            if not order:
                order = dice.sample(changing, len(changing))
            changed.append(order.pop())
        for source in changed:
            other = new if state[source] is old else old
            change(tree, source, state[source], other)
            state[source] = other
        write_status(tree, state)
        image, before = (os.path.join(work, f"week-{n}") for n in (week, week - 1))
        shutil.rmtree(image, ignore_errors=True)
        command = [program, "build", "-q", "--json", "--rootfs", tree, "-o", f"oci:{image}"]
        command += ["--timestamp", str(1700000000 + week * 7 * 86400)]
        if week > 0:
            command += ["--previous", f"oci:{before}", *options]
        previous, built = built, json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        layers = {layer["digest"]: layer["uncompressed_size"] for layer in built["layers"]}
        size = sum(layers.values())
        dead = sum(layer["dead_size"] for layer in built["layers"])
        told = f"{len(layers):3} layers, {size / 1e6:6.0f} MB, {100 * dead / size:5.2f} % of no use"
        if week > 0:
            shutil.rmtree(before)
            known = {layer["digest"] for layer in previous["layers"]}
            fetched = sum(bytes_ for digest, bytes_ in layers.items() if digest not in known)
            whole = sum(state[source].size(source) for source in changed)
            costs.append((fetched, whole))
            told += f", fetched {fetched / 1e6:6.1f} MB, whole packages {whole / 1e6:6.1f} MB"
        print(f"week {week:2}: {told}", flush=True)
    quarter = max(1, len(costs) // 4)
    for name, part in (("all weeks", costs), ("first quarter", costs[:quarter]), ("last quarter", costs[-quarter:])):
        fetched, whole = (sum(pair[which] for pair in part) / len(part) for which in (0, 1))
        print(f"{name}: fetched {fetched / 1e6:.1f} MB a week, whole packages {whole / 1e6:.1f} MB: {fetched / whole:.3f}")


if __name__ == "__main__":
    main()
