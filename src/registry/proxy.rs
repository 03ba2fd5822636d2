//! Images that skopeo reads for us (containers-image-proxy): registries, the storage of podman and
//! others. One thread talks to skopeo, which is told to end with that thread.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use containers_image_proxy::{ImageProxy, ImageProxyConfig, OpenedImage};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::failure::Failure;
use super::skopeo::retrying;
use super::{Access, RegistryName};
use crate::checksum::Checksum;
use crate::oci::read::{Blobs, Descriptor};

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
    digest: String,
    manifest: Vec<u8>,
    sizes: Mutex<HashMap<Checksum, u64>>,
    requests: Mutex<Sender<Request>>,
    /// A blob that is on its way and not opened yet. Another request must drop it: one blob comes
    /// after the other, and nobody would read this one.
    prefetched: Mutex<Option<(Checksum, Receiver<Piece>)>>,
    /// The image in a registry, where it is in one.
    registry: Option<RegistryName>,
    retry_times: u32,
}

impl Proxy {
    /// Opens an image in a registry; that of an index which is for this machine.
    ///
    /// # Errors
    /// With a [`Failure`], when that fails for good; when skopeo is missing.
    pub fn open_registry(name: &RegistryName, access: &Access) -> Result<Self> {
        retrying(access, name, || {
            let mut config = ImageProxyConfig::default();
            match access.secret_for(name)? {
                Some(secret) => config.auth_data = Some(secret),
                None => config.authfile = access.authfile.clone().map(Into::into),
            }
            config.certificate_directory = access.cert_dir.clone().map(Into::into);
            config.insecure_skip_tls_verification = access.tls_verify.map(|verify| !verify);
            let proxy = Self::start(&name.for_skopeo(), config, Some(access.answer_within()))?;
            Ok(Self {
                registry: Some(name.clone()),
                retry_times: access.retry_times,
                ..proxy
            })
        })
    }

    /// Opens the image that skopeo calls `name`, which is in no registry.
    ///
    /// # Errors
    /// When skopeo is missing or too old, or cannot open it: what it says is in the error.
    pub fn open(name: &str) -> Result<Self> {
        Self::start(name, ImageProxyConfig::default(), None)
    }

    /// Starts skopeo and waits at most so long until it has the manifest: it ends with its thread.
    fn start(name: &str, config: ImageProxyConfig, within: Option<Duration>) -> Result<Self> {
        let name = name.to_owned();
        let (opened, answer) = mpsc::channel();
        let (requests, received) = mpsc::channel();
        std::thread::Builder::new()
            .name("skopeo".into())
            .spawn(move || serve(&name, config, &opened, &received))
            .context("starting a thread")?;
        let answered = match within {
            Some(limit) => answer.recv_timeout(limit),
            None => answer.recv().map_err(RecvTimeoutError::from),
        };
        let (digest, manifest) = answered.unwrap_or_else(|e| match (e, within) {
            (RecvTimeoutError::Timeout, Some(limit)) => {
                let seconds = limit.as_secs();
                Err(anyhow!("it did not answer within {seconds} s"))
            }
            _ => Err(anyhow!("the thread that talks to skopeo ended too early")),
        })?;
        Ok(Self {
            digest,
            manifest,
            sizes: Mutex::default(),
            requests: Mutex::new(requests),
            prefetched: Mutex::default(),
            registry: None,
            retry_times: 0,
        })
    }

    /// The digest of the manifest, as it is stored.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The manifest, which skopeo has made one of OCI where it was another.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Takes note of the size of a blob, which skopeo is told with its digest.
    pub fn know(&self, blob: &Descriptor) {
        if let Ok(mut sizes) = self.sizes.lock() {
            sizes.insert(blob.digest, blob.size);
        }
    }

    /// Asks for a blob, or takes the one that was asked for ahead.
    fn request(&self, digest: Checksum) -> Result<Receiver<Piece>> {
        let prefetched = self.prefetched.lock().ok().and_then(|mut p| p.take());
        match prefetched {
            Some((ahead, pieces)) if ahead == digest => Ok(pieces),
            _ => self.send_request(digest),
        }
    }

    fn send_request(&self, digest: Checksum) -> Result<Receiver<Piece>> {
        let size = self.sizes.lock().ok().and_then(|s| s.get(&digest).copied());
        let size =
            size.with_context(|| format!("{} is not a blob of the image", digest.to_digest()))?;
        let (pieces, received) = mpsc::sync_channel(WAITING);
        let request = Request {
            digest,
            size,
            pieces,
        };
        let sent = self.requests.lock().is_ok_and(|r| r.send(request).is_ok());
        if !sent {
            bail!(
                "skopeo has ended, so that the blob {} cannot be read",
                digest.to_digest()
            );
        }
        Ok(received)
    }
}

impl Blobs for Proxy {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(BlobReader {
            received: self.request(digest)?,
            proxy: self,
            digest,
            piece: Vec::new(),
            at: 0,
            handed_on: 0,
            to_skip: 0,
            attempt: 0,
        }))
    }

    fn prefetch(&self, digest: Checksum) {
        // Where it fails, opening the blob tells.
        if let (Ok(mut prefetched), Ok(pieces)) =
            (self.prefetched.lock(), self.send_request(digest))
        {
            *prefetched = Some((digest, pieces));
        }
    }

    fn index_json(&self) -> Result<Value> {
        bail!("an image that skopeo reads has no index")
    }
}

/// A blob as its pieces arrive. Where the connection breaks it is asked for again, and what was
/// handed on already is left out: whoever reads verifies the whole.
struct BlobReader<'a> {
    proxy: &'a Proxy,
    digest: Checksum,
    received: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    /// Bytes that came before the piece.
    handed_on: u64,
    /// Bytes that come a second time.
    to_skip: u64,
    attempt: u32,
}

impl BlobReader<'_> {
    /// Waits for the next piece; none at the end.
    fn next(&mut self) -> io::Result<bool> {
        loop {
            match self.received.recv() {
                Ok(Ok(mut piece)) => {
                    let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX);
                    let skipped = skipped.min(piece.len());
                    piece.drain(..skipped);
                    self.to_skip -= skipped as u64;
                    self.handed_on += self.piece.len() as u64;
                    (self.piece, self.at) = (piece, 0);
                    if !self.piece.is_empty() {
                        return Ok(true);
                    }
                }
                Ok(Err(broken)) => self.begin_again(broken)?,
                Err(_) => return Ok(false),
            }
        }
    }

    fn begin_again(&mut self, broken: io::Error) -> io::Result<()> {
        let Some(name) = &self.proxy.registry else {
            return Err(broken);
        };
        let failure = Failure::of_registry(&Error::new(broken), name);
        if !failure.is_worth_retrying() || self.attempt == self.proxy.retry_times {
            return Err(io::Error::other(failure));
        }
        self.attempt += 1;
        let pause = Access::pause(self.attempt);
        tracing::warn!(
            "{failure}; trying again in {} s ({} of {})",
            pause.as_secs(),
            self.attempt,
            self.proxy.retry_times
        );
        std::thread::sleep(pause);
        let again = self.proxy.request(self.digest);
        self.received = again.map_err(|e| io::Error::other(format!("{e:#}")))?;
        self.handed_on += self.piece.len() as u64;
        (self.piece, self.at) = (Vec::new(), 0);
        self.to_skip = self.handed_on;
        Ok(())
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.next()? {
            return Ok(0);
        }
        let rest = &self.piece[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// The manifest's digest, and the manifest.
type Opened = Result<(String, Vec<u8>)>;

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
        Ok((proxy, image, digest, manifest)) => {
            if opened.send(Ok((digest, manifest))).is_err() {
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
) -> Result<(ImageProxy, OpenedImage, String, Vec<u8>)> {
    let proxy = ImageProxy::new_with_config(config).await;
    let proxy = proxy.context(
        "starting skopeo, which reads images from registries and container storage; install the package skopeo (1.9 or newer)",
    )?;
    let image = proxy.open_image(name).await?;
    let (digest, manifest) = proxy.fetch_manifest_raw_oci(&image).await?;
    Ok((proxy, image, digest, manifest))
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
    finished.with_context(|| format!("fetching the blob {}", request.digest.to_digest()))
}
