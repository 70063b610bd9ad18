//! A catalogue entry as text for people, and as Markdown.

use super::catalogue::{Code, Entry};
use std::fmt::Write;

/// A code's entry for a terminal.
pub fn entry(entry: &Entry) -> String {
    let mut text = format!("{}\n  {}\n", entry.slug, entry.sentence);
    let _ = writeln!(text, "  cause    {}", entry.cause);
    let _ = writeln!(text, "  confirm  {}", entry.confirm);
    let _ = writeln!(text, "  mend     {}", entry.mend);
    if !entry.clerk.is_empty() {
        let _ = writeln!(text, "  Clerk's SDK calls it {}", entry.clerk.join(", "));
    }
    for issue in entry.code.known_issues() {
        let (library, what, link) = (issue.library, issue.what, issue.link);
        let _ = writeln!(text, "  known    {library}: {what} {link}");
    }
    text
}

/// The whole catalogue as a page.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Errors\n\nEvery code that Exchequer answers or prints, with its cause. This page is \
         printed by `exchequer errors --markdown`.\n\n\
         | code | status | `error` | `action` |\n| --- | --- | --- | --- |\n",
    );
    for code in Code::ALL {
        let entry = code.entry();
        let _ = writeln!(
            page,
            "| [`{slug}`](#{slug}) | {status} | `{error}` | `{action}` |",
            slug = entry.slug,
            status = status(entry),
            error = entry.error,
            action = entry.action.name()
        );
    }
    for code in Code::ALL {
        let entry = code.entry();
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n- **Cause.** {}\n- **Confirm.** {}\n- **Mend.** {}\n",
            entry.slug, entry.sentence, entry.cause, entry.confirm, entry.mend
        );
        if !entry.clerk.is_empty() {
            let names: Vec<String> = entry.clerk.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(page, "- `@clerk/backend` calls it {}.", names.join(", "));
        }
        for issue in entry.code.known_issues() {
            let (library, what, link) = (issue.library, issue.what, issue.link);
            let _ = writeln!(
                page,
                "- **Known issue.** {library}: {what} [thread]({link})"
            );
        }
    }
    page
}

fn status(entry: &Entry) -> String {
    match entry.status {
        0 => "command line".to_owned(),
        status => status.to_string(),
    }
}
