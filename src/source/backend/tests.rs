//! How calls are filled in, and how answers are read.
#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn calls_are_filled_in() {
    let backend = |kind| Backend::new(kind, Duration::from_secs(1));
    let call = backend(Kind::Podman).create("c1", "img").unwrap().name();
    assert!(
        call.contains("--name=c1") && call.ends_with("img apt-ostree-helper"),
        "{call}"
    );
    let call = backend(Kind::Buildah).mount("c1").name();
    assert_eq!(call, "buildah mount c1");
}

/// `--build-arg 'FMT={name}: {version} in {file}'` once became a label with a temporary file's
/// path, and `--target '{name}'` built another stage.
#[test]
fn what_is_filled_in_is_not_a_template() {
    let backend = Backend::new(Kind::Podman, Duration::from_secs(1));
    let values = Substitutions {
        image: "{name}{file}",
        name: "{image}",
        file: "/f",
    };
    let call = backend.call(backend.kind.description().create, values);
    assert!(call.name().contains("--name={image}"), "{}", call.name());
    assert!(call.name().contains(" {name}{file} "), "{}", call.name());
}

/// `--from=--help` was once an option of podman's.
#[test]
fn what_names_something_is_no_option() {
    for kind in Kind::ALL {
        let backend = Backend::new(kind, Duration::from_secs(1));
        let error = backend.inspect_image("--help").unwrap_err().to_string();
        assert!(error.contains("'--help' is not a name"), "{error}");
        let error = backend.mount("-a").run().unwrap_err().to_string();
        assert!(error.contains("'-a' is not a name"), "{error}");
        let error = backend.pull("--all-tags").unwrap_err().to_string();
        assert!(error.contains("'--all-tags' is not a name"), "{error}");
    }
}

#[test]
fn other_lines_come_before_the_answer() {
    assert_eq!(last_line("a\n\n b \n\n"), "b");
    assert_eq!(last_line(""), "");
}
