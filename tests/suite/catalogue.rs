//! The catalogue keeps its word: each code is met by a test from outside, and what an entry tells
//! people to set, to run or to read is there.

use crate::support::{Command, Issuer, Service};
use exchequer::config::{SECTIONS, VARIABLES};
use exchequer::explain::Code;
use exchequer::explain::foreign::MEANINGS;
use exchequer::explain::known::KNOWN_ISSUES;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// What no test from outside meets, and why.
const UNMET: [(&str, &str); 2] = [
    (
        "internal_error",
        "a bug by definition: an input that leads to it is mended, and its test asserts another answer",
    ),
    (
        "dpop_proofs_too_many",
        "a million proofs would have to be signed; src/dpop.rs asserts it with a smaller memory",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of the tests in this folder that are neither comments nor of this file.
fn lines_of_tests() -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(root().join("tests/suite")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs")
            || path.ends_with("catalogue.rs")
        {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.lines().map(str::trim_start);
        lines.extend(
            code.filter(|line| !line.starts_with("//"))
                .map(str::to_owned),
        );
    }
    lines
}

/// Whether the word stands there by itself, within quotes.
fn quotes(line: &str, word: &str) -> bool {
    let part = |each: char| each.is_ascii_alphanumeric() || each == '_';
    line.split('"')
        .skip(1)
        .step_by(2)
        .any(|text| text.split(|each| !part(each)).any(|each| each == word))
}

#[test]
fn each_code_is_met_by_a_test_from_outside() {
    let lines = lines_of_tests();
    let met = |slug: &str, code: &Code| {
        let variant = format!("Code::{code:?}");
        lines
            .iter()
            .any(|line| quotes(line, slug) || line.contains(&format!("{variant},")))
    };
    let unmet: Vec<&str> = Code::ALL
        .iter()
        .map(|code| (code.entry().slug, code))
        .filter(|(slug, code)| !met(slug, code))
        .map(|(slug, _)| slug)
        .collect();
    let excused: Vec<&str> = UNMET.iter().map(|(slug, _)| *slug).collect();
    assert_eq!(
        BTreeSet::from_iter(unmet),
        BTreeSet::from_iter(excused),
        "left: met by no test; right: excused"
    );
}

/// What people are told, and where: the catalogue, the hints of `explain`, and what others say.
fn told() -> Vec<(String, String)> {
    let mut told: Vec<(String, String)> = Vec::new();
    for code in Code::ALL {
        let entry = code.entry();
        for text in [entry.sentence, entry.cause, entry.confirm, entry.mend] {
            told.push((entry.slug.to_owned(), text.to_owned()));
        }
    }
    for meaning in MEANINGS {
        told.push((
            meaning.said[0].0.to_owned(),
            format!("{} {}", meaning.cause, meaning.next),
        ));
    }
    for issue in KNOWN_ISSUES {
        told.push((issue.library.to_owned(), issue.what.to_owned()));
    }
    for file in [
        "src/explain/hints/app.rs",
        "src/explain/hints/issuer.rs",
        "src/explain/hints/kind.rs",
        "src/explain/hints/meant.rs",
        "src/explain/hints/ours.rs",
        "src/explain/hints/time.rs",
        "src/explain/input.rs",
        "src/diagnosis/answers.rs",
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        told.push((file.to_owned(), code));
    }
    told
}

/// The words of a text that begin so, of these letters.
fn words(text: &str, start: &str) -> Vec<String> {
    let part = |each: char| each.is_ascii_uppercase() || each.is_ascii_digit() || each == '_';
    text.split(|each| !part(each))
        .filter(|word| word.starts_with(start))
        .map(|word| word.trim_end_matches('_').to_owned())
        .collect()
}

#[test]
fn every_entry_says_why_how_to_confirm_it_and_how_to_mend_it() {
    for code in Code::ALL {
        let entry = code.entry();
        for text in [entry.sentence, entry.cause, entry.confirm, entry.mend] {
            assert!(text.len() > 10, "{}: {text:?}", entry.slug);
        }
    }
}

#[test]
fn each_variable_that_is_named_is_one() {
    let clerk = std::fs::read_to_string(root().join("src/config/clerk.rs")).unwrap();
    for (place, text) in told() {
        for name in words(&text, "EXCHEQUER_") {
            let known = VARIABLES.iter().any(|variable| variable.name == name);
            assert!(known, "{place}: {name}");
        }
        for name in words(&text, "CLERK_") {
            // Those of `CLERK_JWT_ISSUER_MOBILE` and `CLERK_SECRET_KEY_FILE` too.
            let bare = name.trim_end_matches("_FILE").trim_end_matches("_MOBILE");
            let known = clerk.contains(&format!("\"{bare}\""))
                || ["CLERK", "CLERK_SESSION"].contains(&bare);
            assert!(known, "{place}: {name}");
        }
    }
}

/// The names of the settings that a schema has, at any depth.
fn settings(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                names.extend(properties.keys().cloned());
            }
            members.values().for_each(|value| settings(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| settings(value, names)),
        _ => {}
    }
}

#[test]
fn each_section_and_setting_that_is_named_is_one() {
    let schema = std::fs::read_to_string(root().join("docs/exchequer.schema.json")).unwrap();
    let mut known = BTreeSet::new();
    settings(&serde_json::from_str(&schema).unwrap(), &mut known);
    let mut met = 0;
    for (place, text) in told() {
        for (index, piece) in text.split('`').enumerate() {
            // `[apps.NAME.verify] pass_through = true`
            if let Some((section, setting)) = piece
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                && index % 2 == 1
                && section.contains('.')
            {
                let mut parts = section.split('.');
                let top = parts.next().unwrap();
                assert!(
                    SECTIONS.iter().any(|(name, _)| *name == top),
                    "{place}: {piece}"
                );
                for nested in parts.skip(1) {
                    assert!(known.contains(nested), "{place}: {piece}");
                }
                let setting = setting.split('=').next().unwrap().trim();
                let first = setting.split([' ', '.']).next().unwrap();
                assert!(
                    first.is_empty() || known.contains(first),
                    "{place}: {piece}"
                );
                met += 1;
            }
            // `session_id = "off"`
            if index % 2 == 1
                && let Some((setting, _)) = piece.split_once(" = ")
                && !setting.starts_with('[')
                && setting
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.')
            {
                let last = setting.rsplit('.').next().unwrap();
                assert!(known.contains(last), "{place}: {piece}");
                met += 1;
            }
        }
    }
    assert!(met > 25, "{met}");
}

#[test]
fn each_command_that_is_named_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut commands = BTreeSet::new();
    for (place, text) in told() {
        for piece in text.split('`').skip(1).step_by(2) {
            if let Some(arguments) = piece.strip_prefix("exchequer ") {
                commands.insert((arguments.to_owned(), place.clone()));
            }
        }
    }
    assert!(commands.len() > 8, "{commands:?}");
    for (arguments, place) in commands {
        let words: Vec<&str> = arguments.split(' ').collect();
        let subcommands: Vec<&str> = words
            .iter()
            .copied()
            .take_while(|word| {
                !word.starts_with('-')
                    && word
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            })
            .collect();
        let mut help = subcommands.clone();
        help.push("--help");
        let ended = Command::new(dir.path()).run(&help);
        assert_eq!(ended.code, 0, "{place}: exchequer {arguments}: {ended:?}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(
                ended.stdout.contains(flag),
                "{place}: exchequer {arguments}"
            );
        }
    }
}

#[test]
fn each_page_that_is_named_exists_and_the_page_of_errors_is_this_one() {
    for (place, text) in told() {
        for page in text.split(|each: char| each.is_whitespace() || "`(),".contains(each)) {
            let page = page.trim_end_matches('.');
            if page.starts_with("docs/") {
                assert!(root().join(page).exists(), "{place}: {page}");
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let printed = Command::new(dir.path()).run(&["errors", "--markdown"]);
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    assert_eq!(printed.stdout, page);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_of_the_service_that_is_named_is_answered() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let mut paths = BTreeSet::new();
    let starts = [
        "/auth/",
        "/oauth/",
        "/webhooks/",
        "/.well-known/",
        "/clients",
    ];
    for (_, text) in told() {
        for word in text.split(|each: char| each.is_whitespace() || "`(),;:\"".contains(each)) {
            let path = word.split('?').next().unwrap().trim_end_matches('.');
            if starts.iter().any(|start| path.starts_with(start)) {
                paths.insert(path.to_owned());
            }
        }
    }
    assert!(paths.len() > 6, "{paths:?}");
    for path in paths {
        let mut codes = Vec::new();
        for base in [&service.url, &service.admin] {
            let answer = service
                .send(service.client.get(format!("{base}{path}")))
                .await;
            codes.push((
                answer.status,
                answer.body["code"].as_str().unwrap_or("").to_owned(),
            ));
        }
        let unknown = |(status, code): &(u16, String)| *status == 404 && code != "webhook_unknown";
        assert!(!codes.iter().all(unknown), "{path}: {codes:?}");
    }
}

#[test]
fn known_faults_of_others_are_shown_with_their_thread_wherever_their_code_is() {
    let dir = tempfile::tempdir().unwrap();
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    for issue in KNOWN_ISSUES {
        assert!(issue.link.starts_with("https://github.com/"), "{issue:?}");
        assert!(!issue.codes.is_empty());
        for code in issue.codes {
            let slug = code.entry().slug;
            let shown = Command::new(dir.path()).run(&["errors", slug]);
            assert!(shown.stdout.contains(issue.link), "{shown:?}");
            let section = page.split(&format!("\n## {slug}\n")).nth(1).unwrap();
            let section = section.split("\n## ").next().unwrap();
            assert!(section.contains(issue.link), "{slug}");
            let explained = Command::new(dir.path())
                .input(format!("{{\"error\":\"x\",\"code\":\"{slug}\"}}"))
                .run(&["explain"]);
            assert!(explained.stdout.contains(issue.link), "{explained:?}");
        }
    }
    // The helper is used, and sees what it looks for.
    assert!(quotes("assert(\"a_b\", 1)", "a_b") && !quotes("a_b(\"a_bc\")", "a_b"));
}
