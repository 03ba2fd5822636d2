//! What a system says that it is, in os-release(5).

/// The value of a field; none where it is not there or empty.
pub fn field(release: &str, name: &str) -> Option<String> {
    let mut lines = release.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_release() {
        let text = "NAME=\"Debian\"\nID=debian\nVERSION_ID='13'\nEMPTY=\n";
        assert_eq!(field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(field(text, "VERSION_ID").as_deref(), Some("13"));
        assert_eq!(field(text, "EMPTY"), None);
        assert_eq!(field(text, "VERSION"), None);
    }
}
