//! Extended attributes: which of them are content, and where the rest goes.

/// One attribute: its name (without a NUL) and its value, both bytes.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The attributes of one entry, sorted by name, no name twice.
pub type Xattrs = Vec<Xattr>;

/// The attribute that names a file's component, as chunkah and rpm-ostree read it.
const COMPONENT_XATTR: &[u8] = b"user.component";
/// The attribute that says how often the component changes.
const INTERVAL_XATTR: &[u8] = b"user.update-interval";
/// Where POSIX ACLs are kept (acl(5)); the only `system.*` attributes that are content.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// What a user has said of a file, or of all below a directory, in extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// `user.component`: the component it belongs to; none where only an interval is told.
    pub component: Option<String>,
    /// `user.update-interval`: days, or a word such as `weekly`; as it was written.
    pub interval: Option<String>,
}

impl Hint {
    /// The hint among the attributes of an entry; an empty component name is none.
    pub(super) fn from_xattrs(xattrs: &[Xattr]) -> Option<Self> {
        let text = |wanted: &[u8]| {
            let (_, value) = xattrs.iter().find(|(name, _)| name == wanted)?;
            let text = String::from_utf8_lossy(value);
            Some(text.trim_end_matches('\0').trim().to_owned()).filter(|text| !text.is_empty())
        };
        let (component, interval) = (text(COMPONENT_XATTR), text(INTERVAL_XATTR));
        (component.is_some() || interval.is_some()).then_some(Self {
            component,
            interval,
        })
    }
}

/// Whether an attribute is a hint to us.
pub fn is_hint(name: &[u8]) -> bool {
    [COMPONENT_XATTR, INTERVAL_XATTR].contains(&name)
}

/// Whether an attribute belongs to the content of an image. Attributes of the storage that the
/// rootfs happens to lie on (overlay, bare-user OSTree), SELinux labels (Debian ships no
/// policy) and hints to us do not; capabilities, ACLs and what users set do.
pub(super) fn is_content(name: &[u8]) -> bool {
    match name {
        b"security.selinux" | b"user.ostreemeta" => false,
        _ if is_hint(name) => false,
        _ if name.starts_with(b"user.overlay.") => false,
        _ => name.starts_with(b"security.") || name.starts_with(b"user.") || ACLS.contains(&name),
    }
}

/// Leaves those attributes that belong to the content of an image, sorted by name, each name once.
/// libostree reads attributes without a value as if they were not there ("glnx-xattrs.c").
pub fn normalize(xattrs: &mut Xattrs) {
    xattrs.retain(|(name, value)| is_content(name) && !value.is_empty());
    xattrs.sort_unstable();
    xattrs.dedup_by(|a, b| a.0 == b.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_content_and_drops_storage_and_hints() {
        for (name, content) in [
            ("security.capability", true),
            ("security.ima", true),
            ("system.posix_acl_access", true),
            ("system.posix_acl_default", true),
            ("user.note", true),
            ("security.selinux", false),
            ("system.nfs4_acl", false),
            ("trusted.overlay.opaque", false),
            ("user.overlay.origin", false),
            ("user.ostreemeta", false),
            ("user.component", false),
            ("user.update-interval", false),
        ] {
            assert_eq!(is_content(name.as_bytes()), content, "{name}");
        }
    }
}
