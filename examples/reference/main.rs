//! Writes what is generated from the code: `make reference`, and the man pages of a release.
//!
//! ```text
//! reference docs ROOT    ROOT/docs/reference/*.md, ROOT/docs/errors.md and ROOT/exchequer.example.env
//! reference man DIR      a man page of each command
//! ```

mod pages;

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["docs", root] => {
            for (path, text) in pages::all() {
                let path = Path::new(root).join(path);
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(path, text)?;
            }
        }
        ["man", folder] => {
            fs::create_dir_all(folder)?;
            clap_mangen::generate_to(exchequer::cli::command(), folder)?;
        }
        _ => return Err("usage: reference docs ROOT | reference man DIR".into()),
    }
    Ok(())
}
