//! The JSON Schemas of what `--json` prints, and of the plan as a file, as contrib/docs/schema has
//! them.

/// The schemas by name: the command, or `build` for every command that makes an image; and
/// `plan-file`.
const SCHEMAS: [(&str, &str); 13] = [
    (
        "build",
        include_str!("../../contrib/docs/schema/build.json"),
    ),
    (
        "commit",
        include_str!("../../contrib/docs/schema/commit.json"),
    ),
    ("diff", include_str!("../../contrib/docs/schema/diff.json")),
    (
        "finalize",
        include_str!("../../contrib/docs/schema/finalize.json"),
    ),
    (
        "import",
        include_str!("../../contrib/docs/schema/import.json"),
    ),
    (
        "index",
        include_str!("../../contrib/docs/schema/index.json"),
    ),
    (
        "inspect",
        include_str!("../../contrib/docs/schema/inspect.json"),
    ),
    ("lint", include_str!("../../contrib/docs/schema/lint.json")),
    ("plan", include_str!("../../contrib/docs/schema/plan.json")),
    (
        "plan-file",
        include_str!("../../contrib/docs/schema/plan-file.json"),
    ),
    ("pull", include_str!("../../contrib/docs/schema/pull.json")),
    ("push", include_str!("../../contrib/docs/schema/push.json")),
    ("seal", include_str!("../../contrib/docs/schema/seal.json")),
];

/// The schema of that name.
pub fn schema(name: &str) -> Option<&'static str> {
    SCHEMAS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, schema)| *schema)
}

/// The names of all.
pub fn schemas() -> impl Iterator<Item = &'static str> {
    SCHEMAS.iter().map(|(name, _)| *name)
}
