#!/usr/bin/env python3
"""A year of updates of a real system: the versions that two root filesystems have of their packages, replayed.

Begins with a copy of OLD. Each week an eighth of the sources that differ, in random order, change to the version that
the other root filesystem has, and an image is built that follows the one of the week before. Prints what a client of
the week before fetches, what the changed packages weigh whole, layers, and bytes that are of no use, all before
compression. Wants root. Shares no code with the program. Standard library only.
"""

import argparse
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

    def size(self, source, pruned):
        paths = [path for path in self.paths[source] if not path.startswith(pruned)]
        infos = [os.lstat(os.path.join(self.root, path)) for path in paths]
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("work", help="a directory for the copy and the images")
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--max-waste", default="10%", metavar="PERCENT", help="none: --previous alone")
    parser.add_argument("--prune", action="append", default=[], metavar="PATH", help="what the images leave out")
    return parser.parse_args()


def main():
    given = arguments()
    program, work, weeks = given.program, given.work, given.weeks
    pruned = tuple(path.strip("/") + "/" for path in given.prune)
    old, new = System(given.old), System(given.new)
    sources = sorted(set(old.sources) | set(new.sources))
    changing = [source for source in sources if old.sources.get(source) != new.sources.get(source)]
    state = {source: old for source in sources}
    tree, dice = os.path.join(work, "tree"), random.Random(1)
    os.makedirs(work, exist_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", given.old, tree], check=True)
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
        command += [f"--prune={path}" for path in given.prune]
        if week > 0:
            command += ["--previous", f"oci:{before}"]
            command += ["--max-waste", given.max_waste] if given.max_waste != "none" else []
        previous, built = built, json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        layers = {layer["digest"]: layer["uncompressed_size"] for layer in built["layers"]}
        size = sum(layers.values())
        dead = sum(layer["dead_size"] for layer in built["layers"])
        told = f"{len(layers):3} layers, {size / 1e6:6.0f} MB, {100 * dead / size:5.2f} % of no use"
        if week > 0:
            shutil.rmtree(before)
            known = {layer["digest"] for layer in previous["layers"]}
            fetched = sum(bytes_ for digest, bytes_ in layers.items() if digest not in known)
            whole = sum(state[source].size(source, pruned) for source in changed)
            # What the package database says of them changes as well.
            database = [STATUS] + [path for source in changed for path in state[source].info_files(source)]
            whole += sum(updates.tar_size(os.lstat(os.path.join(tree, path))) for path in database)
            costs.append((fetched, whole))
            told += f", fetched {fetched / 1e6:6.1f} MB, whole packages {whole / 1e6:6.1f} MB"
        print(f"week {week:2}: {told}", flush=True)
    quarter = max(1, len(costs) // 4)
    for name, part in (("all weeks", costs), ("first quarter", costs[:quarter]), ("last quarter", costs[-quarter:])):
        fetched, whole = (sum(pair[which] for pair in part) / len(part) for which in (0, 1))
        print(f"{name}: fetched {fetched / 1e6:.1f} MB a week, whole packages {whole / 1e6:.1f} MB: {fetched / whole:.3f}")


if __name__ == "__main__":
    main()
