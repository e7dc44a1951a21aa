//! A place in a group as the client that has it sees it: what the stories of random members share.

use ringmill_groups::*;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// The topic that all of them read.
pub const T: TopicId = TopicId([7; 16]);
pub const SESSION_MS: u64 = 45_000;
/// Longer than a session: a member put out for holding on could not know it, as in Kafka; one that is silent stops itself.
pub const REBALANCE_MS: i32 = 90_000;

#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub ticket: Ticket,
    pub at_ms: u64,
    /// The answer never arrives.
    pub lost: bool,
}

/// It has a partition from the answer that gave it until it gives it up or loses its place.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    /// Or generation; 0 outside the group.
    pub epoch: i32,
    pub owned: BTreeSet<i32>,
    /// When it sent the last request that was answered: half a session later it stops by itself.
    pub heard_ms: u64,
    pub asked: Option<Asked>,
    /// Missed an answer: its next heartbeat says everything, which is how a client asks for its assignment.
    pub unsure: bool,
}

impl Seat {
    /// Its next heartbeat of the consumer protocol; a joining one when it is not in.
    pub fn beat(&self, member: String, instance: Option<String>) -> ConsumerBeat {
        let says_all = self.epoch == 0 || self.unsure;
        let owned = (!self.owned.is_empty()).then(|| (T, self.owned.clone()));
        ConsumerBeat {
            group: "g".into(),
            member,
            epoch: self.epoch,
            instance,
            rebalance_timeout_ms: if says_all { REBALANCE_MS } else { -1 },
            topics: says_all.then(|| vec!["t".into()]),
            owned: Some(owned.into_iter().collect()),
            id_required: true,
            ..ConsumerBeat::default()
        }
    }

    /// Whether the answer is one that its session counts from.
    pub fn hears_beat(&mut self, answer: Result<ConsumerAnswer, Refused>) -> bool {
        match answer {
            Ok(answer) => {
                self.unsure = false;
                self.epoch = answer.epoch;
                if let Some(assignment) = answer.assignment {
                    self.owned = assignment.into_values().flatten().collect();
                }
                true
            }
            Err(refused) if refused.code == ErrorCode::CoordinatorNotAvailable => {
                self.unsure = true;
                false
            }
            // It gives everything up, and joins again.
            Err(_) => {
                self.lose();
                false
            }
        }
    }

    /// Its place is gone, and with it what it had.
    pub fn lose(&mut self) {
        self.epoch = 0;
        self.owned.clear();
    }

    /// It heard nothing for so long that it gives its place up by itself.
    pub fn is_over(&self, now_ms: u64) -> bool {
        let has_place = self.epoch > 0 || !self.owned.is_empty();
        has_place && now_ms.saturating_sub(self.heard_ms) >= SESSION_MS / 2
    }
}

/// Who has each partition.
pub fn owners<'a>(seats: impl Iterator<Item = &'a Seat>) -> BTreeMap<i32, Vec<usize>> {
    let mut owners: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, seat) in seats.enumerate() {
        for partition in &seat.owned {
            owners.entry(*partition).or_default().push(at);
        }
    }
    owners
}
