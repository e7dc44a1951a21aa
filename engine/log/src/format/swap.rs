//! `core-N/swap`: the record of a compaction whose segments take the place of old ones (`compaction.rs`). Text, with a CRC of
//! what follows its first line:
//!
//! ```text
//! ringmill-swap 1 CRC32C
//! partition ID
//! group BASE,BASE,… BASE BYTES MAX-TIMESTAMP OFFSET-OF-MAX CREATED INDEX-ENTRIES TIME-ENTRIES
//! group BASE,BASE,…
//! ```
//!
//! A group names the old segments; behind them stands the new one, if records are left.

use super::sealed_text;
use crate::compact::{Group, Output};
use ringmill_types::{Offset, PartitionId};
use std::fmt::Write as _;

/// Name of the file in a core's folder.
pub const SWAP_NAME: &str = "swap";
const SWAP_MAGIC: &str = "ringmill-swap";
pub const SWAP_VERSION: u32 = 1;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapRecord {
    pub partition: PartitionId,
    pub groups: Vec<Group>,
}

impl SwapRecord {
    pub fn to_text(&self) -> String {
        let mut body = format!("partition {}\n", self.partition.0);
        for group in &self.groups {
            let sources: Vec<String> = group.sources.iter().map(|base| base.0.to_string()).collect();
            let _ = write!(body, "group {}", sources.join(","));
            if let Some(o) = &group.output {
                let times = (o.max_timestamp_ms, o.offset_of_max.0, o.created_ms);
                let _ = write!(body, " {} {} {} {} {}", o.base.0, o.bytes, times.0, times.1, times.2);
                let _ = write!(body, " {} {}", o.index_entries, o.time_entries);
            }
            body.push('\n');
        }
        sealed_text::seal(SWAP_MAGIC, SWAP_VERSION, &body)
    }

    /// `None` for anything that was not written by [`to_text`](Self::to_text), or not whole.
    pub fn parse(text: &str) -> Option<SwapRecord> {
        let mut lines = sealed_text::open(SWAP_MAGIC, SWAP_VERSION, text)?.lines();
        let partition = PartitionId(lines.next()?.strip_prefix("partition ")?.parse().ok()?);
        Some(SwapRecord { partition, groups: lines.map(parse_group).collect::<Option<_>>()? })
    }
}

/// What to say of a record that a newer version wrote.
pub fn newer(text: &str) -> Option<String> {
    sealed_text::newer("a record of a compaction", SWAP_MAGIC, SWAP_VERSION, text)
}

fn parse_group(line: &str) -> Option<Group> {
    let mut words = line.strip_prefix("group ")?.split(' ');
    let sources =
        words.next()?.split(',').map(|base| base.parse().ok().map(Offset)).collect::<Option<_>>()?;
    let words: Vec<&str> = words.collect();
    let output = match words[..] {
        [] => None,
        [base, bytes, max, at, created, index, times] => Some(Output {
            base: Offset(base.parse().ok()?),
            bytes: bytes.parse().ok()?,
            max_timestamp_ms: max.parse().ok()?,
            offset_of_max: Offset(at.parse().ok()?),
            created_ms: created.parse().ok()?,
            index_entries: index.parse().ok()?,
            time_entries: times.parse().ok()?,
        }),
        _ => return None,
    };
    Some(Group { sources, output })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_golden, golden_text};

    fn sample() -> SwapRecord {
        let output = Output {
            base: Offset(7),
            bytes: 100,
            max_timestamp_ms: -1,
            offset_of_max: Offset(9),
            created_ms: 5,
            index_entries: 1,
            time_entries: 2,
        };
        let groups = vec![
            Group { sources: vec![Offset(7), Offset(20)], output: Some(output) },
            Group { sources: vec![Offset(30)], output: None },
        ];
        SwapRecord { partition: PartitionId(3), groups }
    }

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        check_golden("swap-v1.txt", sample().to_text().as_bytes());
        assert_eq!(SwapRecord::parse(&golden_text("swap-v1.txt")), Some(sample()));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_other_way() {
        let record = sample();
        let text = record.to_text();
        assert_eq!(SwapRecord::parse(&text), Some(record));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(SwapRecord::parse(&String::from_utf8_lossy(&bytes)), None, "byte {at}");
            assert_eq!(SwapRecord::parse(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(newer(&text), None);
        for newer_text in
            [&text.replace("swap 1 ", "swap 12 "), "ringmill-swap 12", "ringmill-swap 12 and more\n\n"]
        {
            assert!(newer(newer_text).is_some_and(|what| what.contains("version 12")), "{newer_text}");
        }
    }
}
