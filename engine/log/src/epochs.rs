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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        EpochCache::from_entries(entries.iter().map(|(e, s)| (LeaderEpoch(*e), Offset(*s))))
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let cache = cache(&[(2, 10), (5, 40), (7, 90)]);
        let end = |epoch| cache.end_offset(LeaderEpoch(epoch), Offset(100));
        assert_eq!(end(-1), UNDEFINED);
        assert_eq!(
            end(1),
            (LeaderEpoch(1), Offset(10)),
            "older than all: the requested epoch and the first start"
        );
        assert_eq!(end(2), (LeaderEpoch(2), Offset(40)));
        assert_eq!(end(4), (LeaderEpoch(2), Offset(40)), "the one below it");
        assert_eq!(end(5), (LeaderEpoch(5), Offset(90)));
        assert_eq!(end(7), (LeaderEpoch(7), Offset(100)), "the newest ends at the log's end");
        assert_eq!(end(8), UNDEFINED);
        assert_eq!(EpochCache::default().end_offset(LeaderEpoch(0), Offset(0)), UNDEFINED);
    }

    #[test]
    fn newer_knowledge_replaces_what_contradicts_it() {
        let mut epochs = cache(&[(1, 0), (2, 10), (3, 20)]);
        epochs.assign(LeaderEpoch(3), Offset(25));
        assert_eq!(epochs, cache(&[(1, 0), (2, 10), (3, 20)]), "an epoch keeps its first offset");
        epochs.assign(LeaderEpoch(3), Offset(15));
        assert_eq!(epochs, cache(&[(1, 0), (2, 10), (3, 15)]));
        epochs.assign(LeaderEpoch(4), Offset(5));
        assert_eq!(epochs, cache(&[(1, 0), (4, 5)]));
        epochs.assign(LeaderEpoch(-1), Offset(9));
        assert_eq!(epochs, cache(&[(1, 0), (4, 5)]), "batches of old formats have epoch -1");
    }

    #[test]
    fn truncation_keeps_the_epoch_that_holds_the_start() {
        let mut epochs = cache(&[(1, 0), (2, 10), (3, 20)]);
        epochs.truncate_start(Offset(12));
        assert_eq!(epochs, cache(&[(2, 12), (3, 20)]));
        epochs.truncate_start(Offset(20));
        assert_eq!(epochs, cache(&[(3, 20)]));
        let mut epochs = cache(&[(1, 0), (2, 10), (3, 20)]);
        epochs.truncate_end(Offset(20));
        assert_eq!(epochs, cache(&[(1, 0), (2, 10)]));
        assert_eq!(epochs.epoch_of(Offset(9)), Some(LeaderEpoch(1)));
        assert_eq!(epochs.epoch_of(Offset(10)), Some(LeaderEpoch(2)));
    }

    #[test]
    fn text_is_kafkas() {
        let kafkas = crate::testing::golden_text("kafka-4.3.1/plain-0/leader-epoch-checkpoint");
        assert_eq!(EpochCache::from_text(&kafkas).unwrap(), cache(&[(0, 0)]));
        assert_eq!(cache(&[(0, 0)]).to_text(), kafkas);
        assert_eq!(cache(&[(0, 0), (4, 1234)]).to_text(), "0\n2\n0 0\n4 1234\n");
        let refused = |text: &str| EpochCache::from_text(text).unwrap_err();
        assert_eq!(refused("1\n0\n"), EpochsError::Version);
        assert_eq!(refused("0\n2\n0 0\n"), EpochsError::Count);
        assert_eq!(refused("0\n99999999999999\n"), EpochsError::Count);
        assert_eq!(refused("0\n2\n1 5\n0 9\n"), EpochsError::Line(4));
        assert_eq!(refused("0\n1\nx 5\n"), EpochsError::Line(3));
    }

    proptest! {
        #[test]
        fn order_always_holds_and_text_comes_back(steps in proptest::collection::vec((0i32..20, 0i64..200, 0u8..8), 0..60)) {
            let mut epochs = EpochCache::default();
            for (epoch, offset, what) in steps {
                match what {
                    0 => epochs.truncate_end(Offset(offset)),
                    1 => epochs.truncate_start(Offset(offset)),
                    _ => epochs.assign(LeaderEpoch(epoch), Offset(offset)),
                }
                prop_assert!(epochs.entries().windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
                prop_assert_eq!(&EpochCache::from_text(&epochs.to_text()).unwrap(), &epochs);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9 \\n-]{0,80}") {
            let _ = EpochCache::from_text(&text);
        }
    }
}
