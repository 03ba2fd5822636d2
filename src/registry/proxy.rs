//! Images that skopeo reads for us (containers-image-proxy): registries, the storage of podman and
//! others. One thread talks to skopeo, which is told to end with that thread.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use anyhow::{Context, Error, Result, anyhow, bail};
use containers_image_proxy::{ImageProxy, ImageProxyConfig, OpenedImage};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::Access;
use crate::checksum::Checksum;
use crate::oci::read::{Blobs, Manifest};

/// Bytes of a blob that are handed over at once.
const CHUNK: usize = 256 * 1024;
/// Pieces that may wait to be read.
const WAITING: usize = 4;

type Piece = io::Result<Vec<u8>>;

struct Request {
    digest: Checksum,
    size: u64,
    pieces: SyncSender<Piece>,
}

/// An image opened through skopeo.
pub struct Proxy {
    manifest: Vec<u8>,
    config: Vec<u8>,
    sizes: Mutex<HashMap<Checksum, u64>>,
    requests: Mutex<Sender<Request>>,
}

impl Proxy {
    /// Opens the image that skopeo calls `name`.
    ///
    /// # Errors
    /// When skopeo is missing or too old, or cannot open it: what it says is in the error.
    pub fn open(name: &str, access: &Access) -> Result<Self> {
        let mut config = ImageProxyConfig::default();
        config.authfile = access.authfile.clone().map(Into::into);
        config.certificate_directory = access.cert_dir.clone().map(Into::into);
        config.insecure_skip_tls_verification = access.tls_verify.map(|verify| !verify);
        let name = name.to_owned();
        let (opened, answer) = mpsc::channel();
        let (requests, received) = mpsc::channel();
        std::thread::Builder::new()
            .name("skopeo".into())
            .spawn(move || serve(&name, config, &opened, &received))
            .context("starting a thread")?;
        let (manifest, config) = answer
            .recv()
            .unwrap_or_else(|_| Err(anyhow!("the thread that talks to skopeo broke off")))?;
        Ok(Self {
            manifest,
            config,
            sizes: Mutex::default(),
            requests: Mutex::new(requests),
        })
    }

    /// The manifest, which skopeo has made one of OCI.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The config.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Takes note of the sizes of the layers in a manifest, which skopeo is told with each digest.
    pub fn know(&self, manifest: &Manifest) {
        if let Ok(mut sizes) = self.sizes.lock() {
            sizes.extend(
                manifest
                    .layers
                    .iter()
                    .map(|layer| (layer.digest, layer.size)),
            );
        }
    }
}

impl Blobs for Proxy {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        let size = self.sizes.lock().ok().and_then(|s| s.get(&digest).copied());
        let size =
            size.with_context(|| format!("{} is no layer of the image", digest.to_digest()))?;
        let (pieces, received) = mpsc::sync_channel(WAITING);
        let request = Request {
            digest,
            size,
            pieces,
        };
        let sent = self.requests.lock().is_ok_and(|r| r.send(request).is_ok());
        if !sent {
            bail!(
                "skopeo has ended, so that the layer {} cannot be read",
                digest.to_digest()
            );
        }
        Ok(Box::new(BlobReader {
            received,
            piece: Vec::new(),
            at: 0,
        }))
    }

    fn index_json(&self) -> Result<Value> {
        bail!("an image that skopeo reads has no index")
    }
}

/// A blob as its pieces arrive.
struct BlobReader {
    received: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.received.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.piece[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Manifest and config.
type Opened = Result<(Vec<u8>, Vec<u8>)>;

/// Starts skopeo, opens the image, and answers requests until nobody has any.
fn serve(
    name: &str,
    config: ImageProxyConfig,
    opened: &Sender<Opened>,
    requests: &Receiver<Request>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            // Nobody waits for an answer any more when this fails.
            let _ = opened.send(Err(Error::new(e).context("starting to talk to skopeo")));
            return;
        }
    };
    let (proxy, image) = match runtime.block_on(open(name, config)) {
        Ok((proxy, image, manifest, config)) => {
            if opened.send(Ok((manifest, config))).is_err() {
                return;
            }
            (proxy, image)
        }
        Err(e) => {
            let _ = opened.send(Err(e));
            return;
        }
    };
    for request in requests {
        if let Err(e) = runtime.block_on(stream(&proxy, &image, &request)) {
            let _ = request.pieces.send(Err(io::Error::other(format!("{e:#}"))));
        }
    }
    if let Err(e) = runtime.block_on(proxy.finalize()) {
        tracing::debug!("skopeo: {e}");
    }
}

async fn open(
    name: &str,
    config: ImageProxyConfig,
) -> Result<(ImageProxy, OpenedImage, Vec<u8>, Vec<u8>)> {
    let proxy = ImageProxy::new_with_config(config).await;
    let proxy = proxy.context(
        "starting skopeo, which reads images from registries and container storage; install the package skopeo (1.9 or newer)",
    )?;
    let image = proxy.open_image(name).await?;
    let (_, manifest) = proxy.fetch_manifest_raw_oci(&image).await?;
    let config = proxy.fetch_config_raw(&image).await?;
    Ok((proxy, image, manifest, config))
}

/// Hands a blob over, piece by piece, as far as somebody reads it.
async fn stream(proxy: &ImageProxy, image: &OpenedImage, request: &Request) -> Result<()> {
    let digest = request.digest.to_digest().parse();
    let digest = digest.map_err(|e| anyhow!("{}: {e}", request.digest.to_digest()))?;
    let (mut blob, driver) = proxy.get_blob(image, &digest, request.size).await?;
    let hand_over = async move {
        loop {
            let mut piece = Vec::with_capacity(CHUNK);
            match (&mut blob).take(CHUNK as u64).read_to_end(&mut piece).await {
                Ok(0) => return Ok(()),
                Ok(_) if request.pieces.send(Ok(piece)).is_err() => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(Error::new(e)),
            }
        }
    };
    let (handed_over, finished) = tokio::join!(hand_over, driver);
    handed_over?;
    finished.with_context(|| format!("fetching the layer {}", request.digest.to_digest()))
}
