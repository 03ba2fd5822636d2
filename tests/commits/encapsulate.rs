//! A commit in a repository becomes an image: the one that `build` makes of the same tree, with
//! rpm-ostree's options, and never of damaged objects.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{
    Image, Rootfs, check_layers, fail, has, helper, is_root, judged, odd, odd_rootfs, read_image,
    run, scratch, stderr, succeed,
};
use serde_json::Value;

pub struct Place {
    pub dir: tempfile::TempDir,
    pub rootfs: Rootfs,
    pub repo: String,
}

/// The odd system, committed as `test`.
pub fn committed(extra: &[&str]) -> Option<Place> {
    if !has("ostree") || !is_root() {
        return None;
    }
    let (dir, rootfs) = odd();
    let repo = dir.path().join("repo").display().to_string();
    succeed(Command::new("ostree").args(["init", "--mode=archive", "--repo", &repo]));
    succeed(Command::new("ostree").args(["config", "--repo", &repo, "set", "core.fsync", "false"]));
    let commit = [
        "commit",
        "-q",
        "--repo",
        &repo,
        "-b",
        "test",
        "--rootfs",
        rootfs.str(),
    ];
    run(&[&commit[..], extra].concat());
    Some(Place { dir, rootfs, repo })
}

impl Place {
    pub fn layout(&self, name: &str) -> (PathBuf, String) {
        let path = self.dir.path().join(name);
        let output = format!("oci:{}", path.display());
        (path, output)
    }

    /// Runs a command that encapsulates `test`; gives the image.
    pub fn encapsulate(&self, command: &[&str], name: &str, extra: &[&str]) -> Image {
        let (path, output) = self.layout(name);
        let arguments = ["-q", "--repo", &self.repo, "test", &output];
        let digest = run(&[command, &arguments, extra].concat());
        let image = read_image(&path);
        assert_eq!(image.digest, digest);
        image
    }
}

pub const COMPOSE: [&str; 2] = ["compose", "container-encapsulate"];

pub fn label<'a>(image: &'a Image, name: &str) -> Option<&'a str> {
    image.config["config"]["Labels"][name].as_str()
}

pub fn diff_ids(image: &Image) -> &Value {
    &image.config["rootfs"]["diff_ids"]
}

#[test]
fn a_commit_gives_the_layers_of_build() {
    let Some(place) = committed(&["--timestamp", "1650000000"]) else {
        return;
    };
    for (version, layers) in [("1", "1"), ("1", "64"), ("2", "1"), ("2", "3"), ("2", "64")] {
        let flags = ["--format-version", version, "--max-layers", layers];
        let (path, output) = place.layout("built");
        let build = ["build", "-q", "--rootfs", place.rootfs.str(), "-o", &output];
        run(&[&build[..], &["--timestamp", "1650000000"], &flags].concat());
        let built = read_image(&path);
        let image = place.encapsulate(&["encapsulate"], "encapsulated", &flags);
        check_layers(&image, true, version.parse().unwrap());
        // A hint is in no commit, so its component's name is not there.
        if layers != "64" {
            assert_eq!(diff_ids(&image), diff_ids(&built), "{flags:?}");
        }
        for name in [
            "ostree.commit",
            "ostree.bootable",
            "ostree.linux",
            "containers.bootc",
        ] {
            assert_eq!(label(&image, name), label(&built, name), "{name}");
        }
        assert_eq!(image.config["created"], built.config["created"]);
        if version == "2" {
            let (_, output) = place.layout("encapsulated");
            judged(&["verify", &output, "--ostree"]);
        }
    }
}

/// Without hints everything is the same, however many layers there are.
#[test]
fn the_plan_is_that_of_build() {
    let Some(place) = committed(&[]) else {
        return;
    };
    let hinted = place.rootfs.at("usr/share/odd/user-attribute");
    rustix::fs::removexattr(hinted, "user.component").unwrap();
    let (path, output) = place.layout("built");
    run(&["build", "-q", "--rootfs", place.rootfs.str(), "-o", &output]);
    let image = place.encapsulate(&["encapsulate"], "encapsulated", &[]);
    let built = read_image(&path);
    assert_eq!(diff_ids(&image), diff_ids(&built));
    assert_eq!(image.manifest["layers"], built.manifest["layers"]);
}

#[test]
fn rpm_ostrees_names_have_its_defaults_and_the_old_one_says_so() {
    let Some(place) = committed(&[]) else {
        return;
    };
    check_layers(&place.encapsulate(&COMPOSE, "compose", &[]), true, 1);
    check_layers(&place.encapsulate(&["encapsulate"], "ours", &[]), true, 2);
    let (_, output) = place.layout("old");
    let old = [
        "container-encapsulate",
        "--repo",
        &place.repo,
        "test",
        &output,
    ];
    let done = helper().args(old).output().unwrap();
    let messages = stderr(&done);
    assert!(done.status.success(), "{messages}");
    assert!(
        messages.contains("deprecated; use 'compose container-encapsulate'"),
        "{messages}"
    );
}

#[test]
fn an_earlier_build_keeps_its_plan_and_is_compared_with() {
    let Some(place) = committed(&[]) else {
        return;
    };
    let first = place.encapsulate(&["encapsulate"], "first", &[]);
    let manifest = place.dir.path().join("manifest.json");
    fs::write(&manifest, first.manifest.to_string()).unwrap();
    place.rootfs.file("usr/bin/foo", vec![5; 5000]).settle();
    run(&[
        "commit",
        "-q",
        "--repo",
        &place.repo,
        "-b",
        "test",
        "--rootfs",
        place.rootfs.str(),
    ]);
    let (path, output) = place.layout("second");
    let (_, old) = place.layout("first");
    let done = helper()
        .args(["encapsulate", "--repo", &place.repo, "test", &output])
        .args(["--previous-build-manifest", manifest.to_str().unwrap()])
        .args(["--compare-with-build", &old])
        .output()
        .unwrap();
    let messages = stderr(&done);
    assert!(done.status.success(), "{messages}");
    let second = read_image(&path);
    let components = |image: &Image| -> Vec<Value> {
        let layers = image.manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|l| l["annotations"]["ostree.components"].clone())
            .collect()
    };
    assert_eq!(components(&first), components(&second));
    let (a, b) = (
        diff_ids(&first).as_array().unwrap(),
        diff_ids(&second).as_array().unwrap(),
    );
    let changed = a.iter().zip(b).filter(|(a, b)| a != b).count();
    assert_eq!(changed, 2, "the commit and the layer of foo");
    let count = format!("Total new layers: {:<5}Size: ", b.len());
    for part in [
        &count,
        "Removed layers:   2    Size: ",
        "Added layers:     2    Size: ",
    ] {
        assert!(messages.contains(part), "no '{part}' in: {messages}");
    }
}

/// Attributes that a commit has are in its objects, whatever we would have left out: `ostree fsck`
/// of an import is the proof.
#[test]
fn a_commit_made_by_others_keeps_all_its_objects() {
    let dir = scratch();
    if !has("ostree") || !is_root() {
        return;
    }
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    fs::rename(rootfs.at("etc"), rootfs.at("usr/etc")).unwrap();
    for top in ["run", "tmp", "sysroot"] {
        fs::remove_dir_all(rootfs.at(top)).unwrap();
    }
    let repo = dir.path().join("repo").display().to_string();
    let ostree = |arguments: &[&str]| {
        succeed(
            Command::new("ostree")
                .arg(format!("--repo={repo}"))
                .args(arguments),
        )
    };
    ostree(&["init", "--mode=bare"]);
    let tree = format!("--tree=dir={}", rootfs.str());
    let wanted = ostree(&["commit", "-b", "test", "-s", "By ostree", &tree]);
    let layout = dir.path().join("image");
    let output = format!("oci:{}", layout.display());
    run(&["encapsulate", "-q", "--repo", &repo, "test", &output]);
    let image = read_image(&layout);
    assert_eq!(label(&image, "ostree.commit"), Some(wanted.as_str()));
    let names = image.manifest["layers"].as_array().unwrap().iter();
    let names = names.map(|l| l["annotations"]["ostree.components"].to_string());
    assert!(
        names
            .clone()
            .any(|n| n.contains("user/hinted%2C with comma")),
        "the hint counts"
    );
    let members = image.layers.iter().flatten();
    assert!(
        members
            .clone()
            .all(|m| !m.xattrs.contains_key("user.component"))
    );

    let other = dir.path().join("other").display().to_string();
    succeed(Command::new("ostree").args(["init", "--mode=bare", "--repo", &other]));
    assert_eq!(
        run(&["import", "-q", "--repo", &other, &output, "-b", "test"]),
        wanted
    );
    succeed(Command::new("ostree").args(["fsck", "-q", "--repo", &other]));
}

/// The object of a kind, chosen by its extension, and its checksum.
fn object(repo: &str, extension: &str) -> (PathBuf, String) {
    let find = ["-name", &format!("*.{extension}"), "-size", "+0"];
    let found = succeed(
        Command::new("find")
            .arg(Path::new(repo).join("objects"))
            .args(find),
    );
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    let path = PathBuf::from(found[0]);
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let prefix = path
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    let checksum = format!("{prefix}{stem}");
    (path, checksum)
}

#[test]
fn damaged_and_missing_objects_are_named_and_no_image_is_written() {
    let Some(place) = committed(&[]) else {
        return;
    };
    let bare = place.dir.path().join("bare").display().to_string();
    succeed(Command::new("ostree").args(["init", "--mode=bare", "--repo", &bare]));
    succeed(Command::new("ostree").args(["pull-local", "--repo", &bare, &place.repo, "test"]));
    for extension in ["commit", "dirtree", "dirmeta", "file"] {
        let (path, checksum) = object(&bare, extension);
        let good = fs::read(&path).unwrap();
        let (image, output) = place.layout("refused");
        let encapsulate = ["encapsulate", "--repo", &bare, "test", &output];
        let refused = |why: &str| {
            let said = fail(1, &encapsulate);
            let named = said.contains(&format!("{checksum}.{extension}"));
            assert!(named && said.contains(why), "{extension}: {said}");
            assert!(!image.exists());
        };
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        // In place: a bare repository keeps owner, mode and attributes with the file.
        fs::write(&path, &bad).unwrap();
        refused("damaged");
        fs::write(&path, &good).unwrap();
        let away = place.dir.path().join("away");
        fs::rename(&path, &away).unwrap();
        refused("is missing");
        fs::rename(&away, &path).unwrap();
        run(&["encapsulate", "-q", "--repo", &bare, "test", &output]);
        fs::remove_dir_all(image).unwrap();
    }
}

#[test]
fn a_commit_without_packages_is_warned_of_and_one_that_no_image_can_hold_refused() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    let repo = dir.path().join("repo").display().to_string();
    succeed(Command::new("ostree").args(["init", "--mode=bare-user", "--repo", &repo]));
    let commit = |branch: &str, path: &str| {
        let rootfs = Rootfs::new(dir.path().join(branch));
        rootfs.file("usr/bin/a", "a").file(path, "b");
        let tree = format!("--tree=dir={}", rootfs.str());
        succeed(Command::new("ostree").args(["commit", "--repo", &repo, "-b", branch, &tree]));
    };
    let output = format!("oci:{}", dir.path().join("out").display());
    commit("plain", "usr/bin/b");
    let done = helper()
        .args(["encapsulate", "--repo", &repo, "plain", &output])
        .output()
        .unwrap();
    assert!(done.status.success() && stderr(&done).contains("layers cannot follow packages"));
    fs::remove_dir_all(dir.path().join("out")).unwrap();
    commit("whiteout", "usr/.wh.gone");
    commit("inner", "sysroot/ostree/repo/config");
    commit("etc", "etc/a");
    for (branch, why) in [
        ("whiteout", "/usr/.wh.gone"),
        ("inner", "/sysroot/ostree"),
        ("none", "it has etc, inner, plain, whiteout"),
    ] {
        let said = fail(1, &["encapsulate", "--repo", &repo, branch, &output]);
        assert!(said.contains(why), "{said}");
        assert!(!dir.path().join("out").exists());
    }
    run(&["encapsulate", "-q", "--repo", &repo, "etc", &output]);
}
