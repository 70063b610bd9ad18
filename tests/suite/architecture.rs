//! The house keeps its order: who may call whom, what is pure, what every file begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the top down: a module may use its own layer and those below, never one above.
const LAYERS: [&[&str]; 5] = [
    &["cli", "service", "http", "standin"],
    &["diagnosis", "webhooks", "gate", "exchange", "oauth", "dpop"],
    &["subject", "policy", "token", "directory"],
    &["keys", "store"],
    &[
        "audit",
        "redis_client",
        "standard_webhooks",
        "explain",
        "telemetry",
        "crypto",
        "clock",
        "config",
    ],
];

struct Source {
    /// The path below `src/`.
    path: String,
    /// The top module that it belongs to.
    module: String,
    /// Without comments and without what is compiled for tests alone, line by line.
    code: Vec<String>,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).unwrap().display().to_string();
            let text = std::fs::read_to_string(file).unwrap();
            let module = path.split('/').next().unwrap().trim_end_matches(".rs");
            Source {
                module: module.to_owned(),
                code: code(&text),
                path,
                text,
            }
        })
        .collect()
}

/// The lines without comments; a `#[cfg(test)]` item ends where its indentation comes back.
fn code(text: &str) -> Vec<String> {
    let mut skipped_to: Option<usize> = None;
    text.lines()
        .map(|line| {
            let bare = line.trim_start();
            let depth = line.len() - bare.len();
            if let Some(end) = skipped_to {
                if depth == end && (bare.starts_with('}') || bare.ends_with(';')) {
                    skipped_to = None;
                }
                return String::new();
            }
            if bare.starts_with("#[cfg(test)]") {
                skipped_to = Some(depth);
                return String::new();
            }
            if bare.starts_with("//") {
                return String::new();
            }
            line.split(" // ").next().unwrap().to_owned()
        })
        .collect()
}

/// The top modules that a line names as `crate::NAME` or `crate::{NAME, …}`.
fn named(line: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|each| each.is_alphanumeric() || *each == '_')
            .collect()
    };
    line.match_indices("crate::")
        .flat_map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => list.split(',').map(|item| word(item.trim())).collect(),
                None => vec![word(rest)],
            }
        })
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Which top module uses which, each with one place where it does.
fn uses() -> BTreeMap<(String, String), String> {
    let mut uses = BTreeMap::new();
    for source in sources() {
        for (number, line) in source.code.iter().enumerate() {
            for used in named(line) {
                if used != source.module {
                    uses.entry((source.module.clone(), used))
                        .or_insert_with(|| format!("src/{}:{}", source.path, number + 1));
                }
            }
        }
    }
    uses
}

#[test]
fn every_module_has_its_layer_and_the_maps_name_it() {
    let modules: BTreeSet<String> = sources()
        .into_iter()
        .map(|source| source.module)
        .filter(|module| !["lib", "main"].contains(&module.as_str()))
        .collect();
    let placed: BTreeSet<String> = LAYERS
        .iter()
        .flat_map(|layer| layer.iter().map(|module| (*module).to_owned()))
        .collect();
    assert_eq!(modules, placed);

    // The order in lib.rs is the one that is held here.
    let map: String = sources()
        .into_iter()
        .find(|source| source.path == "lib.rs")
        .unwrap()
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .collect();
    let (_, map) = map.split_once("Who may call whom:").unwrap();
    let (map, _) = map.split_once(". ").unwrap();
    let written: Vec<BTreeSet<&str>> = map
        .split('→')
        .map(|layer| {
            layer
                .split([',', '`', ' '])
                .filter(|word| !word.is_empty())
                .collect()
        })
        .collect();
    let held: Vec<BTreeSet<&str>> = LAYERS
        .iter()
        .map(|layer| layer.iter().copied().collect())
        .collect();
    assert_eq!(written, held);

    // And so is the one that the document draws.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, figure) = page.split_once("## The layers\n\n```text\n").unwrap();
    let (figure, _) = figure.split_once("```").unwrap();
    let drawn: Vec<BTreeSet<&str>> = figure
        .split('↓')
        .map(|layer| layer.trim().split(", ").collect())
        .collect();
    assert_eq!(drawn, held);
}

#[test]
fn nobody_calls_upwards() {
    let uses = uses();
    assert!(uses.len() > 20, "the uses were not found: {uses:?}");
    for ((from, to), place) in &uses {
        if from == "main" || from == "lib" {
            continue;
        }
        let (from_layer, to_layer) = (layer(from), layer(to));
        assert!(to_layer.is_some(), "{place}: crate::{to} is no module");
        assert!(from_layer <= to_layer, "{place}: {from} uses {to} above it");
    }
}

#[test]
fn modules_use_each_other_in_no_circle() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in uses_of_modules() {
        uses.entry(to.clone()).or_default();
        uses.entry(from).or_default().insert(to);
    }
    // Whoever uses nobody that is left is taken away; a circle is what stays.
    while let Some(free) = uses
        .iter()
        .find(|(_, used)| used.is_empty())
        .map(|(module, _)| module.clone())
    {
        uses.remove(&free);
        for used in uses.values_mut() {
            used.remove(&free);
        }
    }
    assert!(uses.is_empty(), "a circle among {uses:#?}");
}

fn uses_of_modules() -> impl Iterator<Item = (String, String)> {
    uses().into_keys()
}

#[test]
fn policy_and_the_ring_are_handed_time_randomness_and_storage() {
    let impure = [
        "Clock",
        "Instant",
        "SystemTime",
        "rand::",
        "getrandom",
        "SystemRandom",
        "std::fs",
        "std::io",
        "std::net",
        "std::env",
        "tokio",
        "reqwest",
        "async fn",
        ".await",
        "tracing::",
    ];
    let mut looked_at = 0;
    for source in sources() {
        if source.path != "keys/ring.rs" && source.module != "policy" {
            continue;
        }
        looked_at += 1;
        for (number, line) in source.code.iter().enumerate() {
            for word in impure {
                assert!(
                    !line.contains(word),
                    "src/{}:{}: {word}",
                    source.path,
                    number + 1
                );
            }
        }
    }
    assert!(looked_at >= 3, "the files have moved");
}

#[test]
fn nobody_below_http_knows_http() {
    for source in sources() {
        if layer(&source.module).is_none_or(|layer| layer == 0) {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            for word in ["warp::", "hyper", "http::", "StatusCode"] {
                // A status of an upstream's answer is the client's, not ours.
                let line = line.replace("reqwest::StatusCode", "");
                assert!(
                    !line.contains(word),
                    "src/{}:{}: {word}",
                    source.path,
                    number + 1
                );
            }
        }
    }
}

#[test]
fn every_file_begins_with_a_paragraph_that_says_what_it_is() {
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(
            first.len() > 10 && first.starts_with("//! "),
            "src/{}: {first:?}",
            source.path
        );
    }
}

#[test]
fn nothing_panics_by_its_own_will() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "unreachable!(",
        "todo!(",
        "unimplemented!(",
        "process::abort",
    ];
    for source in sources() {
        for (number, line) in source.code.iter().enumerate() {
            for word in words {
                assert!(
                    !line.contains(word),
                    "src/{}:{}: {word}",
                    source.path,
                    number + 1
                );
            }
        }
    }
}

#[test]
fn the_reader_of_these_files_sees_what_it_looks_for() {
    let text = "use crate::keys::Keeper;\n// crate::comment\nfn a() {\n    crate::clock::now(); // crate::aside\n}\n#[cfg(test)]\nmod tests {\n    fn b() { x.unwrap() }\n}\nfn c() { crate::{http, cli::run} }\n";
    let code = code(text);
    let all: Vec<String> = code.iter().flat_map(|line| named(line)).collect();
    assert_eq!(all, ["keys", "clock", "http", "cli"]);
    assert!(!code.concat().contains("unwrap"));
}
