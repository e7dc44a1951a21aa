//! Members of the consumer protocol that join, leave, crash, stall and miss answers, a log that is slow and fails, a broker
//! that starts again: no partition is ever two members', and once things are calm every partition is somebody's.

use crate::rig::{Rig, config};
use crate::seat::{Asked, Seat, T, owners};
use proptest::prelude::*;
use ringmill_groups::*;
use std::collections::{BTreeMap, BTreeSet};

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

#[derive(Clone, Debug, Default)]
struct Client {
    lives: u32,
    seat: Seat,
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
        if self.clients[client].seat.asked.is_some() {
            return;
        }
        let beat = self.clients[client].seat.beat(self.member(client), None);
        let ticket = self.rig.ask(|t| Event::ConsumerBeat(t, beat));
        self.clients[client].seat.asked = Some(Asked { ticket, at_ms: self.rig.now.mono_ms, lost });
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Beat { client, lost } => self.beat(client, lost),
            Act::Leave { client } if self.clients[client].seat.epoch > 0 => {
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
                for Client { seat, .. } in &mut self.clients {
                    seat.unsure |= seat.asked.take().is_some();
                }
            }
        }
        self.read_answers();
        self.check();
    }

    fn reborn(&mut self, client: usize) {
        let lives = self.clients[client].lives + 1;
        self.clients[client] = Client { lives, seat: Seat::default() };
    }

    fn read_answers(&mut self) {
        let now_ms = self.rig.now.mono_ms;
        for Client { seat, .. } in &mut self.clients {
            let Some(Asked { ticket, at_ms, lost }) = seat.asked else { continue };
            let Some(Answer::ConsumerBeat(answer)) = self.rig.answers.get(&ticket).cloned() else { continue };
            seat.asked = None;
            if lost {
                seat.unsure = true;
            } else if seat.hears_beat(answer) {
                seat.heard_ms = at_ms;
            }
        }
        for Client { seat, .. } in self.clients.iter_mut().filter(|client| client.seat.is_over(now_ms)) {
            seat.lose();
            // An answer that comes later still is for somebody it is no more.
            seat.asked = None;
        }
    }

    fn owners(&self) -> BTreeMap<i32, Vec<usize>> {
        owners(self.clients.iter().map(|client| &client.seat))
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
