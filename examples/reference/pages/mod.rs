//! The pages of the reference, each from what the code itself goes by.

mod command_line;
mod metrics;
mod variables;

/// What stands below the heading of each page.
const GENERATED: &str =
    "<!-- Written by `make reference` from the code; a test holds it current. -->";

/// Each page: its path in the repository, and its text.
pub(crate) fn all() -> [(&'static str, String); 5] {
    [
        ("docs/errors.md", exchequer::explain::render::markdown()),
        ("docs/reference/cli.md", command_line::page()),
        ("docs/reference/metrics.md", metrics::page()),
        ("docs/reference/variables.md", variables::page()),
        ("exchequer.example.env", variables::example()),
    ]
}
