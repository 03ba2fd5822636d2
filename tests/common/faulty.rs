//! A proxy in front of a registry that does what registries and networks do on bad days.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::tiny_pause;

/// What happens to a request.
#[derive(Clone)]
pub enum Fault {
    /// It is answered with that status.
    Status(u16),
    /// The answer ends after so many bytes, and the connection with it.
    Cut(usize),
    /// A byte of the answer's body is another.
    Alter,
    /// The connection ends before it is passed on.
    Drop,
    /// It waits until it is let go.
    Hold(Arc<Held>),
}

/// Whether a request waits, and whether it may go on.
#[derive(Default)]
pub struct Held {
    pub waits: AtomicBool,
    pub let_go: AtomicBool,
}

/// The next `times` requests of that method whose path has that part are at fault, after `spared`
/// are not.
pub struct Rule {
    pub method: &'static str,
    pub part: &'static str,
    pub spared: usize,
    pub times: usize,
    pub fault: Fault,
}

/// The proxy; it lives as long as the process of the test.
pub struct Faulty {
    /// Host and port.
    pub host: String,
    rules: Arc<Mutex<Vec<Rule>>>,
    uploaded: Arc<AtomicU64>,
}

impl Faulty {
    /// One in front of the registry at `upstream`.
    pub fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let rules = Arc::<Mutex<Vec<Rule>>>::default();
        let uploaded = Arc::<AtomicU64>::default();
        let (upstream, shared, counter) = (upstream.to_owned(), rules.clone(), uploaded.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, rules) = (upstream.clone(), shared.clone());
                let counter = counter.clone();
                // Whoever hangs up has an error of its own.
                std::thread::spawn(move || pass_on(client, &upstream, &rules, &counter));
            }
        });
        Self {
            host,
            rules,
            uploaded,
        }
    }

    /// A name of an image behind it.
    pub fn name(&self, rest: &str) -> String {
        format!("docker://{}/{rest}", self.host)
    }

    /// Has requests at fault from now on.
    pub fn set(&self, rules: Vec<Rule>) {
        *self.rules.lock().unwrap() = rules;
    }

    /// How many bytes of blobs were sent through it since this was asked last.
    pub fn uploaded(&self) -> u64 {
        self.uploaded.swap(0, Ordering::AcqRel)
    }

    /// How many faults are still to come.
    pub fn left(&self) -> usize {
        self.rules
            .lock()
            .unwrap()
            .iter()
            .map(|rule| rule.times)
            .sum()
    }
}

fn pass_on(
    mut client: TcpStream,
    upstream: &str,
    rules: &Mutex<Vec<Rule>>,
    uploaded: &Arc<AtomicU64>,
) -> Option<()> {
    let head = head(&mut client)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let fault = {
        let mut rules = rules.lock().unwrap();
        let fits =
            |rule: &&mut Rule| rule.method == method && path.contains(rule.part) && rule.times > 0;
        rules.iter_mut().find(fits).and_then(|rule| {
            if rule.spared > 0 {
                rule.spared -= 1;
                return None;
            }
            rule.times -= 1;
            Some(rule.fault.clone())
        })
    };
    let (mut limit, mut alters) = (usize::MAX, false);
    match fault {
        None => {}
        Some(Fault::Drop) => return None,
        Some(Fault::Status(status)) => {
            let code = match status {
                401 => "UNAUTHORIZED",
                403 => "DENIED",
                429 => "TOOMANYREQUESTS",
                _ => "UNKNOWN",
            };
            let body = format!(r#"{{"errors":[{{"code":"{code}","message":"of the tests"}}]}}"#);
            let answer = format!(
                "HTTP/1.1 {status} Fault\r\nRetry-After: 1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(answer.as_bytes()).ok()?;
            return finish(&mut client);
        }
        Some(Fault::Cut(after)) => limit = after,
        Some(Fault::Alter) => alters = true,
        Some(Fault::Hold(held)) => {
            held.waits.store(true, Ordering::Release);
            while !held.let_go.load(Ordering::Acquire) {
                tiny_pause();
            }
        }
    }
    let mut server = TcpStream::connect(upstream).ok()?;
    // One request a connection, so that each is seen.
    let (first, rest) = head.split_once("\r\n")?;
    let rest = rest
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let lines: Vec<&str> = rest.filter(|line| !line.is_empty()).collect();
    let sent = format!(
        "{first}\r\nConnection: close\r\n{}\r\n\r\n",
        lines.join("\r\n")
    );
    server.write_all(sent.as_bytes()).ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let counter = path.contains("/blobs/uploads/").then(|| uploaded.clone());
    std::thread::spawn(move || {
        let copied = match counter {
            Some(counter) => {
                let mut counted = Counted(&mut to_server, &counter);
                std::io::copy(&mut from_client, &mut counted)
            }
            None => std::io::copy(&mut from_client, &mut to_server),
        };
        // Who breaks off in the middle gets no answer.
        to_server.shutdown(Shutdown::Write).and(copied)
    });
    let mut answer = Vec::new();
    let mut buffer = [0; 64 * 1024];
    let mut passed = 0;
    loop {
        let count = server.read(&mut buffer).ok()?;
        if count == 0 {
            break;
        }
        if alters {
            answer.extend_from_slice(&buffer[..count]);
            continue;
        }
        let count = count.min(limit - passed);
        client.write_all(&buffer[..count]).ok()?;
        passed += count;
        if passed == limit {
            return finish(&mut client);
        }
    }
    if alters {
        // In a word that is not a name of a field.
        let at = answer.iter().rposition(|byte| byte.is_ascii_digit())?;
        answer[at] = if answer[at] == b'9' {
            b'8'
        } else {
            answer[at] + 1
        };
        client.write_all(&answer).ok()?;
    }
    finish(&mut client)
}

/// Counts the bytes before they are passed on.
struct Counted<'a>(&'a mut TcpStream, &'a AtomicU64);

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn finish(client: &mut TcpStream) -> Option<()> {
    client.shutdown(Shutdown::Both).ok()
}

/// The head of a request, byte by byte: what follows is passed on as it comes.
fn head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        // Who tries TLS first is to see at once that there is none.
        if head.is_empty() && !byte[0].is_ascii_uppercase() {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}
