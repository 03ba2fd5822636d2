//! Examples for every command, and headings for their options, added to the definition of the
//! command line: so help, manual pages and completions have them alike. Tests hold that every
//! example is understood, and every command has some.

use clap::Command;

/// The examples of each command: what they do, and the words after the program's name.
pub const EXAMPLES: [(&str, &[(&str, &str)]); 18] = [
    (
        "build",
        &[
            (
                "Split a root filesystem into layers",
                "build --rootfs DIR -o oci:out:latest",
            ),
            (
                "Follow the last image, so that an update stays small",
                "build --from my-os --previous oci:out:latest -o oci:out:latest",
            ),
            (
                "Make an ordinary image for podman",
                "build --rootfs DIR --format plain -o containers-storage:my-os",
            ),
        ],
    ),
    (
        "commit",
        &[
            (
                "Commit a root filesystem to a branch",
                "commit --repo repo -b debian/13 --rootfs DIR",
            ),
            (
                "Sign the commit",
                "commit --repo repo -b debian/13 --rootfs DIR --sign-commit ed25519=secret.key",
            ),
        ],
    ),
    (
        "encapsulate",
        &[
            (
                "Make an image of a branch",
                "encapsulate --repo repo debian/13 oci:out:latest",
            ),
            (
                "With at most 32 layers",
                "encapsulate --repo repo --max-layers 32 debian/13 oci:out",
            ),
        ],
    ),
    (
        "import",
        &[
            (
                "Store an image as a commit",
                "import --repo repo -b debian/13 oci:out:latest",
            ),
            (
                "Take only what is signed with a key",
                "import --repo repo -b debian/13 --sign-verify ed25519=public.key docker://registry.example/os",
            ),
        ],
    ),
    (
        "plan",
        &[
            (
                "Show the layers that a build would make",
                "plan --rootfs DIR",
            ),
            (
                "Say why a file is in its layer",
                "plan --rootfs DIR --explain /usr/bin/perl",
            ),
            (
                "Learn how often components change",
                "plan --learn oci:out:march oci:out:april oci:out:may",
            ),
        ],
    ),
    (
        "inspect",
        &[
            (
                "Show layers and packages",
                "inspect oci:out:latest --packages",
            ),
            (
                "Write a page that shows what is large",
                "inspect oci:out:latest --html image.html",
            ),
            (
                "Write a bill of materials",
                "inspect oci:out:latest --sbom spdx image.spdx.json",
            ),
            (
                "Ask which layer has a path",
                "inspect oci:out:latest --path /usr/bin/perl",
            ),
        ],
    ),
    (
        "diff",
        &[
            ("Say what an update costs", "diff oci:old oci:new"),
            (
                "Write release notes",
                "diff oci:old oci:new --changelog --markdown",
            ),
            (
                "Write a page that shows the update",
                "diff oci:old oci:new --html update.html",
            ),
        ],
    ),
    (
        "push",
        &[
            (
                "Send a layout to a registry",
                "push oci:out docker://registry.example/os:13",
            ),
            (
                "Send an index with all its images",
                "push --all oci:out docker://registry.example/os:13",
            ),
        ],
    ),
    (
        "pull",
        &[
            (
                "Fetch an image to a layout",
                "pull docker://registry.example/os:13 oci:out",
            ),
            (
                "Fetch it for another machine",
                "pull --arch arm64 docker://registry.example/os:13 oci:out",
            ),
        ],
    ),
    (
        "index",
        &[
            (
                "Make one image of two, in a registry",
                "index -o docker://registry.example/os:13 oci:from-amd64 oci:from-arm64",
            ),
            (
                "Of what is in a registry and in an archive, in a layout",
                "index -o oci:all:13 docker://registry.example/os:amd64 from-arm64.tar",
            ),
        ],
    ),
    (
        "finalize",
        &[
            ("Say what would be changed", "finalize --dry-run DIR"),
            (
                "In a build step, on the system itself",
                "finalize --bootable",
            ),
        ],
    ),
    (
        "lint",
        &[
            ("Say what is wrong with a root filesystem", "lint DIR"),
            (
                "Fail a build step on a warning, too",
                "lint --fatal-warnings --skip podman",
            ),
        ],
    ),
    (
        "seal",
        &[
            (
                "Say which files a machine would boot",
                "seal --dry-run oci:out",
            ),
            (
                "Seal an image in its place, signed for Secure Boot",
                "seal oci:out --secureboot-key db.key --secureboot-certificate db.crt",
            ),
        ],
    ),
    (
        "mount",
        &[
            ("Mount an image, and print where", "mount my-os"),
            ("By one of the programs", "mount --backend podman my-os"),
        ],
    ),
    (
        "umount",
        &[
            ("Unmount what 'mount' has mounted", "umount DIR"),
            (
                "Remove what killed processes have left",
                "umount --leftovers",
            ),
        ],
    ),
    (
        "schema",
        &[("List the schemas", "schema"), ("Print one", "schema diff")],
    ),
    (
        "completions",
        &[
            ("For bash, in a user's directory", "completions bash"),
            ("For fish", "completions fish"),
        ],
    ),
    (
        "man",
        &[
            ("Print the page", "man"),
            ("Write the pages of all commands", "man target/man"),
        ],
    ),
];

/// The examples of the commands below `compose`.
pub const COMPOSE_EXAMPLES: [(&str, &[(&str, &str)]); 3] = [
    (
        "container-encapsulate",
        &[
            (
                "As rpm-ostree does it",
                "compose container-encapsulate --repo repo debian/13 oci:out",
            ),
            (
                "With a label",
                "compose container-encapsulate --repo repo -l a=b debian/13 oci:out",
            ),
        ],
    ),
    (
        "build-chunked-oci",
        &[
            (
                "Of a root filesystem",
                "compose build-chunked-oci --bootc --rootfs DIR --output oci:out",
            ),
            (
                "Of an image",
                "compose build-chunked-oci --bootc --from my-os --output oci:out",
            ),
        ],
    ),
    (
        "build-image",
        &[
            (
                "Build a Containerfile and split it",
                "compose build-image . -o oci:out",
            ),
            (
                "Another file, by buildah",
                "compose build-image -f Containerfile.os --backend buildah . -o oci:out",
            ),
        ],
    ),
];

/// Options by the heading under which help lists them.
const HEADINGS: [(&str, &[&str]); 6] = [
    (
        "What goes in",
        &[
            "rootfs",
            "from",
            "container",
            "backend",
            "backend-timeout",
            "prune",
            "skip-special-files",
            "cache",
            "admindir",
            "repo",
            "build-arg",
            "file",
            "platform",
            "target",
            "components",
            "intervals",
            "base",
            "finalize",
            "kernel",
        ],
    ),
    (
        "Where it goes",
        &[
            "output",
            "tag",
            "reference",
            "branch",
            "write-plan",
            "iidfile",
            "digestfile",
            "html",
            "write-contentmeta-json",
            "sbom",
        ],
    ),
    (
        "How it is split",
        &[
            "format",
            "format-version",
            "max-layers",
            "previous",
            "previous-required",
            "previous-verify",
            "plan",
            "compression",
            "compression-level",
            "explain",
            "learn",
            "max-waste",
            "compare-with-build",
            "previous-build",
            "previous-build-manifest",
        ],
    ),
    (
        "What the image says of itself",
        &[
            "config",
            "config-from",
            "image-config",
            "label",
            "annotation",
            "bootc",
            "copymeta",
            "copymeta-opt",
            "cmd",
            "arch",
            "timestamp",
            "mtime",
            "sign-commit",
            "subject",
            "body",
            "version",
            "parent",
            "add-metadata",
            "add-metadata-string",
        ],
    ),
    (
        "Registries",
        &[
            "authfile",
            "creds-stdin",
            "cert-dir",
            "tls-verify",
            "retry-times",
            "sign-by-sigstore-private-key",
            "sign-passphrase-file",
        ],
    ),
    (
        "Messages and speed",
        &[
            "quiet",
            "verbose",
            "progress",
            "json",
            "threads",
            "markdown",
            "exit-code",
        ],
    ),
];

/// Adds examples and headings to the definition of every command.
pub fn with_examples(definition: Command) -> Command {
    let mut definition = definition;
    for (name, examples) in EXAMPLES {
        if definition.find_subcommand(name).is_some() {
            definition = definition.mut_subcommand(name, |command| described(command, examples));
        }
    }
    definition.mut_subcommand("compose", |compose| {
        let mut compose = compose;
        for (name, examples) in COMPOSE_EXAMPLES {
            compose = compose.mut_subcommand(name, |command| described(command, examples));
        }
        compose
    })
}

fn described(command: Command, examples: &[(&str, &str)]) -> Command {
    let lines = examples
        .iter()
        .map(|(what, words)| format!("  # {what}\n  apt-ostree-helper {words}"));
    let text = format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"));
    let text = match command.get_after_help() {
        Some(already) => format!("{text}\n\n{already}"),
        None => text,
    };
    command.after_help(text).mut_args(|argument| {
        let id = argument.get_long().unwrap_or_default().to_owned();
        let heading = HEADINGS
            .iter()
            .find(|(_, options)| options.contains(&id.as_str()));
        match heading {
            Some((heading, _)) if argument.get_help_heading().is_none() => {
                argument.help_heading(*heading)
            }
            _ => argument,
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::definition;
    use super::*;

    /// Of every command that there is; which have examples is told by tests/project/help.rs.
    #[test]
    fn examples_are_understood() {
        let definition = definition();
        for (name, examples) in EXAMPLES.iter().chain(&COMPOSE_EXAMPLES) {
            let compose = definition.find_subcommand("compose").unwrap();
            let is_there = [&definition, compose]
                .iter()
                .any(|c| c.find_subcommand(name).is_some());
            assert!(is_there, "there is no command '{name}'");
            assert!(examples.len() >= 2, "{name}");
            for (_, words) in *examples {
                let words = std::iter::once("apt-ostree-helper").chain(words.split(' '));
                let parsed = definition.clone().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
            }
        }
    }
}
