//! Leader epochs of one partition: which leadership began at which offset (KIP-101).
//!
//! Pure state, owned by the partition's core. Entries grow strictly in epoch and in offset. Rules are those of Kafka's
//! `LeaderEpochFileCache`; the text form is its `leader-epoch-checkpoint` file. Never decides who leads.

use ringmill_types::{LeaderEpoch, Offset};
use std::fmt;

/// What Kafka answers for "no such epoch" and "no such offset".
pub const UNDEFINED: (LeaderEpoch, Offset) = (LeaderEpoch(-1), Offset(-1));

/// A file that claims more entries is refused before it is read: one leadership change a second for a year is fewer.
const ENTRIES_MAX: usize = 1 << 25;

/// Epochs and the first offset of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

/// Why the text of a `leader-epoch-checkpoint` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochsError {
    Version,
    Count,
    Line(usize),
}

impl fmt::Display for EpochsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EpochsError::Version => f.write_str("the first line is not version 0"),
            EpochsError::Count => f.write_str("the number of entries is not the one in line 2"),
            EpochsError::Line(line) => write!(f, "line {line} is not `EPOCH START-OFFSET`, both growing"),
        }
    }
}

impl std::error::Error for EpochsError {}

impl EpochCache {
    /// From entries in any order; those that break the order are dropped as [`EpochCache::assign`] would.
    pub fn from_entries(entries: impl IntoIterator<Item = (LeaderEpoch, Offset)>) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start) in entries {
            cache.assign(epoch, start);
        }
        cache
    }

    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    pub fn latest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.last().copied()
    }

    /// The epoch that `offset` was written under.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        self.entries.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// `epoch` begins at `start`. Entries that are not before it in both are dropped: the newer knowledge wins.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch.0 < 0 || start.0 < 0 {
            return;
        }
        if let Some((latest, latest_start)) = self.latest()
            && latest == epoch
            && start >= latest_start
        {
            return;
        }
        while self.latest().is_some_and(|(latest, latest_start)| latest >= epoch || latest_start >= start) {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
    }

    /// OffsetForLeaderEpoch: the largest known epoch at or below `requested`, and the offset after its last record.
    pub fn end_offset(&self, requested: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        if requested.0 < 0 {
            return UNDEFINED;
        }
        if self.latest().is_some_and(|(latest, _)| latest == requested) {
            return (requested, log_end);
        }
        let higher = self.entries.partition_point(|(epoch, _)| *epoch <= requested);
        let Some((_, end)) = self.entries.get(higher) else { return UNDEFINED };
        let floor = higher.checked_sub(1).and_then(|at| self.entries.get(at));
        (floor.map_or(requested, |(epoch, _)| *epoch), *end)
    }

    /// Records from `end` on are gone.
    pub fn truncate_end(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// Records before `start` are gone: the epoch that holds `start` begins there now.
    pub fn truncate_start(&mut self, start: Offset) {
        let below = self.entries.partition_point(|(_, from)| *from <= start);
        if below == 0 {
            return;
        }
        self.entries.drain(..below - 1);
        if let Some(first) = self.entries.first_mut() {
            first.1 = start;
        }
    }

    /// Kafka's text: version 0, the count, a line each.
    pub fn to_text(&self) -> String {
        use fmt::Write;
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            writeln!(text, "{epoch} {start}").expect("writing to a String does not fail");
        }
        text
    }

    /// Reads Kafka's text.
    ///
    /// # Errors
    /// [`EpochsError`].
    pub fn from_text(text: &str) -> Result<EpochCache, EpochsError> {
        let mut lines = text.lines();
        if lines.next().map(str::trim) != Some("0") {
            return Err(EpochsError::Version);
        }
        let count = lines.next().and_then(|l| l.trim().parse::<usize>().ok()).filter(|c| *c <= ENTRIES_MAX);
        let count = count.ok_or(EpochsError::Count)?;
        let mut cache = EpochCache::default();
        for (line, text) in (3..).zip(lines.filter(|l| !l.trim().is_empty())) {
            let entry = entry_of(text).ok_or(EpochsError::Line(line))?;
            if cache.latest().is_some_and(|last| last.0 >= entry.0 || last.1 >= entry.1) {
                return Err(EpochsError::Line(line));
            }
            cache.entries.push(entry);
        }
        if cache.entries.len() != count {
            return Err(EpochsError::Count);
        }
        Ok(cache)
    }
}

fn entry_of(line: &str) -> Option<(LeaderEpoch, Offset)> {
    let (epoch, start) = line.trim().split_once(' ')?;
    let (epoch, start) = (epoch.parse::<i32>().ok()?, start.trim().parse::<i64>().ok()?);
    (epoch >= 0 && start >= 0).then_some((LeaderEpoch(epoch), Offset(start)))
}
