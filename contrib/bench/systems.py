#!/usr/bin/env python3
"""Systems for `contrib/bench/updates systems`: what packages of a release depend on, chosen at random, not installed.

  systems.py MIRROR COUNT SEED > systems.json

For each release and each kind (desktop, server, build host, minimal) COUNT times: some packages of that kind, with all
that they depend on, of `main` alone and of `main` with updates and security. MIRROR is the address of a Debian mirror,
which has /debian and /debian-security. A system is {"release", "kind", "old", "new"}, where old and new are lists of sources:
[name, bytes, version, versions of its packages]. Bytes are Installed-Size. Wants python3-apt.
"""

import json
import pathlib
import random
import re
import runpy
import sys
import tempfile

import apt_pkg

RELEASES = {"bookworm": True, "trixie": True, "bullseye": False}  # whether it still has updates
COMMON = """openssh-server curl python3 vim locales network-manager git podman wget rsync less man-db
        linux-image-amd64 sudo htop tmux firmware-linux-free""".split()
SESSIONS = """xfce4 gnome-core lxqt-core plasma-desktop cinnamon-core mate-desktop-environment-core gnome-shell
        sway openbox""".split()
# Some packages of the kind, and how many at least and at most; the same of the common ones.
KINDS = {
    "desktop": (
        """firefox-esr thunderbird libreoffice-writer libreoffice-calc gimp vlc inkscape chromium evolution
        flatpak network-manager cups sddm lightdm gdm3 krita kate okular mpv transmission-gtk
        audacity blender digikam shotwell rhythmbox emacs-gtk vim-gtk3 pidgin hexchat filezilla
        keepassxc obs-studio libreoffice-impress gnumeric evince file-roller qbittorrent wireshark
        virt-manager remmina darktable scribus calibre kdenlive""".split(),
        (2, 10),
        (1, 6),
    ),
    "server": (
        """nginx apache2 postgresql mariadb-server redis-server php php-fpm bind9 samba exim4 dovecot-imapd
        haproxy squid fail2ban rsyslog certbot prometheus grafana memcached rabbitmq-server
        openjdk-17-jre-headless openjdk-21-jre-headless tomcat10 nodejs python3-django ruby-rails
        varnish unbound postfix openvpn strongswan wireguard-tools snmpd munin zabbix-agent puppet
        ansible docker.io podman libvirt-daemon-system qemu-system-x86 nfs-kernel-server
        proftpd-core slapd krb5-kdc chrony dnsmasq""".split(),
        (2, 9),
        (2, 7),
    ),
    "build": (
        """build-essential git cmake golang rustc cargo python3-dev ccache ninja-build gdb clang llvm
        default-jdk-headless maven nodejs npm meson valgrind autoconf automake libtool devscripts
        mercurial subversion ghc ocaml erlang-base php-cli ruby-dev""".split(),
        (3, 10),
        (1, 5),
    ),
    "minimal": ([], (0, 0), (2, 7)),
}


def stanzas(text):
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if "Package" in fields:
            yield fields


class Archive:
    """Packages by name, and by what they provide."""

    def __init__(self):
        self.packages = {}
        self.provided = {}

    def add(self, package):
        known = self.packages.get(package["Package"])
        if known is None or apt_pkg.version_compare(package["Version"], known["Version"]) > 0:
            self.packages[package["Package"]] = package
            for name in filter(str.strip, package.get("Provides", "").split(",")):
                self.provided.setdefault(name.strip().split(" ")[0], package["Package"])

    def closure(self, names):
        """What `names` depend on: of alternatives the first that there is. Names that are not there are left out."""
        found = set()
        left = list(names)
        while left:
            name = left.pop()
            name = name if name in self.packages else self.provided.get(name)
            if name is None or name in found:
                continue
            found.add(name)
            package = self.packages[name]
            for clause in f"{package.get('Depends', '')},{package.get('Pre-Depends', '')}".split(","):
                alternatives = [re.split("[ :(]", word.strip())[0] for word in clause.split("|")]
                if not any(word in found for word in alternatives):
                    left += [word for word in alternatives if word in self.packages or word in self.provided][:1]
        return found

    def sources(self, names):
        sources = {}
        for name in sorted(self.closure(names)):
            package = self.packages[name]
            source, _, version = package.get("Source", name).partition(" ")
            row = sources.setdefault(source, [source, 0, version.strip("()") or package["Version"], []])
            row[1] += 1024 * int(package.get("Installed-Size", "1"))
            row[3].append(f"{name} {package['Version']}")
        return list(sources.values())


def archives(mirror, release, has_updates):
    """`main` alone, and with updates and security."""
    counts = pathlib.Path(__file__).parents[1] / "update-counts"
    lists = runpy.run_path(str(counts))["lists"]
    entries = [f"deb {mirror}/debian {release} main", f"deb {mirror}/debian-security {release}-security main"]
    if has_updates:
        entries.append(f"deb {mirror}/debian {release}-updates main")
    main, new = Archive(), Archive()
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory).chmod(0o755)
        for name, text in lists(entries, pathlib.Path(directory))[0]:
            for package in stanzas(text):
                new.add(package)
                if f"_dists_{release}_main_" in name:
                    main.add(package)
    return main, new


def main():
    apt_pkg.init_system()
    mirror, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chosen = random.Random(seed)
    systems = []
    for release, has_updates in RELEASES.items():
        old, new = archives(mirror, release, has_updates)
        required = [name for name, package in old.packages.items() if package.get("Priority") == "required"]
        important = [name for name, package in old.packages.items() if package.get("Priority") == "important"]
        for kind, (own, some, common) in KINDS.items():
            for _ in range(count):
                names = required + (important if chosen.random() < 0.5 else []) + ["systemd-sysv", "apt"]
                names += [chosen.choice(SESSIONS)] if kind == "desktop" else []
                names += chosen.sample(own, chosen.randint(*some)) + chosen.sample(COMMON, chosen.randint(*common))
                system = {"release": release, "kind": kind, "old": old.sources(names), "new": new.sources(names)}
                systems.append(system)
    json.dump(systems, sys.stdout)


if __name__ == "__main__":
    main()
