//! Deadlines in order, each of which can be taken back.

use crate::messages::Text;
use std::collections::BTreeMap;

/// Names one deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    at_ms: u64,
    serial: u64,
}

/// What happens at a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// No sign of life from a member, or from one that was given an id and did not come back with it.
    Member(Text, Text),
    /// No sign of life from a member of the consumer protocol.
    Consumer(Text, Text),
    /// A member that has not given up its partitions since this epoch.
    Revocation {
        group: Text,
        member: Text,
        epoch: i32,
    },
    /// An empty group's time for more members; the part that is left of its longest time.
    Initial {
        group: Text,
        delay_ms: u64,
        left_ms: u64,
    },
    /// Members that have not joined again by now are left behind.
    Join(Text),
    /// Members of this generation that have not asked for their assignment.
    Sync(Text, i32),
    Retention,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Due>,
    serial: u64,
}

impl Timers {
    pub fn add(&mut self, at_ms: u64, due: Due) -> TimerKey {
        self.serial += 1;
        let key = TimerKey { at_ms, serial: self.serial };
        self.due.insert(key, due);
        key
    }

    pub fn cancel(&mut self, key: Option<TimerKey>) {
        if let Some(key) = key {
            self.due.remove(&key);
        }
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.due.first_key_value().map(|(key, _)| key.at_ms)
    }

    pub fn take_due(&mut self, now_ms: u64) -> Option<Due> {
        let first = self.due.first_entry()?;
        (first.key().at_ms <= now_ms).then(|| first.remove())
    }
}
