//! `exchequer errors`: the catalogue.

use crate::explain::{Code, render};
use std::process::ExitCode;

/// Which entries, and how.
#[derive(clap::Args)]
pub(super) struct Args {
    /// One code; all of them where it is left out
    code: Option<String>,
    /// The page docs/errors.md
    #[arg(long)]
    markdown: bool,
}

/// Prints the entries.
pub(super) fn run(args: &Args) -> ExitCode {
    if args.markdown {
        print!("{}", render::markdown());
        return super::DONE;
    }
    match args.code.as_deref() {
        None => {
            for code in Code::ALL {
                let entry = code.entry();
                println!("{:<42} {}", entry.slug, entry.sentence);
            }
            super::DONE
        }
        Some(slug) => match Code::from_slug(slug) {
            Some(code) => {
                print!("{}", render::entry(code.entry()));
                super::DONE
            }
            None => {
                let near = Code::ALL
                    .iter()
                    .map(|code| code.entry().slug)
                    .min_by_key(|known| strsim::damerau_levenshtein(slug, known))
                    .unwrap_or_default();
                eprintln!("error: there is no code {slug:?}: did you mean {near}?");
                super::wrong()
            }
        },
    }
}
