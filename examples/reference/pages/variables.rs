//! `docs/reference/variables.md` and `exchequer.example.env`: every variable that the service reads.

use super::GENERATED;
use exchequer::config::{CLERK_VARIABLES, TRACE_VARIABLES, VARIABLES, Variable};
use std::fmt::Write;

/// The page.
pub(super) fn page() -> String {
    let mut text = format!(
        "# Variables\n\n{GENERATED}\n\nHow they are read, and what they have in common: [configuration](../configuration.md).\n"
    );
    table(
        &mut text,
        "The service",
        "Each may be given as `NAME_FILE` with the path of a file that holds the value.",
        VARIABLES,
    );
    table(
        &mut text,
        "Clerk",
        "Each may be given as `NAME_FILE`, too. With a suffix they make [further apps](../configuration.md#clerk-by-variables-alone): `CLERK_JWT_ISSUER_MOBILE`.",
        CLERK_VARIABLES,
    );
    table(
        &mut text,
        "Traces",
        "The standard variables of OpenTelemetry. Those that are secret may be given as `NAME_FILE`, too. What is wrong among them is noted, and does not stop the start.",
        TRACE_VARIABLES,
    );
    text
}

fn table(text: &mut String, heading: &str, about: &str, variables: &[Variable]) {
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n## {heading}\n\n{about}\n\n| variable | default | meaning |\n| --- | --- | --- |\n"
    );
    for variable in variables {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            variable.name,
            shown(variable.default),
            variable.meaning
        );
    }
}

/// What could be written as the variable's value is shown as such; words are not.
fn shown(default: &str) -> String {
    if is_value(default) {
        format!("`{default}`")
    } else {
        default.to_owned()
    }
}

fn is_value(default: &str) -> bool {
    default != "none" && !default.contains(' ')
}

/// The file of variables, each commented out.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# Every variable with its default, for `docker run --env-file`, for `env_file` of Compose and for\n# `EnvironmentFile` of systemd: copy this file, and take away the # before what you set.\n# Written by `make reference` from the code; a test holds it current.\n",
    );
    for (about, variables) in [
        ("The service", VARIABLES),
        ("Clerk", CLERK_VARIABLES),
        ("Traces", TRACE_VARIABLES),
    ] {
        let _ = writeln!(text, "\n## {about}");
        for Variable {
            name,
            default,
            meaning,
        } in variables
        {
            let (unset, value) = match *default {
                value if is_value(value) => (String::new(), value),
                "none" => (String::new(), ""),
                words => (format!(" (unless set: {words})"), ""),
            };
            let _ = writeln!(text, "\n# {meaning}{unset}\n#{name}={value}");
        }
    }
    text
}
