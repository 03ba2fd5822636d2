//! What the steps of a build cost, each by itself, on made-up systems: `cargo bench --bench micro`.
//! `contrib/bench/build` measures whole builds of a real Debian.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use apt_ostree_helper::component::{Ownership, TreeFiles};
use apt_ostree_helper::dpkg::Database;
use apt_ostree_helper::image::{
    self, CommitOptions, Compression, Format, FormatVersion, ImageOptions, LayerOptions,
    RootfsOptions,
};
use apt_ostree_helper::plan::{Item, Plan, PlannedLayer, plan};
use apt_ostree_helper::progress::Silent;
use apt_ostree_helper::tree::{self, Contents, Filter, Tree};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

const PACKAGES: usize = 200;
const FILES_OF_A_PACKAGE: usize = 100;
const MEBIBYTES: usize = 32;

/// The same numbers in each run (the constants are those of Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// A system on disk, until the program ends.
struct System {
    directory: tempfile::TempDir,
    tree: Tree,
    contents: Box<dyn Contents + Send>,
}

impl System {
    fn scanned(directory: tempfile::TempDir) -> Self {
        let (tree, contents) = scan(&directory);
        Self {
            directory,
            tree,
            contents: Box::new(contents),
        }
    }
}

fn scan(directory: &tempfile::TempDir) -> (Tree, impl Contents + Send + use<>) {
    let path = directory.path().to_str().unwrap().into();
    tree::scan(path, &Filter::default(), NonZeroUsize::MIN).unwrap()
}

/// Many small files that packages own.
static PACKAGED: LazyLock<System> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let info = directory.path().join("var/lib/dpkg/info");
    fs::create_dir_all(&info).unwrap();
    let mut status = String::new();
    for package in 0..PACKAGES {
        let below = format!("usr/share/package{package}");
        fs::create_dir_all(directory.path().join(&below)).unwrap();
        let mut list = format!("/.\n/usr\n/usr/share\n/{below}\n");
        for file in 0..FILES_OF_A_PACKAGE {
            let path = format!("{below}/file{file}");
            fs::write(directory.path().join(&path), &path).unwrap();
            list += &format!("/{path}\n");
        }
        fs::write(info.join(format!("package{package}.list")), list).unwrap();
        status += &format!("Package: package{package}\nStatus: install ok installed\n");
        status += "Version: 1.0-1\nArchitecture: amd64\n\n";
    }
    fs::write(directory.path().join("var/lib/dpkg/status"), status).unwrap();
    System::scanned(directory)
});

/// Some large files of words, which compress as text does.
static TEXT: LazyLock<System> = LazyLock::new(|| {
    let mut numbers = Numbers(1);
    let mut word = |_| {
        let letters = 2 + numbers.next(8);
        let letters = (0..letters).map(|_| char::from(b'a' + numbers.next(26) as u8));
        letters.chain([' ']).collect()
    };
    let words: Vec<String> = (0..4096).map(&mut word).collect();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("usr")).unwrap();
    for file in 0..MEBIBYTES {
        let mut text = String::new();
        while text.len() < 1 << 20 {
            // Some words are more common than others.
            let common = 1 + numbers.next(words.len());
            text += &words[numbers.next(common)];
        }
        text.truncate(1 << 20);
        fs::write(directory.path().join(format!("usr/{file}")), text).unwrap();
    }
    System::scanned(directory)
});

/// Reading a tree: entries in a second, on one thread.
#[divan::bench(sample_count = 10)]
fn scanning(bencher: Bencher) {
    let system = &*PACKAGED;
    bencher
        .counter(ItemsCount::new(system.tree.len()))
        .bench(|| scan(&system.directory));
}

/// Finding out who owns what: entries in a second.
#[divan::bench(sample_count = 10)]
fn finding_owners(bencher: Bencher) {
    let system = &*PACKAGED;
    let files = TreeFiles {
        tree: &system.tree,
        contents: system.contents.as_ref(),
    };
    bencher
        .counter(ItemsCount::new(system.tree.len()))
        .bench(|| {
            let database = Database::load(&files, None).unwrap();
            Ownership::of_tree(&system.tree, database.as_ref(), &files, None).unwrap()
        });
}

/// Components as systems have them: most are small and seldom change.
fn components(count: usize) -> Vec<Item> {
    let mut numbers = Numbers(2);
    let item = |at| Item {
        name: format!("component{at}"),
        size: (1 << (10 + numbers.next(14))) + numbers.next(1000) as u64,
        chance: [0.001, 0.01, 0.03, 0.1, 0.4][numbers.next(5)],
        cause: None,
    };
    (0..count).map(item).collect()
}

fn planned(items: &[Item], previous: Option<&[Vec<String>]>) -> Plan {
    plan(items, NonZeroUsize::new(64).unwrap(), previous)
}

/// Putting components into 64 layers.
#[divan::bench(args = [500, 5000], sample_count = 10)]
fn planning(bencher: Bencher, count: usize) {
    let items = components(count);
    bencher.bench(|| planned(black_box(&items), None));
}

/// The same by the plan of an earlier image.
#[divan::bench(args = [500, 5000], sample_count = 10)]
fn planning_again(bencher: Bencher, count: usize) {
    let mut items = components(count);
    let plan = planned(&items, None);
    let names = |layer: &PlannedLayer| {
        let names = layer.items.iter().map(|at| items[*at].name.clone());
        names.collect()
    };
    let previous: Vec<Vec<String>> = plan.layers.iter().map(names).collect();
    for item in items.iter_mut().step_by(10) {
        item.size += item.size / 5;
    }
    bencher.bench(|| planned(black_box(&items), Some(&previous)));
}

/// Writing an image: bytes of files in a second, with all processors.
#[divan::bench(
    args = ["plain, none", "ostree, none", "ostree, gzip", "ostree, zstd"],
    sample_count = 5,
)]
fn building(bencher: Bencher, image: &str) {
    let (format, compression) = image.split_once(", ").unwrap();
    let format = match format {
        "plain" => Format::Plain,
        _ => Format::Ostree(FormatVersion::V2),
    };
    let rootfs = RootfsOptions::new(TEXT.directory.path().to_str().unwrap());
    bencher
        .counter(BytesCount::new(MEBIBYTES << 20))
        .with_inputs(|| tempfile::tempdir().unwrap())
        .bench_values(|out| {
            let destination = format!("oci:{}/image", out.path().display());
            let layers = LayerOptions::new(format);
            let mut options = ImageOptions::new(destination.parse().unwrap(), layers);
            options.compression = Compression::from_name(compression, None).unwrap();
            let commit = CommitOptions::default();
            image::build(&rootfs, &commit, options, &|_| Ok(()), &Silent).unwrap();
            out
        });
}
