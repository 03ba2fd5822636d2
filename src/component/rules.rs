//! Rules for what dpkg does not own: each names what it claims and says why it is a component of
//! its own, or whose it is.

use camino::Utf8Path;

use super::unpackaged::unpackaged_tree;
use super::{Claim, Claimed, Component};
use crate::dpkg::{self, Database, Package};
use crate::tree::{EntryId, Kind, Tree};

/// A file of this size or more that nobody else claims is a component of its own, in bytes.
const BIG_FILE: u64 = 4 << 20;

/// What a package run writes whatever it installs: never beside content that is stable.
const STATE: [&str; 11] = [
    "etc/.pwd.lock",
    "usr/lib/sysimage",
    "var/cache/apt",
    "var/cache/ldconfig",
    "var/cache/man",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/lib/pam",
    "var/lib/systemd/deb-systemd-helper-enabled",
    "var/lib/systemd/deb-systemd-user-helper-enabled",
    "var/lib/ucf",
];

/// Larger than all other state, and unchanged where no package with questions is. In its place, and
/// where `finalize` moves it.
const DEBCONF: [&str; 2] = ["var/cache/debconf", "usr/lib/sysimage/debconf"];

/// What tells one machine, or one build, from another, besides the keys of its ssh server: the
/// certificate is the one that the package ssl-cert makes. Apart from the package database, which
/// an image that is built again of the same packages has unchanged.
const MACHINE: [&str; 10] = [
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/log",
];

/// Caches made from what is installed, by the component that they make up.
const GENERATED: [(&str, &str, f64); 9] = [
    ("etc/ld.so.cache", "generated/ld.so.cache", 0.7),
    ("etc/udev/hwdb.bin", "generated/hwdb", 0.1),
    ("usr/lib/udev/hwdb.bin", "generated/hwdb", 0.1),
    ("usr/lib/locale/locale-archive", "generated/locales", 0.1),
    ("usr/share/mime", "generated/mime", 0.2),
    ("usr/share/icons", "generated/icons", 0.2),
    ("usr/share/glib-2.0/schemas", "generated/schemas", 0.2),
    ("var/cache/fontconfig", "generated/fonts", 0.2),
    ("var/lib/systemd/catalog", "generated/catalog", 0.2),
];

/// An initramfs holds the kernel's modules and much of the base system: it changes with the kernel,
/// and in one update of four of all others.
const INITRAMFS_CHANCE: f64 = 0.7;
const STATE_CHANCE: f64 = 1.0;
const BY_HAND_CHANCE: f64 = 0.2;
const BIG_FILE_CHANCE: f64 = 0.3;
const REST_CHANCE: f64 = 0.7;

/// What the rules look at.
pub struct View<'a> {
    tree: &'a Tree,
    owned: &'a [Option<u32>],
    packages: &'a [Package],
    /// The database's own directory, without a leading slash.
    admin_dir: Option<&'a str>,
}

impl<'a> View<'a> {
    /// Rules over `tree`, whose packages own the entries in `owned`.
    pub fn new(tree: &'a Tree, database: Option<&'a Database>, owned: &'a [Option<u32>]) -> Self {
        let packages = database.map_or(&[][..], |database| &database.packages);
        Self {
            tree,
            owned,
            packages,
            admin_dir: database.map(|database| database.admin_dir().trim_matches('/')),
        }
    }

    /// Who owns `id`, hints aside.
    pub fn claim(&self, id: EntryId) -> Claimed {
        let path = self.tree.path(id);
        if let Some(claimed) = self.factory(id, &path) {
            return claimed;
        }
        if let Some(owner) = self.package_record(&path) {
            return Claimed { owner, made: true };
        }
        if let Some(owner) = self.package(id) {
            return Claimed { owner, made: false };
        }
        if let Some(owner) = self.state(&path) {
            return Claimed { owner, made: true };
        }
        if let Some(owner) = self.generated(id, &path).or_else(|| self.link(id)) {
            return Claimed { owner, made: true };
        }
        let unpackaged = match self.tree.entry(id).kind {
            Kind::Directory => None,
            _ => unpackaged_tree(&path),
        };
        if let Some(name) = unpackaged {
            return Claimed {
                owner: own(name, BY_HAND_CHANCE),
                made: false,
            };
        }
        let owner = match self.tree.entry(id).size {
            BIG_FILE.. => own(format!("big/{path}"), BIG_FILE_CHANCE),
            _ => own("rest/files", REST_CHANCE),
        };
        // Configuration and state that nobody unpacked was written by whatever was installed last.
        let made = path.starts_with("etc") || path.starts_with("var");
        Claimed { owner, made }
    }

    /// What `finalize` has moved from `/var` below `/usr/share/factory` belongs to whoever has the
    /// directory that it was in, where that is one of theirs.
    fn factory(&self, id: EntryId, path: &Utf8Path) -> Option<Claimed> {
        let place = path.strip_prefix("usr/share/factory").ok()?;
        if !place.starts_with("var") || self.package(id).is_some() {
            return None;
        }
        let owner = self.state(place).or_else(|| {
            place.ancestors().skip(1).find_map(|above| {
                // /var/lib and its like are everybody's.
                let is_own = above.components().count() > 2;
                self.package(self.tree.locate(above.as_str()).filter(|_| is_own)?)
            })
        });
        let owner = owner.unwrap_or_else(|| own("state/factory", BY_HAND_CHANCE));
        Some(Claimed { owner, made: true })
    }

    /// What dpkg keeps of one package, `info/PACKAGE.SUFFIX` or `info/PACKAGE:ARCH.SUFFIX`
    /// (dpkg(1)), changes with it.
    fn package_record(&self, path: &Utf8Path) -> Option<Claim> {
        let file = path.strip_prefix(self.admin_dir?).ok()?;
        let (stem, _) = file.as_str().strip_prefix("info/")?.rsplit_once('.')?;
        let name = stem.split_once(':').map_or(stem, |(name, _)| name);
        self.named(name).map(Claim::Package)
    }

    fn state(&self, path: &Utf8Path) -> Option<Claim> {
        if DEBCONF.iter().any(|state| path.starts_with(state)) {
            return Some(own("state/debconf", STATE_CHANCE));
        }
        let mut known = STATE.iter().copied().chain(self.admin_dir);
        if known.any(|state| path.starts_with(state)) {
            return Some(own("state/packages", STATE_CHANCE));
        }
        let of_machine = MACHINE.iter().any(|state| path.starts_with(state))
            || path.as_str().starts_with("etc/ssh/ssh_host_");
        of_machine.then(|| own("state/machine", STATE_CHANCE))
    }

    fn package(&self, id: EntryId) -> Option<Claim> {
        self.owned[id.index()].map(Claim::Package)
    }

    fn generated(&self, id: EntryId, path: &Utf8Path) -> Option<Claim> {
        self.initramfs(path)
            .or_else(|| self.boot(path))
            .or_else(|| self.depmod(path))
            .or_else(|| self.byte_code(id))
            .or_else(|| self.certificates(path))
            .or_else(|| {
                let (_, name, chance) = GENERATED.iter().find(|(at, ..)| path.starts_with(at))?;
                Some(own(*name, *chance))
            })
    }

    /// `/boot/initrd.img-KVER` (initramfs-tools(7)), `/usr/lib/modules/KVER/initramfs.img`
    /// (OSTree), and what `finalize` records of that beside it.
    fn initramfs(&self, path: &Utf8Path) -> Option<Claim> {
        let text = path.as_str();
        let version = text.strip_prefix("boot/initrd.img-").or_else(|| {
            let below = text.strip_prefix("usr/lib/modules/")?;
            below
                .strip_suffix("/initramfs.img")
                .or_else(|| below.strip_suffix("/initramfs.sources"))
        })?;
        let version = version.replace(',', "%2C");
        if version.contains('/') {
            return None;
        }
        let kernel = self.kernel(&version);
        let kernel = kernel.map(|at| &self.packages[at as usize]);
        Some(Claim::Own(Component {
            cause: kernel.map(|kernel| dpkg::update_of(kernel.source()).to_owned()),
            name: format!("initramfs/{version}"),
            chance: INITRAMFS_CHANCE,
            interval: None,
        }))
    }

    /// `/boot/vmlinuz-KVER` and its companions belong to the kernel also where its scripts copy
    /// them there.
    fn boot(&self, path: &Utf8Path) -> Option<Claim> {
        let file = path.as_str().strip_prefix("boot/")?;
        let version = ["vmlinuz-", "config-", "System.map-"]
            .iter()
            .find_map(|prefix| file.strip_prefix(prefix))?;
        self.kernel(version).map(Claim::Package)
    }

    fn kernel(&self, version: &str) -> Option<u32> {
        let name = format!("linux-image-{version}");
        self.named(&name)
    }

    /// The first package of that name; they are sorted by it.
    fn named(&self, name: &str) -> Option<u32> {
        let at = self
            .packages
            .partition_point(|package| package.name() < name);
        let package = self.packages.get(at)?;
        (package.name() == name).then_some(at as u32)
    }

    /// What depmod(8) writes about a kernel's modules belongs to that kernel.
    fn depmod(&self, path: &Utf8Path) -> Option<Claim> {
        let below = path.strip_prefix("usr/lib/modules").ok()?;
        let mut parts = below.components();
        let version = parts.next()?.as_str();
        let file = parts.next()?.as_str();
        let is_index = file.starts_with("modules.") && parts.next().is_none();
        let owner = self.kernel(version).map(Claim::Package).or_else(|| {
            let directory = self
                .tree
                .locate(&format!("usr/lib/modules/{version}/kernel"))?;
            self.package(directory)
        });
        owner.filter(|_| is_index)
    }

    /// `__pycache__/NAME.cpython-XY.pyc` belongs to whoever owns `NAME.py` (PEP 3147).
    fn byte_code(&self, id: EntryId) -> Option<Claim> {
        let stem = self.tree.name(id).strip_suffix(".pyc")?;
        let cache = self.tree.entry(id).parent;
        if self.tree.name(cache) != "__pycache__" {
            return None;
        }
        let module = stem.split('.').next()?;
        let directory = self.tree.entry(cache).parent;
        let source = self.tree.child(directory, &format!("{module}.py"))?;
        self.package(self.tree.follow(source)?)
    }

    /// Made by update-ca-certificates(8).
    fn certificates(&self, path: &Utf8Path) -> Option<Claim> {
        let package = self.named("ca-certificates")?;
        path.starts_with("etc/ssl/certs")
            .then_some(Claim::Package(package))
    }

    /// A link belongs to the owner of what it leads to: alternatives, library sonames, enabled
    /// units.
    fn link(&self, id: EntryId) -> Option<Claim> {
        if self.tree.entry(id).kind != Kind::Symlink {
            return None;
        }
        let target = self.tree.follow(id)?;
        self.package(target)
            .filter(|_| !self.tree.entry(target).is_dir())
    }
}

/// A component of its own; commas, which separate names, are written as `%2C`.
fn own(name: impl Into<String>, chance: f64) -> Claim {
    Claim::Own(Component {
        name: name.into().replace(',', "%2C"),
        chance,
        cause: None,
        interval: None,
    })
}
