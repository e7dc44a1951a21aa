//! Files that a command leaves: never written over unless that was asked for, and refused before anything is measured.

use crate::exit::{Code, Failed};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Says no before anything is measured.
///
/// # Errors
/// Code 2 where the file is there and not to be overwritten, or its folder is not.
pub fn refuse_overwriting(path: &Path, force: bool) -> Result<(), Failed> {
    if path.exists() && !force {
        let why = format!("{} exists already; --force overwrites it", path.display());
        return Err(Failed::new(Code::Usage, why));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if parent.is_some_and(|parent| !parent.is_dir()) {
        return Err(Failed::new(Code::Usage, format!("{}: there is no such folder", path.display())));
    }
    Ok(())
}

/// Writes a file that must not be there yet, unless forced.
///
/// # Errors
/// A sentence with the path.
pub fn save(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failed> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let saved = options.open(path).and_then(|mut file| file.write_all(bytes));
    saved.map_err(|error| Failed::local(path.display(), &error))
}
