//! Images made member by member, as nobody should make them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::image::sha256;

/// A layer in the making: an uncompressed tar.
#[derive(Default, Clone)]
pub struct Tar(Vec<u8>);

/// What a member is.
#[derive(Clone, Copy)]
pub enum What<'a> {
    Dir,
    File(&'a [u8]),
    Link(&'a str),
    Hard(&'a str),
    Fifo,
}

impl Tar {
    /// A member of root, 0644 or 0755.
    pub fn add(&mut self, path: &str, what: What<'_>) -> &mut Self {
        let mode = if let What::Dir = what { 0o755 } else { 0o644 };
        self.member(path.as_bytes(), what, mode, (0, 0))
    }

    /// A member with mode and owner.
    pub fn member(
        &mut self,
        path: &[u8],
        what: What<'_>,
        mode: u32,
        owner: (u64, u64),
    ) -> &mut Self {
        use tar::EntryType;
        let (kind, content, link) = match what {
            What::Dir => (EntryType::Directory, &b""[..], ""),
            What::File(content) => (EntryType::Regular, content, ""),
            What::Link(target) => (EntryType::Symlink, &b""[..], target),
            What::Hard(target) => (EntryType::Link, &b""[..], target),
            What::Fifo => (EntryType::Fifo, &b""[..], ""),
        };
        for (record, text) in [
            (EntryType::GNULongLink, link.as_bytes()),
            (EntryType::GNULongName, path),
        ] {
            if text.len() > 100 {
                self.header(
                    b"././@LongLink",
                    record,
                    text.len() as u64 + 1,
                    0,
                    (0, 0),
                    b"",
                );
                self.content(&[text, b"\0"].concat());
            }
        }
        self.header(
            path,
            kind,
            content.len() as u64,
            mode,
            owner,
            link.as_bytes(),
        );
        self.content(content)
    }

    /// Attributes of the next member, as PAX has them.
    pub fn xattr(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// A PAX record for the next member.
    pub fn pax(&mut self, key: &str, value: &[u8]) -> &mut Self {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut len = rest.len() + 1;
        while len != rest.len() + len.to_string().len() {
            len = rest.len() + len.to_string().len();
        }
        let record = [len.to_string().as_bytes(), &rest].concat();
        self.header(
            b"pax",
            tar::EntryType::XHeader,
            record.len() as u64,
            0o644,
            (0, 0),
            b"",
        );
        self.content(&record)
    }

    /// A header alone, whatever follows.
    pub fn header(
        &mut self,
        path: &[u8],
        kind: tar::EntryType,
        size: u64,
        mode: u32,
        owner: (u64, u64),
        link: &[u8],
    ) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        let cut = |field: &mut [u8; 100], text: &[u8]| {
            let len = text.len().min(100);
            field[..len].copy_from_slice(&text[..len]);
        };
        cut(&mut old.name, path);
        cut(&mut old.linkname, link);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(0);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// Content, padded.
    pub fn content(&mut self, content: &[u8]) -> &mut Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The whole archive.
    pub fn end(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

/// An image in the making, every part of which can be made to lie.
#[derive(Clone, Default)]
pub struct ImageWriter {
    /// Uncompressed layers.
    pub layers: Vec<Vec<u8>>,
    /// The blob of each layer, where it is not the layer itself.
    pub blobs: Vec<Option<Vec<u8>>>,
    /// Labels.
    pub labels: Value,
    /// What the config says of the layers, where it lies.
    pub diff_ids: Option<Vec<String>>,
    /// The order of the layers in the manifest, where it lies.
    pub order: Option<Vec<usize>>,
    /// docker's media types.
    pub docker: bool,
    /// Blobs that are left out.
    pub left_out: Vec<usize>,
    /// What is stored under the name of a blob, where that lies.
    pub instead: Option<(usize, Vec<u8>)>,
    /// How many bytes at the end of a blob are missing.
    pub cut: Option<(usize, usize)>,
}

/// The diff id of a layer.
pub fn diff_id(layer: &[u8]) -> String {
    format!("sha256:{}", sha256(layer))
}

/// Bytes as gzip packs them.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let fast = flate2::Compression::fast();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl ImageWriter {
    /// An image of plain layers.
    pub fn plain(layers: Vec<Vec<u8>>) -> Self {
        Self {
            blobs: vec![None; layers.len()],
            layers,
            labels: json!({}),
            ..Self::default()
        }
    }

    /// Reads the image of a layout that has uncompressed layers, to change it.
    pub fn read(layout: &Path) -> Self {
        let image = super::read_image(layout);
        let layers = image.manifest["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| super::blob(layout, &layer["digest"]));
        Self {
            labels: image.config["config"]["Labels"].clone(),
            ..Self::plain(layers.collect())
        }
    }

    /// Says that the commit ends with the last layer.
    pub fn label_last(&mut self) -> &mut Self {
        let last = self.layers.last().map(|layer| diff_id(layer));
        self.labels["ostree.final-diffid"] = json!(last);
        self
    }

    /// Writes the layout and gives what to import.
    pub fn write(&self, layout: &Path) -> String {
        let _ = fs::remove_dir_all(layout);
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| -> String {
            let name = sha256(bytes);
            fs::write(blobs.join(&name), bytes).unwrap();
            format!("sha256:{name}")
        };
        let types = match self.docker {
            true => [
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ],
            false => [
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar",
            ],
        };
        let descriptors = self.layers.iter().enumerate().map(|(at, layer)| {
            let blob = self.blobs[at].as_deref().unwrap_or(layer);
            let digest = put(blob);
            let path: PathBuf = blobs.join(digest.trim_start_matches("sha256:"));
            if self.left_out.contains(&at) {
                fs::remove_file(&path).unwrap();
            }
            if let Some((_, other)) = self.instead.as_ref().filter(|(lies, _)| *lies == at) {
                fs::write(&path, other).unwrap();
            }
            if let Some((_, missing)) = self.cut.filter(|(cut, _)| *cut == at) {
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_len((blob.len() - missing) as u64).unwrap();
            }
            json!({"mediaType": types[2], "digest": digest, "size": blob.len()})
        });
        let mut descriptors: Vec<Value> = descriptors.collect();
        if let Some(order) = &self.order {
            descriptors = order.iter().map(|at| descriptors[*at].clone()).collect();
        }
        let own = self.layers.iter().map(|layer| diff_id(layer)).collect();
        let diff_ids = self.diff_ids.clone().unwrap_or(own);
        let config = json!({
            "architecture": super::machine(), "os": "linux", "created": "2023-11-14T22:13:20Z",
            "config": {"Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": types[0],
            "config": {"mediaType": types[1], "digest": put(config.as_bytes()), "size": config.len()},
            "layers": descriptors,
        });
        let manifest = manifest.to_string();
        let descriptor = json!({
            "mediaType": types[0], "digest": put(manifest.as_bytes()), "size": manifest.len(),
        });
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let mut marker = fs::File::create(layout.join("oci-layout")).unwrap();
        marker
            .write_all(br#"{"imageLayoutVersion": "1.0.0"}"#)
            .unwrap();
        format!("oci:{}", layout.display())
    }
}
