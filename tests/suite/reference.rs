//! docs/reference/ and docs/errors.md are what the code says, whole.

#[path = "../../examples/reference/pages/mod.rs"]
mod pages;

use exchequer::config::{CLERK_VARIABLES, TRACE_VARIABLES, VARIABLES};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

#[test]
fn each_page_of_the_reference_is_what_the_code_says() {
    for (path, text) in pages::all() {
        assert!(read(path) == text, "{path} lags behind: make reference");
    }
}

#[test]
fn the_reference_has_every_metric_that_is_registered() {
    let source = read("src/telemetry.rs");
    let page = read("docs/reference/metrics.md");
    let mut names = 0;
    for after in source.split("registry.register").skip(1) {
        let name = after.split('"').nth(1).unwrap();
        let told = ["", "_seconds", "_bytes"].iter().any(|unit| {
            ["", "_total"]
                .iter()
                .any(|suffix| page.contains(&format!("| `exchequer_{name}{unit}{suffix}` |")))
        });
        assert!(told, "{name}");
        names += 1;
    }
    assert!(names > 40, "{names}");
    assert_eq!(page.matches("\n| `exchequer_").count(), names);
}

#[test]
fn no_variable_is_told_twice_and_none_without_a_meaning() {
    let all = [VARIABLES, CLERK_VARIABLES, TRACE_VARIABLES];
    let all: Vec<_> = all.into_iter().flatten().collect();
    let mut names: Vec<&str> = all.iter().map(|variable| variable.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    for variable in all {
        assert!(
            !variable.default.is_empty() && !variable.meaning.is_empty(),
            "{}",
            variable.name
        );
    }
}
