//! `core-N/compacted-to`: up to which offset all records of a partition were compared with all others (`compaction.rs`). Text,
//! a line per partition, by id:
//!
//! ```text
//! PARTITION-ID OFFSET
//! ```
//!
//! A hint, without a number of its own: what cannot be read of it costs a pass that compares everything again.

use ringmill_types::{Offset, PartitionId};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Name of the file in a core's folder.
pub const COMPACTED_TO_NAME: &str = "compacted-to";

pub fn to_text(offsets: &BTreeMap<PartitionId, Offset>) -> String {
    let mut text = String::new();
    for (id, offset) in offsets {
        let _ = writeln!(text, "{} {}", id.0, offset.0);
    }
    text
}

/// What lines of it say; those that are none are passed over.
pub fn parse(text: &str) -> BTreeMap<PartitionId, Offset> {
    let line = |line: &str| {
        let (id, offset) = line.split_once(' ')?;
        Some((PartitionId(id.parse().ok()?), Offset(offset.parse().ok()?)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_golden, golden_text};

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        let offsets = [(3, 0), (11, 1234), (u64::MAX, i64::MAX)];
        let offsets = offsets.map(|(id, offset)| (PartitionId(id), Offset(offset))).into();
        check_golden("compacted-to-v1.txt", to_text(&offsets).as_bytes());
        assert_eq!(parse(&golden_text("compacted-to-v1.txt")), offsets);
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let text = "5 7\nhalf\n6\n7 x\n-1 8\n\n 9 9\n10 11";
        let said = [(5, 7), (10, 11)].map(|(id, offset)| (PartitionId(id), Offset(offset)));
        assert_eq!(parse(text), said.into());
    }
}
