//! `core-N/given-up`: where the chain of groups goes on behind acked groups that cannot be read, because somebody accepted
//! that loss (`inspect/repair.rs`). Counts until the checkpoint is past it. Text, with a CRC of what follows its first line:
//!
//! ```text
//! ringmill-given-up 1 CRC32C
//! gap FIRST NEXT FILE POSITION PREV-HEADER-CRC
//! ```
//!
//! Where group FIRST cannot be replayed, group NEXT follows, at byte POSITION of core-log file FILE or where the chain goes
//! on when nothing more fits there. PREV-HEADER-CRC is what it says of the group before it.

use super::sealed_text;
use ringmill_reactor::Fs;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Name of the file in a core's folder.
pub const GIVEN_UP_NAME: &str = "given-up";
const MAGIC: &str = "ringmill-given-up";
pub const GIVEN_UP_VERSION: u32 = 1;

/// Groups `first..next` of the chain, passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    pub first: u64,
    pub next: u64,
    /// Number of the core-log file that holds group `next`, and where in it.
    pub file: u32,
    pub position: u64,
    /// Of group `next`.
    pub prev_header_crc: u32,
}

pub fn to_text(gaps: &[Gap]) -> String {
    let mut body = String::new();
    for gap in gaps {
        let Gap { first, next, file, position, prev_header_crc } = gap;
        let _ = writeln!(body, "gap {first} {next} {file} {position} {prev_header_crc}");
    }
    sealed_text::seal(MAGIC, GIVEN_UP_VERSION, &body)
}

/// `None` for anything that [`to_text`] did not write, or not whole.
pub fn parse(text: &str) -> Option<Vec<Gap>> {
    sealed_text::open(MAGIC, GIVEN_UP_VERSION, text)?.lines().map(parse_gap).collect()
}

fn parse_gap(line: &str) -> Option<Gap> {
    let words: Vec<&str> = line.strip_prefix("gap ")?.split(' ').collect();
    let [first, next, file, position, prev_header_crc] = words[..] else { return None };
    let gap = Gap {
        first: first.parse().ok()?,
        next: next.parse().ok()?,
        file: file.parse().ok()?,
        position: position.parse().ok()?,
        prev_header_crc: prev_header_crc.parse().ok()?,
    };
    (gap.first < gap.next).then_some(gap)
}

/// What to say of a record that a newer version wrote.
pub fn newer(text: &str) -> Option<String> {
    sealed_text::newer("a record of groups that were given up", MAGIC, GIVEN_UP_VERSION, text)
}

/// What was given up of a core's log. Nothing where the record cannot be read: the damage is found again then.
///
/// # Errors
/// Reads that fail.
pub fn read(fs: &dyn Fs, log_dir: &Path) -> io::Result<Vec<Gap>> {
    let path = log_dir.join(GIVEN_UP_NAME);
    if !fs.exists(&path) {
        return Ok(Vec::new());
    }
    let text = fs.read_all(&path)?;
    Ok(parse(&String::from_utf8_lossy(&text)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{check_golden, golden};

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_other_way() {
        let gaps = vec![
            Gap { first: 7, next: 8, file: 0, position: 8192, prev_header_crc: 0xdead_beef },
            Gap { first: 90, next: 123, file: 2, position: 0, prev_header_crc: 1 },
        ];
        let text = to_text(&gaps);
        check_golden("given-up-v1.txt", text.as_bytes());
        let golden = std::fs::read_to_string(golden("given-up-v1.txt")).unwrap();
        assert_eq!(parse(&golden), Some(gaps));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(parse(&String::from_utf8_lossy(&bytes)), None, "byte {at}");
            assert_eq!(parse(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(
            parse(&to_text(&[Gap { first: 7, next: 7, file: 0, position: 0, prev_header_crc: 0 }])),
            None,
            "it leads nowhere"
        );
        assert_eq!(newer(&text), None);
        assert!(newer(&text.replace("up 1 ", "up 2 ")).is_some_and(|what| what.contains("version 2")));
    }
}
