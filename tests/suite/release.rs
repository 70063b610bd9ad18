//! What a release hands out has one version, Cargo.toml's, wherever else one must be written; and
//! the source package is lean.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap()
}

/// Every file under the path with one of these endings, but for what is installed there.
fn files(path: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root(path)];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path
            .extension()
            .is_some_and(|ending| endings.iter().any(|each| ending == *each))
        {
            found.push(path);
        }
    }
    found
}

/// What follows the mark, as far as it could be a version: `1.2.3`, `1.2.3-rc.1`.
fn versions_after<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    let rests = text.split(mark).skip(1);
    let of = |rest: &'t str| {
        let end = rest
            .find(|byte: char| !(byte.is_ascii_alphanumeric() || ".-".contains(byte)))
            .unwrap_or(rest.len());
        rest.get(..end).unwrap()
    };
    rests
        .map(of)
        .filter(|text| text.starts_with(|first: char| first.is_ascii_digit()))
        .filter(|text| text.matches('.').count() >= 2)
        .collect()
}

#[test]
fn the_client_and_its_lock_file_have_the_version_of_the_service() {
    let package: Value = serde_json::from_str(&read("clients/typescript/package.json")).unwrap();
    let lock: Value = serde_json::from_str(&read("clients/typescript/package-lock.json")).unwrap();
    assert_eq!(package["version"], VERSION);
    assert_eq!(lock["version"], VERSION);
    assert_eq!(lock["packages"][""]["version"], VERSION);
    assert_eq!(package["license"], env!("CARGO_PKG_LICENSE"));
}

#[test]
fn every_tag_of_the_image_is_the_version() {
    let mut pages = files("k8s", &["yaml"]);
    pages.extend(files("docs", &["md"]));
    pages.extend(["compose.yaml", "README.md"].map(root));
    let mut tags = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for mark in ["exchequer:", "name: exchequer, newTag: "] {
            for version in versions_after(&text, mark) {
                assert_eq!(version, VERSION, "{}", page.display());
                tags += 1;
            }
        }
    }
    assert!(tags > 1, "{tags}");
}

#[test]
fn the_newest_release_of_the_changelog_is_the_version() {
    let text = read("CHANGELOG.md");
    let mut headings = text.lines().filter_map(|line| line.strip_prefix("## ["));
    assert_eq!(headings.next(), Some("Unreleased]"));
    match headings.next() {
        Some(newest) => assert_eq!(newest.split(']').next(), Some(VERSION)),
        // Before the first one.
        None => assert_eq!(VERSION, "0.1.0"),
    }
}

#[test]
fn the_source_package_has_the_service_and_its_texts_alone() {
    let listed = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .current_dir(root(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "{said}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let rest: Vec<&str> = listed
        .lines()
        .filter(|path| !path.starts_with("src/"))
        .collect();
    assert_eq!(
        rest,
        [
            ".cargo_vcs_info.json",
            "CHANGELOG.md",
            "Cargo.lock",
            "Cargo.toml",
            "Cargo.toml.orig",
            "LICENSE-APACHE",
            "LICENSE-MIT",
            "README.md",
        ]
    );
    for file in listed.lines().filter(|path| path.starts_with("src/")) {
        assert!(read(file).len() < 200_000, "{file}");
    }
}

/// The packages that a lock file names, and their versions.
fn locked(path: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lock = read(path);
    let mut locked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]\n").skip(1) {
        let text = |member: &str| {
            let mut lines = package.lines();
            let found = lines.find_map(|line| line.strip_prefix(member)?.strip_prefix(" = "));
            found.unwrap().trim_matches('"').to_owned()
        };
        locked
            .entry(text("name"))
            .or_default()
            .insert(text("version"));
    }
    locked
}

#[test]
fn what_is_fuzzed_is_built_of_what_is_released() {
    let (service, fuzz) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    for (name, versions) in &fuzz {
        if let Some(released) = service.get(name) {
            assert!(
                versions.is_subset(released),
                "{name} {versions:?}: in fuzz/, cargo update -p {name} --precise {released:?}"
            );
        }
    }
    assert!(fuzz.contains_key("exchequer") && fuzz.contains_key("libfuzzer-sys"));
}
