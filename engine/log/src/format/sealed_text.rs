//! Small records in text: a first line `MAGIC VERSION CRC32C`, then a body that the CRC covers.

use ringmill_reactor::Fs;
use std::io;
use std::path::Path;

pub(super) fn seal(magic: &str, version: u32, body: &str) -> String {
    format!("{magic} {version} {}\n{body}", crc32c::crc32c(body.as_bytes()))
}

/// The body; `None` for anything that [`seal`] did not write with that version, or not whole.
pub(super) fn open<'a>(magic: &str, version: u32, text: &'a str) -> Option<&'a str> {
    let (head, body) = text.split_once('\n')?;
    let (found, crc) = head.strip_prefix(magic)?.strip_prefix(' ')?.split_once(' ')?;
    let crc: u32 = crc.parse().ok().filter(|_| found == version.to_string())?;
    (crc == crc32c::crc32c(body.as_bytes())).then_some(body)
}

/// What to say of a record, `what` in words, that a newer version wrote.
pub(super) fn newer(what: &str, magic: &str, version: u32, text: &str) -> Option<String> {
    let found = text.lines().next()?.strip_prefix(magic)?.strip_prefix(' ')?.split(' ').next()?;
    let found: u32 = found.parse().ok().filter(|found| *found > version)?;
    Some(format!(
        "{what} in version {found}, where this version knows up to {version}; it was written by a newer version: run that"
    ))
}

/// Removes a record, if it is there. Were it to come back after a power cut, it would be applied to what has changed since.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn forget(fs: &dyn Fs, log_dir: &Path, name: &str) -> io::Result<()> {
    match fs.remove_file(&log_dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs.sync_dir(log_dir),
    }
}
