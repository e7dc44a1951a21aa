//! Members of the consumer protocol that join, leave, crash, stall and miss answers, a log that is slow and fails, a broker
//! that starts again: no partition is ever two members', and once things are calm every partition is somebody's.

use crate::rig::{Rig, config};
use proptest::prelude::*;
use ringmill_groups::*;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::{BTreeMap, BTreeSet};

const T: TopicId = TopicId([7; 16]);
const SESSION_MS: u64 = 45_000;
/// Longer than a session: a member put out for holding on could not know it, as in Kafka; one that is silent stops itself.
const REBALANCE_MS: i32 = 90_000;

#[derive(Clone, Debug)]
enum Act {
    /// A heartbeat: a joining one from a member that is not in. `lost`: its answer never arrives.
    Beat {
        client: usize,
        lost: bool,
    },
    Leave {
        client: usize,
    },
    /// The process is gone, without a word.
    Crash {
        client: usize,
    },
    Grow,
    Confirm,
    Fail,
    Pass {
        ms: u64,
    },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let client = 0..5usize;
    prop_oneof![
        20 => (client.clone(), prop::bool::weighted(0.1)).prop_map(|(client, lost)| Act::Beat { client, lost }),
        2 => client.clone().prop_map(|client| Act::Leave { client }),
        2 => client.prop_map(|client| Act::Crash { client }),
        1 => Just(Act::Grow),
        16 => Just(Act::Confirm),
        1 => Just(Act::Fail),
        4 => (0..20_000u64).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::Restart),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    ticket: Ticket,
    at_ms: u64,
    lost: bool,
}

/// A client as it sees itself. It has a partition from the answer that gave it to the heartbeat that says otherwise.
#[derive(Clone, Debug, Default)]
struct Client {
    lives: u32,
    epoch: i32,
    owned: BTreeSet<i32>,
    /// When it sent the last heartbeat that was answered: half a session later it stops by itself.
    heard_ms: u64,
    asked: Option<Asked>,
    /// Missed an answer: its next heartbeat says everything, which is how a client asks for its assignment.
    unsure: bool,
}

struct Story {
    rig: Rig,
    clients: Vec<Client>,
    partitions: i32,
}

impl Story {
    fn new() -> Story {
        let mut rig = Rig::new(config());
        rig.step(Event::Topics(vec![("t".into(), T, 6)]));
        rig.prompt = false;
        Story { rig, clients: vec![Client::default(); 5], partitions: 6 }
    }

    fn member(&self, client: usize) -> String {
        format!("m{client}-{}", self.clients[client].lives)
    }

    fn beat(&mut self, client: usize, lost: bool) {
        if self.clients[client].asked.is_some() {
            return;
        }
        let says_all = self.clients[client].epoch == 0 || self.clients[client].unsure;
        let owned = &self.clients[client].owned;
        let owned = if owned.is_empty() { Partitions::new() } else { Partitions::from([(T, owned.clone())]) };
        let beat = ConsumerBeat {
            group: "g".into(),
            member: self.member(client),
            epoch: self.clients[client].epoch,
            rebalance_timeout_ms: if says_all { REBALANCE_MS } else { -1 },
            topics: says_all.then(|| vec!["t".into()]),
            owned: Some(owned),
            id_required: true,
            ..ConsumerBeat::default()
        };
        let ticket = self.rig.ask(|t| Event::ConsumerBeat(t, beat));
        self.clients[client].asked = Some(Asked { ticket, at_ms: self.rig.now.mono_ms, lost });
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Beat { client, lost } => self.beat(client, lost),
            Act::Leave { client } if self.clients[client].epoch > 0 => {
                let member = self.member(client);
                let beat = ConsumerBeat { group: "g".into(), member, epoch: -1, ..ConsumerBeat::default() };
                self.rig.ask(|t| Event::ConsumerBeat(t, beat));
                self.reborn(client);
            }
            Act::Leave { .. } => {}
            Act::Crash { client } => self.reborn(client),
            Act::Grow => {
                self.partitions += 1;
                self.rig.step(Event::TopicsChanged(vec![("t".into(), T, self.partitions)]));
            }
            Act::Confirm if !self.rig.unwritten.is_empty() => self.rig.confirm(),
            Act::Fail if !self.rig.unwritten.is_empty() => self.rig.fail(),
            Act::Confirm | Act::Fail => {}
            Act::Pass { ms } => self.rig.pass(ms),
            Act::Restart => {
                self.rig.restart();
                self.rig.step(Event::Topics(vec![("t".into(), T, self.partitions)]));
                for client in &mut self.clients {
                    client.unsure |= client.asked.take().is_some();
                }
            }
        }
        self.read_answers();
        self.check();
    }

    fn reborn(&mut self, client: usize) {
        let lives = self.clients[client].lives + 1;
        self.clients[client] = Client { lives, ..Client::default() };
    }

    fn read_answers(&mut self) {
        let now_ms = self.rig.now.mono_ms;
        for client in 0..self.clients.len() {
            let Some(Asked { ticket, at_ms, lost }) = self.clients[client].asked else { continue };
            let Some(Answer::ConsumerBeat(answer)) = self.rig.answers.get(&ticket).cloned() else { continue };
            let c = &mut self.clients[client];
            c.asked = None;
            match answer {
                _ if lost => c.unsure = true,
                Ok(answer) => {
                    c.unsure = false;
                    c.heard_ms = at_ms;
                    c.epoch = answer.epoch;
                    if let Some(assignment) = answer.assignment {
                        c.owned = assignment.into_values().flatten().collect();
                    }
                }
                // It gives everything up, and joins again.
                Err(refused) if refused.code != ErrorCode::CoordinatorNotAvailable => {
                    c.epoch = 0;
                    c.owned.clear();
                }
                Err(_) => c.unsure = true,
            }
        }
        for c in &mut self.clients {
            if now_ms.saturating_sub(c.heard_ms) >= SESSION_MS / 2 {
                c.epoch = 0;
                c.owned.clear();
                // An answer that comes later still is for somebody it is no more.
                c.asked = None;
            }
        }
    }

    fn owners(&self) -> BTreeMap<i32, Vec<usize>> {
        let mut owners: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, client) in self.clients.iter().enumerate() {
            for partition in &client.owned {
                owners.entry(*partition).or_default().push(at);
            }
        }
        owners
    }

    fn check(&self) {
        for (partition, owners) in self.owners() {
            assert_eq!(owners.len(), 1, "partition {partition} is {owners:?}'s");
        }
    }

    fn end(mut self) {
        self.rig.prompt = true;
        self.rig.confirm_all();
        self.read_answers();
        // Members that are gone are forgotten; those that are there come to rest.
        for _ in 0..40 {
            for client in 0..3 {
                self.beat(client, false);
                self.read_answers();
                self.check();
            }
            self.rig.pass(3_000);
            self.read_answers();
        }
        assert_eq!(self.rig.groups.describe_consumers("g").map(|g| g.state), Some("Stable"));
        let all: BTreeSet<i32> = self.owners().into_keys().collect();
        assert_eq!(all, (0..self.partitions).collect(), "everything has an owner");
        assert_eq!(self.rig.open, [], "every request has its answer");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_owner_at_a_time_and_in_the_end_one_each(acts in prop::collection::vec(act(), 1..150)) {
        let mut story = Story::new();
        for act in acts {
            story.act(act);
        }
        story.end();
    }
}
