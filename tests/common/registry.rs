//! Debian's docker-registry on loopback, at a port that the kernel chooses, for one test each.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{succeed, tiny_pause};

/// A registry; ended with this value.
pub struct Registry {
    child: Child,
    /// Host and port.
    pub host: String,
    dir: PathBuf,
    log: PathBuf,
    config: PathBuf,
}

/// What a registry asks of those who come.
#[derive(Default)]
pub struct Guard<'a> {
    /// A user's name and password.
    pub user: Option<(&'a str, &'a str)>,
    /// A certificate and its key.
    pub tls: Option<(&'a Path, &'a Path)>,
}

impl Registry {
    /// Starts one in `dir` that anybody may use by HTTP.
    pub fn start(dir: &Path) -> Self {
        Self::guarded(dir, &Guard::default())
    }

    /// Starts one in `dir`.
    pub fn guarded(dir: &Path, guard: &Guard<'_>) -> Self {
        let dir = dir.join("registry");
        fs::create_dir_all(&dir).unwrap();
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": dir.join("storage")}},
            "http": {"addr": "127.0.0.1:0", "secret": "of the tests"},
        });
        if let Some((user, password)) = guard.user {
            let file = dir.join("htpasswd");
            fs::write(&file, format!("{user}:{}\n", bcrypt(password))).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "tests", "path": file}});
        }
        if let Some((certificate, key)) = guard.tls {
            config["http"]["tls"] = json!({"certificate": certificate, "key": key});
        }
        let (file, log) = (dir.join("config.yml"), dir.join("log"));
        // JSON is YAML.
        fs::write(&file, config.to_string()).unwrap();
        let child = serve(&file, &log);
        let mut registry = Self {
            child,
            host: String::new(),
            dir,
            log,
            config: file,
        };
        registry.host = registry.wait();
        registry
    }

    /// Waits until it listens; gives where.
    fn wait(&mut self) -> String {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            let at = log
                .rsplit("listening on ")
                .next()
                .filter(|_| log.contains("listening on "));
            if let Some(at) = at {
                let end = at
                    .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')
                    .unwrap();
                return at[..end].to_owned();
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no registry: {log}"
            );
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {log}");
            tiny_pause();
        }
    }

    /// Ends it at once; what it has stays.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub fn again(&mut self) {
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(&self.config).unwrap()).unwrap();
        config["http"]["addr"] = self.host.clone().into();
        fs::write(&self.config, config.to_string()).unwrap();
        fs::write(&self.log, "").unwrap();
        self.child = serve(&self.config, &self.log);
        self.wait();
    }

    /// A name of an image in it.
    pub fn name(&self, rest: &str) -> String {
        format!("docker://{}/{rest}", self.host)
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        let log = fs::OpenOptions::new().write(true).open(&self.log).unwrap();
        log.set_len(0).unwrap();
    }

    /// What was asked and how it ended: method, path and status of each request, in order.
    pub fn requests(&self) -> Vec<(String, String, u16)> {
        // The last may be on its way to the log.
        std::thread::sleep(Duration::from_millis(50));
        let log = fs::read(&self.log).unwrap();
        let log = String::from_utf8_lossy(&log);
        let field = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}="))?;
            let rest = rest.strip_prefix('"').unwrap_or(rest);
            Some(rest.split(['"', ' ']).next()?.to_owned())
        };
        let requests = log.lines().filter_map(|line| {
            let status = field(line, "http.response.status")?.parse().ok()?;
            Some((
                field(line, "http.request.method")?,
                field(line, "http.request.uri")?,
                status,
            ))
        });
        requests.collect()
    }

    /// How many blobs were sent to it.
    pub fn uploads(&self) -> usize {
        let is_upload = |(method, path, status): &(String, String, u16)| {
            method == "PUT" && path.contains("/blobs/uploads/") && *status == 201
        };
        self.requests().iter().filter(|one| is_upload(one)).count()
    }

    /// How many blobs were fetched from it.
    pub fn downloads(&self) -> usize {
        let is_download = |(method, path, _): &(String, String, u16)| {
            method == "GET" && path.contains("/blobs/sha256:")
        };
        self.requests()
            .iter()
            .filter(|one| is_download(one))
            .count()
    }

    /// Where it has a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.dir.join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Its log, where no secret belongs.
    pub fn log_file(&self) -> &Path {
        &self.log
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(config: &Path, log: &Path) -> Child {
    let output = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}

/// The hash of a password as an htpasswd file has it for the registry.
fn bcrypt(password: &str) -> String {
    let mut child = Command::new("htpasswd")
        .args(["-niB", "-C", "4", "u"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(password.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.trim().strip_prefix("u:").unwrap().to_owned()
}

/// An authority of its own, and a certificate of it for 127.0.0.1: directory for `--cert-dir`,
/// certificate, key.
pub fn certificates(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let script = r#"
        cd "$1"; mkdir -p trusted
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests \
            -keyout ca.key -out trusted/ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1' > ext
        openssl x509 -req -in server.csr -CA trusted/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt
    "#;
    succeed(Command::new("sh").args(["-euc", script, "sh"]).arg(dir));
    (
        dir.join("trusted"),
        dir.join("server.crt"),
        dir.join("server.key"),
    )
}
