//! Small records in text: a first line `MAGIC VERSION CRC32C`, then a body that the CRC covers.

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

/// The version of a record that a newer program wrote.
pub(super) fn newer_version(magic: &str, version: u32, text: &str) -> Option<u32> {
    let found = text.lines().next()?.strip_prefix(magic)?.strip_prefix(' ')?.split(' ').next()?;
    found.parse().ok().filter(|found| *found > version)
}
