//! The pages of `inspect --html` and `diff --html`, opened in a real browser: they draw, are
//! searched, say what `--json` says, ask for nothing, and take no name for markup.

use std::fs;
use std::path::Path;

use crate::common::browser::Browser;
use crate::common::*;
use serde_json::{Value, json};

/// Names that would be markup, script, or not what they look like.
const HOSTILE: [&str; 4] = [
    "opt/<img src=x onerror=alert(1)>",
    "opt/<script>alert(2)<",
    "opt/\u{202e}txt.exe",
    "opt/line\u{2028}separator",
];

fn rootfs(dir: &Path, name: &str, version: &str, content: &str) -> Rootfs {
    let rootfs = three_packages(dir, name, version, content);
    for path in HOSTILE {
        rootfs.file(path, format!("{path} {content}").repeat(1000));
    }
    rootfs.settle();
    rootfs
}

fn build(rootfs: &Rootfs, out: &Path) -> String {
    let layout = format!("oci:{}", out.display());
    let arguments = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "-o",
        &layout,
        "--timestamp",
        "1700000000",
    ];
    run(&arguments);
    layout
}

/// What is in the page's tables and picture.
fn text(browser: &mut Browser, selector: &str) -> Vec<String> {
    let expression =
        format!("[...document.querySelectorAll('{selector}')].map(e => e.textContent)");
    serde_json::from_value(browser.evaluate(&expression)).unwrap()
}

fn search(browser: &mut Browser, words: &str) {
    let words = json!(words);
    browser.evaluate(&format!(
        "document.getElementById('search').value = {words}; \
         document.getElementById('search').dispatchEvent(new Event('input'))"
    ));
}

fn is_no_markup(browser: &mut Browser) {
    let counts = "['img', 'iframe', 'a', 'body script:not([type])'].map(s => document.querySelectorAll(s).length)";
    assert_eq!(browser.evaluate(counts), json!([0, 0, 0, 1]));
    browser.is_quiet();
}

/// In every width and both colours: nothing is cut off, letters can be told from what is behind
/// them.
fn is_readable(browser: &mut Browser, file: &Path) {
    for (width, scheme) in [
        (1300, "light"),
        (1300, "dark"),
        (380, "light"),
        (380, "dark"),
    ] {
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", scheme);
        browser.open(file);
        let fits = browser.evaluate("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(fits, true, "{width}");
        let cells = browser.evaluate("document.querySelectorAll('#map button').length");
        assert!(cells.as_u64().unwrap() >= 4, "{cells}");
        let contrast = "(() => {
            const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
            const ratio = e => { const s = getComputedStyle(e), [a, b] = [light(s.color), light(s.backgroundColor)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05) };
            return Math.min(...[...document.querySelectorAll('#map button')].map(ratio)) })()";
        let contrast = browser.evaluate(contrast).as_f64().unwrap();
        assert!(
            contrast >= 4.5,
            "{width}: a contrast of {contrast} (WCAG 2.1, 1.4.3)"
        );
    }
    browser.call("Emulation.clearDeviceMetricsOverride", json!({}));
}

#[test]
fn the_page_of_an_image_is_drawn_and_searched() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let dir = scratch();
    let layout = build(
        &rootfs(dir.path(), "rootfs", "2-1", "x"),
        &dir.path().join("out"),
    );
    let page = dir.path().join("page.html");
    run(&["inspect", &layout, "--html", page.to_str().unwrap()]);
    let told = run_json(&["inspect", &layout]);
    browser.open(&page);
    let components = told["components"].as_array().unwrap();
    let mut names: Vec<&str> = components
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    let mut shown = text(&mut browser, "#components tbody button");
    shown.sort_unstable();
    assert_eq!(shown, names);
    let layers = told["layers"].as_array().unwrap();
    let size: u64 = layers
        .iter()
        .map(|layer| layer["size"].as_u64().unwrap())
        .sum();
    let first = browser
        .evaluate("JSON.parse(document.getElementById('data').textContent).numbers[0].bytes");
    assert_eq!(first, size);
    // Every name is there as it is, but for signs that cannot be seen.
    let files = text(&mut browser, "#files td:first-child");
    for path in [
        "/opt/<img src=x onerror=alert(1)>",
        "/opt/<script>alert(2)<",
        "/opt/\\u{202e}txt.exe",
        "/opt/line\\u{2028}separator",
    ] {
        assert!(files.iter().any(|file| file == path), "{path}: {files:?}");
    }
    is_no_markup(&mut browser);
    for (words, expected) in [
        ("usr/bin/b", "source-b"),
        ("source-b", "source-b"),
        ("/OPT/note", "rest/files"),
    ] {
        search(&mut browser, words);
        let found = text(&mut browser, "#components tbody button");
        assert_eq!(found, [expected], "{words}");
    }
    search(&mut browser, "nothing at all");
    assert_eq!(text(&mut browser, "#found"), ["0 components, 0 files"]);
    browser.press("/");
    search(&mut browser, "");
    // By keyboard, and for a screen reader.
    browser.evaluate("document.querySelector('#map button[tabindex=\"0\"]').focus()");
    let focused = "document.activeElement.getAttribute('aria-label')";
    let before = browser.evaluate(focused);
    browser.press("ArrowRight");
    let after = browser.evaluate(focused);
    assert!(
        before != after && after.as_str().unwrap().contains("chance to change"),
        "{before} {after}"
    );
    let sorted = "document.querySelector('#components th[aria-sort]').textContent";
    assert_eq!(browser.evaluate(sorted), "Size");
    browser.evaluate("document.querySelector('#components th button').click()");
    assert_eq!(browser.evaluate(sorted), "Component");
    is_readable(&mut browser, &page);
    browser.is_quiet();
}

#[test]
fn the_page_of_an_update_says_what_json_says() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let dir = scratch();
    let old = build(
        &rootfs(dir.path(), "old", "2-1", "x"),
        &dir.path().join("a"),
    );
    let new = build(
        &rootfs(dir.path(), "new", "2-1+deb12u1", "y"),
        &dir.path().join("b"),
    );
    let page = dir.path().join("page.html");
    run(&["diff", &old, &new, "--html", page.to_str().unwrap()]);
    let told = run_json(&["diff", &old, &new]);
    browser.open(&page);
    is_no_markup(&mut browser);
    let numbers = browser.evaluate(
        "JSON.parse(document.getElementById('data').textContent).numbers.map(n => n.bytes)",
    );
    assert_eq!(
        numbers,
        json!([
            told["bytes_fetched"],
            told["floor_bytes"],
            told["bytes_kept"]
        ])
    );
    let sums: u64 = told["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["fetched"].as_u64().unwrap())
        .sum();
    let fetched = told["bytes_fetched"].as_u64().unwrap();
    assert!(
        sums <= fetched && fetched - sums < 1000,
        "{sums} of {fetched}: {told}"
    );
    assert!(told["floor_bytes"].as_u64().unwrap() <= fetched);
    let change = |name: &str| -> Value {
        let components = told["components"].as_array().unwrap();
        components.iter().find(|c| c["name"] == name).unwrap()["change"].clone()
    };
    assert_eq!(change("source-b"), "updated");
    assert_eq!(change("a"), "along");
    assert_eq!(change("rest/files"), "changed");
    let costs = text(&mut browser, "#costs li");
    assert_eq!(costs.len(), told["costs"].as_array().unwrap().len());
    assert!(
        costs
            .iter()
            .any(|cost| cost.contains("source-b: 2-1 → 2-1+deb12u1")),
        "{costs:?}"
    );
    search(&mut browser, "source-b");
    assert_eq!(text(&mut browser, "#components tbody button"), ["source-b"]);
    is_readable(&mut browser, &page);
    browser.is_quiet();
}

#[test]
fn the_same_image_is_no_update() {
    let dir = scratch();
    let layout = build(
        &rootfs(dir.path(), "rootfs", "2-1", "x"),
        &dir.path().join("out"),
    );
    let page = dir.path().join("page.html");
    run(&["diff", &layout, &layout, "--html", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("The images are the same: a client fetches nothing."));
    let message = fail(
        2,
        &["inspect", &layout, "--html", "/no/such/place/page.html"],
    );
    assert!(
        message.contains("there is no directory /no/such/place"),
        "{message}"
    );
}

/// Which layer, component and package has a path, and the other way round.
#[test]
fn paths_and_components_are_looked_up() {
    let dir = scratch();
    let rootfs = rootfs(dir.path(), "rootfs", "2-1", "x");
    rootfs.link("bin", "usr/bin").settle();
    let layout = build(&rootfs, &dir.path().join("out"));
    let text = run(&["inspect", &layout, "--path", "/bin/b"]);
    assert!(
        text.contains("source-b (b)  /usr/bin/b") && text.contains("1 files"),
        "{text}"
    );
    let text = run(&["inspect", &layout, "--path", "opt"]);
    assert!(text.contains("rest/files  /opt/note"), "{text}");
    assert!(text.contains("/opt/\\u{202e}txt.exe"), "{text}");
    let text = run(&["inspect", &layout, "--component", "source-b"]);
    assert!(
        text.contains("/usr/bin/b") && !text.contains("/usr/bin/a"),
        "{text}"
    );
    assert!(fail(1, &["inspect", &layout, "--path", "no/such"]).contains("no file no/such"));
    assert!(fail(1, &["inspect", &layout, "--component", "x"]).contains("no component 'x'"));
}
