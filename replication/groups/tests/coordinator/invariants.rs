//! Whatever happens in whatever order: one answer per request, one generation at a time, durable offsets that stay.

use crate::rig::{Promises, Rig, config, join_of};
use proptest::prelude::*;
use ringmill_groups::{Answer, Event, Join, State, Ticket};
use ringmill_types::ErrorCode;

#[derive(Clone, Debug)]
enum Act {
    Join { client: usize, id_first: bool },
    Sync { client: usize },
    Beat { client: usize },
    Leave { client: usize },
    Commit { client: usize },
    Delete,
    Confirm,
    Fail,
    Pass { ms: u64 },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let client = 0..4usize;
    prop_oneof![
        6 => (client.clone(), any::<bool>()).prop_map(|(client, id_first)| Act::Join { client, id_first }),
        6 => client.clone().prop_map(|client| Act::Sync { client }),
        4 => client.clone().prop_map(|client| Act::Beat { client }),
        2 => client.clone().prop_map(|client| Act::Leave { client }),
        4 => client.prop_map(|client| Act::Commit { client }),
        1 => Just(Act::Delete),
        8 => Just(Act::Confirm),
        1 => Just(Act::Fail),
        3 => (0..20_000u64).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::Restart),
    ]
}

/// A client as the coordinator made it; clients 0 and 1 are static.
#[derive(Clone, Debug, Default)]
struct Client {
    id: String,
    generation: i32,
    /// The newest that it was told since the broker started, or the group was deleted.
    newest_generation: i32,
    leads: bool,
    roll: Vec<String>,
    asked: Option<Ticket>,
}

struct Story {
    rig: Rig,
    clients: Vec<Client>,
    promises: Promises,
}

impl Story {
    fn new() -> Story {
        let mut rig = Rig::new(config());
        rig.prompt = false;
        Story { rig, clients: vec![Client::default(); 4], promises: Promises::default() }
    }

    fn join(&self, client: usize, id_first: bool) -> Join {
        Join {
            instance: (client < 2).then(|| format!("i{client}")),
            member_id_required: id_first,
            ..join_of("g", &self.clients[client].id)
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Join { client, id_first } => {
                let join = self.join(client, id_first);
                let ticket = self.rig.join(join);
                self.clients[client].asked = Some(ticket);
            }
            Act::Sync { client } => {
                let Client { id, generation, leads, roll, .. } = self.clients[client].clone();
                let given: Vec<(&str, &str)> = roll.iter().map(|m| (m.as_str(), m.as_str())).collect();
                self.rig.sync("g", &id, generation, if leads { &given } else { &[] });
            }
            Act::Beat { client } => {
                let Client { id, generation, .. } = self.clients[client].clone();
                self.rig.beat("g", &id, generation);
            }
            Act::Leave { client } => {
                let id = self.clients[client].id.clone();
                self.rig.leave("g", &id, None);
            }
            Act::Commit { client } => {
                let Client { id, generation, .. } = self.clients[client].clone();
                let ticket = self.rig.commit("g", &id, generation, self.promises.next());
                self.promises.await_answer(ticket);
            }
            Act::Delete => {
                self.rig.ask(|t| Event::DeleteGroups(t, vec!["g".into()]));
                if self.rig.state("g").is_none() {
                    self.promises.write_off();
                    self.clients.iter_mut().for_each(|client| client.newest_generation = 0);
                }
            }
            Act::Confirm if !self.rig.unwritten.is_empty() => self.rig.confirm(),
            Act::Fail if !self.rig.unwritten.is_empty() && !self.deleting() => self.rig.fail(),
            Act::Confirm | Act::Fail => {}
            Act::Pass { ms } => self.rig.pass(ms),
            Act::Restart => {
                // What was in the log's way is lost with the process, and so are the connections.
                if self.deleting() {
                    self.rig.confirm_all();
                    self.read_answers();
                }
                self.rig.restart();
                self.promises.lose_answers();
                self.clients.iter_mut().for_each(|client| client.newest_generation = 0);
            }
        }
        self.read_answers();
        self.check();
    }

    /// A failed deletion would bring back what the story has written off.
    fn deleting(&self) -> bool {
        self.rig.unwritten.iter().any(|w| w.records.iter().any(|(_, value)| value.is_none()))
    }

    fn read_answers(&mut self) {
        self.promises.read_answers(&self.rig);
        for client in &mut self.clients {
            let Some(Answer::Join(answer)) = client.asked.and_then(|t| self.rig.answers.get(&t)) else {
                continue;
            };
            client.asked = None;
            match answer.error {
                ErrorCode::None => {
                    client.id = answer.member.to_string();
                    client.generation = answer.generation;
                    client.leads = answer.leader == answer.member;
                    client.roll = answer.members.iter().map(|m| m.member.to_string()).collect();
                    // Of one member: another's answer may have waited for the disk while generations went on.
                    assert!(answer.generation >= client.newest_generation, "generations do not go back");
                    client.newest_generation = answer.generation;
                }
                ErrorCode::MemberIdRequired => client.id = answer.member.to_string(),
                ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => client.id.clear(),
                _ => {}
            }
        }
    }

    fn check(&self) {
        self.promises.check(&self.rig);
        if let Some(group) = self.rig.groups.describe("g") {
            assert_eq!(
                group.members.is_empty() && group.state != State::PreparingRebalance,
                group.state == State::Empty
            );
        }
    }

    /// Left alone for long, with a log that works, every request has its answer.
    fn end(mut self) {
        self.rig.confirm_all();
        for _ in 0..4 {
            self.rig.pass(310_000);
            self.rig.confirm_all();
        }
        assert_eq!(self.rig.open, []);
        assert_eq!(self.rig.groups.writes_under_way(), 0);
        self.read_answers();
        self.rig.restart();
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold(acts in prop::collection::vec(act(), 1..120)) {
        let mut story = Story::new();
        for act in acts {
            story.act(act);
        }
        story.end();
    }
}
