#!/usr/bin/env python3
"""What `contrib/bench/updates` computes: floors of a pair of root filesystems, and what was fetched.

Shares no code with the program that it judges. Standard library only.

  updates.py floors OLD NEW [PRUNED...]   what no client can do without, in bytes of tar
  updates.py fetched OLD.json NEW.json    share of NEW that a client of OLD fetches, of two `build --json`
"""

import collections
import json
import os
import stat
import sys

BLOCK = 512
EMPTIED = ("dev", "proc", "sys", "run", "tmp", "sysroot")


def entries(root, pruned):
    """Paths of everything that an image of `root` has, with their lstat."""
    left_out = {path.strip("/") for path in pruned}
    found = {}
    for directory, names, files in os.walk(root):
        below = os.path.relpath(directory, root)
        below = "" if below == "." else below + "/"
        for name in names + files:
            path = below + name
            if path not in left_out:
                found[path] = os.lstat(os.path.join(root, path))
        gone = EMPTIED if not below else ()
        names[:] = [
            name
            for name in names
            if name not in gone and below + name not in left_out and not os.path.islink(os.path.join(directory, name))
        ]
    return found


def tar_size(info):
    content = info.st_size if stat.S_ISREG(info.st_mode) else 0
    return BLOCK + -(-content // BLOCK) * BLOCK


def differs(old_root, new_root, path, old, new):
    """Whether a client must be told of `path`: times aside, which OSTree has not."""
    if (old.st_mode, old.st_uid, old.st_gid) != (new.st_mode, new.st_uid, new.st_gid):
        return True
    if stat.S_ISLNK(new.st_mode):
        return os.readlink(os.path.join(old_root, path)) != os.readlink(os.path.join(new_root, path))
    if not stat.S_ISREG(new.st_mode):
        return False
    if old.st_size != new.st_size:
        return True
    with open(os.path.join(old_root, path), "rb") as one, open(os.path.join(new_root, path), "rb") as other:
        while True:
            block = one.read(1 << 20)
            if block != other.read(1 << 20):
                return True
            if not block:
                return False


def packages(root):
    """Installed packages: (name, architecture) -> (source, version)."""
    found = {}
    with open(os.path.join(root, "var/lib/dpkg/status"), encoding="utf-8") as file:
        for stanza in file.read().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
            if fields.get("Status", "").split()[2:] in ([], ["config-files"], ["not-installed"]):
                continue
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            found[fields["Package"], fields["Architecture"]] = (source, fields["Version"])
    return found


def owners(root, installed):
    """Path -> source, through the links of a merged /usr."""
    found = {}
    real = {}
    info = os.path.join(root, "var/lib/dpkg/info")
    for (name, architecture), (source, _) in installed.items():
        for stem in (f"{name}:{architecture}", name):
            path = os.path.join(info, stem + ".list")
            if os.path.exists(path):
                break
        else:
            continue
        with open(path, encoding="utf-8") as file:
            for line in file.read().splitlines():
                directory, base = os.path.split(line.strip("/"))
                if directory not in real:
                    # Absolute links inside the root lead elsewhere; those of a merged /usr are relative.
                    real[directory] = os.path.relpath(os.path.realpath(os.path.join(root, directory)), root)
                found[os.path.normpath(os.path.join(real[directory], base))] = source
    return found


def floors(old_root, new_root, *pruned):
    old, new = entries(old_root, pruned), entries(new_root, pruned)
    old_packages, new_packages = packages(old_root), packages(new_root)
    changed = {key for key, value in new_packages.items() if old_packages.get(key) != value}
    sources = {new_packages[key][0] for key in changed}
    sources |= {source for key, (source, _) in old_packages.items() if key not in new_packages}
    owner = owners(new_root, new_packages)
    inodes = set()
    total = files = whole = 0
    unowned = collections.Counter()
    for path, info in new.items():
        if stat.S_ISDIR(info.st_mode) or not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
            continue
        inode = (info.st_dev, info.st_ino)
        size = BLOCK if inode in inodes else tar_size(info)
        inodes.add(inode)
        total += size
        is_new = path not in old or differs(old_root, new_root, path, old[path], info)
        files += size if is_new else 0
        source = owner.get(path)
        if source in sources:
            whole += size
        elif source is None and is_new:
            whole += size
            unowned["/".join(path.split("/")[:4])] += size
    return {
        "total": total,
        "files": files,
        "packages": whole,
        "installed": len(new_packages),
        "changed packages": len(changed),
        "changed sources": sorted(sources),
        "changed and unowned": dict(unowned.most_common(6)),
    }


def fetched(old_file, new_file):
    def layers(name):
        with open(name, encoding="utf-8") as file:
            return {layer["diff_id"]: layer["uncompressed_size"] for layer in json.load(file)["layers"]}

    old, new = layers(old_file), layers(new_file)
    return sum(size for layer, size in new.items() if layer not in old), sum(new.values())


if __name__ == "__main__":
    if sys.argv[1] == "floors":
        found = floors(*sys.argv[2:])
        share = {name: f"{100 * found[name] / found['total']:.2f} %" for name in ("files", "packages")}
        print(f"{found['changed packages']} of {found['installed']} packages changed: {' '.join(found['changed sources'])}")
        print(f"only what changed {share['files']}, whole packages {share['packages']} of {found['total'] / 1e6:.0f} MB")
        for path, size in found["changed and unowned"].items():
            print(f"  nobody's, changed: {size / 1e6:6.2f} MB {path}")
    else:
        bytes_fetched, bytes_in_all = fetched(*sys.argv[2:])
        print(f"{bytes_fetched / 1e6:.1f} of {bytes_in_all / 1e6:.0f} MB {100 * bytes_fetched / bytes_in_all:6.2f} %")
