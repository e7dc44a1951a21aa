//! One group, members of both protocols: they join, leave, crash, come back with the other protocol, stall and miss answers,
//! while the log is slow and fails and the broker starts again. The group goes over and back as they come and go. No
//! partition is ever two members', no offset that was promised is lost, and once things are calm every partition is
//! somebody's.

use crate::rig::{Promises, Rig, config, join_of};
use crate::seat::{Asked, REBALANCE_MS, SESSION_MS, Seat, T, owners};
use bytes::Bytes;
use proptest::prelude::*;
use ringmill_groups::*;
use ringmill_types::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 5;

fn put_partitions(out: &mut Vec<u8>, partitions: &[i32]) {
    let topics = i32::from(!partitions.is_empty());
    out.extend_from_slice(&topics.to_be_bytes());
    if topics > 0 {
        out.extend_from_slice(b"\0\x01t");
        out.extend_from_slice(&(partitions.len() as i32).to_be_bytes());
        partitions.iter().for_each(|p| out.extend_from_slice(&p.to_be_bytes()));
    }
}

/// What a consumer says in the classic protocol: version 1 of the embedded one, with partitions of topic t that it has.
pub fn subscription(topics: &[&str], owned: &[i32]) -> Bytes {
    let mut out = vec![0, 1];
    out.extend_from_slice(&(topics.len() as i32).to_be_bytes());
    for topic in topics {
        out.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
    }
    out.extend_from_slice(&(-1i32).to_be_bytes());
    put_partitions(&mut out, owned);
    out.into()
}

/// Partitions of topic t, as a leader gives them.
pub fn assignment(partitions: &[i32]) -> Bytes {
    let mut out = vec![0, 1];
    put_partitions(&mut out, partitions);
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.into()
}

fn partitions_at(bytes: &[u8], at: usize) -> Vec<i32> {
    let number = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    if bytes.is_empty() || number(at) == 0 {
        return Vec::new();
    }
    assert_eq!(&bytes[at + 4..at + 7], b"\0\x01t");
    (0..number(at + 7) as usize).map(|p| number(at + 11 + 4 * p)).collect()
}

pub fn assigned(assignment: &[u8]) -> Vec<i32> {
    partitions_at(assignment, 2)
}

/// Of a subscription to t.
fn owned(subscription: &[u8]) -> Vec<i32> {
    partitions_at(subscription, 2 + 4 + 3 + 4)
}

pub fn classic_of(group: &str, member: &str, owned: &[i32]) -> Join {
    Join { protocols: vec![("coop".into(), subscription(&["t"], owned))], ..join_of(group, member) }
}

#[derive(Clone, Debug)]
enum Act {
    /// What the client does next. `lost`: its answer never arrives.
    Go {
        client: usize,
        lost: bool,
    },
    /// It says that it goes, and starts again with this protocol.
    Leave {
        client: usize,
        then: Protocol,
    },
    /// It says nothing.
    Crash {
        client: usize,
        then: Protocol,
    },
    Commit {
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
    let client = 0..CLIENTS;
    // More of the classic protocol: one member of the other is enough for a group to go over, and all have to be gone to go back.
    let then = prop_oneof![4 => Just(Protocol::Classic), 1 => Just(Protocol::Consumer)];
    prop_oneof![
        30 => (client.clone(), prop::bool::weighted(0.1)).prop_map(|(client, lost)| Act::Go { client, lost }),
        2 => (client.clone(), then.clone()).prop_map(|(client, then)| Act::Leave { client, then }),
        2 => (client.clone(), then).prop_map(|(client, then)| Act::Crash { client, then }),
        4 => client.prop_map(|client| Act::Commit { client }),
        1 => Just(Act::Grow),
        24 => Just(Act::Confirm),
        1 => Just(Act::Fail),
        4 => (0..20_000u64).prop_map(|ms| Act::Pass { ms }),
        2 => Just(Act::Restart),
    ]
}

/// What a client of the classic protocol does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Join,
    Sync,
    Beat,
}

#[derive(Clone, Debug)]
struct Client {
    speaks: Protocol,
    lives: u32,
    seat: Seat,
    /// Of the classic protocol, as all that follows; the other one makes its own.
    id: String,
    next: Next,
    /// Of a leader: what members said, and how many partitions there were.
    roll: Vec<JoinedMember>,
    led: Option<i32>,
}

impl Client {
    fn new(speaks: Protocol, lives: u32) -> Client {
        Client {
            speaks,
            lives,
            seat: Seat::default(),
            id: String::new(),
            next: Next::Join,
            roll: Vec::new(),
            led: None,
        }
    }

    /// Its place is lost, and with it what it had.
    fn out(&mut self) {
        self.seat.lose();
        self.next = Next::Join;
        self.led = None;
    }
}

struct Story {
    rig: Rig,
    clients: Vec<Client>,
    partitions: i32,
    promises: Promises,
}

/// Client 0 is a static member.
fn instance(client: usize) -> Option<String> {
    (client == 0).then(|| "i".to_string())
}

/// Older consumers give everything up before they join.
fn is_eager(client: usize) -> bool {
    client % 2 == 1
}

impl Story {
    fn new(speak: &[Protocol]) -> Story {
        let mut rig = Rig::new(config());
        rig.step(Event::Topics(vec![("t".into(), T, 6)]));
        rig.prompt = false;
        Story {
            rig,
            clients: speak.iter().map(|speaks| Client::new(*speaks, 0)).collect(),
            partitions: 6,
            promises: Promises::default(),
        }
    }

    fn member(&self, client: usize) -> String {
        match self.clients[client].speaks {
            Protocol::Consumer => format!("m{client}-{}", self.clients[client].lives),
            Protocol::Classic => self.clients[client].id.clone(),
        }
    }

    fn go(&mut self, client: usize, lost: bool) {
        if self.clients[client].seat.asked.is_some() {
            return;
        }
        let ticket = match self.clients[client].speaks {
            Protocol::Consumer => self.beat(client),
            Protocol::Classic => self.classic(client),
        };
        self.clients[client].seat.asked = Some(Asked { ticket, at_ms: self.rig.now.mono_ms, lost });
    }

    fn beat(&mut self, client: usize) -> Ticket {
        let beat = self.clients[client].seat.beat(self.member(client), instance(client));
        self.rig.ask(|t| Event::ConsumerBeat(t, beat))
    }

    fn classic(&mut self, client: usize) -> Ticket {
        let partitions = self.partitions;
        let c = &mut self.clients[client];
        if c.next == Next::Beat && c.led.is_some_and(|count| count != partitions) {
            c.next = Next::Join;
        }
        let (group, member, generation) = ("g".to_string(), c.id.clone(), c.seat.epoch);
        match c.next {
            Next::Join => {
                if is_eager(client) {
                    c.seat.owned.clear();
                }
                let owned: Vec<i32> = c.seat.owned.iter().copied().collect();
                let join = Join {
                    instance: instance(client),
                    session_timeout_ms: SESSION_MS as i32,
                    rebalance_timeout_ms: REBALANCE_MS,
                    member_id_required: true,
                    ..classic_of("g", &member, &owned)
                };
                self.rig.join(join)
            }
            Next::Sync => {
                let roll = std::mem::take(&mut c.roll);
                let assignments = led(&roll, partitions);
                let sync = Sync {
                    group,
                    member,
                    generation,
                    instance: instance(client),
                    assignments,
                    ..Sync::default()
                };
                self.rig.ask(|t| Event::Sync(t, sync))
            }
            Next::Beat => {
                let beat = Heartbeat { group, member, generation, instance: instance(client) };
                self.rig.ask(|t| Event::Heartbeat(t, beat))
            }
        }
    }

    fn leave(&mut self, client: usize) {
        let (member, is_in) = (self.member(client), self.clients[client].seat.epoch > 0);
        match self.clients[client].speaks {
            Protocol::Consumer if is_in => {
                let instance = instance(client);
                let epoch = if instance.is_some() { -2 } else { -1 };
                let beat =
                    ConsumerBeat { group: "g".into(), member, epoch, instance, ..ConsumerBeat::default() };
                self.rig.ask(|t| Event::ConsumerBeat(t, beat));
            }
            // A static member of the classic protocol goes without a word.
            Protocol::Classic if is_in && instance(client).is_none() => {
                let who = Identity { member, instance: None };
                let leave = Leave { group: "g".into(), members: vec![who] };
                self.rig.ask(|t| Event::Leave(t, leave));
            }
            Protocol::Classic | Protocol::Consumer => {}
        }
    }

    fn reborn(&mut self, client: usize, speaks: Protocol) {
        self.clients[client] = Client::new(speaks, self.clients[client].lives + 1);
    }

    fn commit(&mut self, client: usize) {
        let c = &self.clients[client];
        if c.seat.epoch <= 0 {
            return;
        }
        let one = CommitOffset {
            topic: "t".into(),
            topic_id: T,
            partition: 0,
            offset: self.promises.next(),
            leader_epoch: -1,
            metadata: String::new(),
        };
        let commit = Commit {
            group: "g".into(),
            member: self.member(client),
            instance: instance(client),
            generation: c.seat.epoch,
            knows_epochs: c.speaks == Protocol::Consumer,
            offsets: vec![one],
            ..Commit::default()
        };
        let ticket = self.rig.ask(|t| Event::Commit(t, commit));
        self.promises.await_answer(ticket);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Go { client, lost } => self.go(client, lost),
            Act::Leave { client, then } => {
                self.leave(client);
                self.reborn(client, then);
            }
            Act::Crash { client, then } => self.reborn(client, then),
            Act::Commit { client } => self.commit(client),
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
                self.promises.lose_answers();
                for client in &mut self.clients {
                    client.seat.unsure |= client.seat.asked.take().is_some();
                    if client.next == Next::Sync {
                        client.next = Next::Join;
                    }
                }
            }
        }
        self.read_answers();
        self.check();
    }

    fn read_answers(&mut self) {
        self.promises.read_answers(&self.rig);
        for client in 0..self.clients.len() {
            let Some(Asked { ticket, at_ms, lost }) = self.clients[client].seat.asked else { continue };
            let Some(answer) = self.rig.answers.get(&ticket).cloned() else { continue };
            let partitions = self.partitions;
            let c = &mut self.clients[client];
            c.seat.asked = None;
            let is_heard = match answer {
                _ if lost => {
                    c.seat.unsure = true;
                    if c.next == Next::Sync {
                        c.next = Next::Join;
                    }
                    false
                }
                Answer::ConsumerBeat(answer) => c.seat.hears_beat(answer),
                Answer::Join(answer) => c.hears_join(answer, partitions),
                Answer::Sync(answer) => c.hears_sync(&answer),
                Answer::Heartbeat(code) => c.hears_heartbeat(code),
                other => panic!("{other:?}"),
            };
            if is_heard {
                c.seat.heard_ms = at_ms;
            }
        }
        let now_ms = self.rig.now.mono_ms;
        for c in self.clients.iter_mut().filter(|client| client.seat.is_over(now_ms)) {
            c.out();
            // An answer that comes later still is for somebody it is no more.
            c.seat.asked = None;
        }
    }

    fn owners(&self) -> BTreeMap<i32, Vec<usize>> {
        owners(self.clients.iter().map(|client| &client.seat))
    }

    fn check(&self) {
        for (partition, owners) in self.owners() {
            assert_eq!(owners.len(), 1, "partition {partition} is {owners:?}'s: {:#?}", self.clients);
        }
        let described = self.rig.groups.describe_consumers("g");
        let held = described.iter().flat_map(|g| &g.members).flat_map(|m| m.assigned.values().flatten());
        let mut once = BTreeSet::new();
        assert!(held.copied().all(|partition| once.insert(partition)), "{described:#?}");
        self.promises.check(&self.rig);
    }

    fn end(mut self) {
        self.rig.prompt = true;
        self.rig.confirm_all();
        self.read_answers();
        // Members that are gone are forgotten; those that are there come to rest.
        for _ in 0..120 {
            for client in (0..3).cycle().take(9) {
                self.go(client, false);
                self.read_answers();
                self.check();
            }
            self.rig.pass(3_000);
            self.read_answers();
        }
        let speaks_consumer = self.clients[..3].iter().any(|c| c.speaks == Protocol::Consumer);
        let (classic, consumers) = (self.rig.state("g"), self.rig.groups.describe_consumers("g"));
        if speaks_consumer {
            assert_eq!(consumers.map(|g| g.state), Some("Stable"));
        } else {
            assert_eq!(classic, Some(State::Stable), "{consumers:?}");
        }
        let all: BTreeSet<i32> = self.owners().into_keys().collect();
        assert_eq!(all, (0..self.partitions).collect(), "everything has an owner: {:#?}", self.clients);
        assert_eq!(self.rig.open, [], "every request has its answer");
        self.rig.restart();
        self.check();
    }
}

impl Client {
    fn hears_join(&mut self, answer: JoinAnswer, partitions: i32) -> bool {
        match answer.error {
            ErrorCode::None => {
                self.seat.epoch = answer.generation;
                self.id = answer.member.to_string();
                self.led = (answer.leader == answer.member).then_some(partitions);
                self.roll = answer.members;
                self.next = Next::Sync;
            }
            ErrorCode::MemberIdRequired => self.id = answer.member.to_string(),
            ErrorCode::RebalanceInProgress | ErrorCode::CoordinatorNotAvailable => {}
            ErrorCode::UnknownMemberId => {
                self.id.clear();
                self.out();
                return false;
            }
            // A new process takes its place.
            ErrorCode::FencedInstanceId => {
                *self = Client::new(Protocol::Classic, self.lives + 1);
                return false;
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn hears_sync(&mut self, answer: &SyncAnswer) -> bool {
        match answer.error {
            ErrorCode::None => {
                let given: BTreeSet<i32> = assigned(&answer.assignment).into_iter().collect();
                // Who gave something up joins again, so that somebody gets it.
                self.next = if self.seat.owned.is_subset(&given) { Next::Beat } else { Next::Join };
                self.seat.owned = given;
                true
            }
            other => self.hears_error(other),
        }
    }

    fn hears_heartbeat(&mut self, code: ErrorCode) -> bool {
        if code == ErrorCode::None { true } else { self.hears_error(code) }
    }

    fn hears_error(&mut self, code: ErrorCode) -> bool {
        self.next = Next::Join;
        match code {
            ErrorCode::RebalanceInProgress => return true,
            ErrorCode::CoordinatorNotAvailable => {}
            ErrorCode::IllegalGeneration => self.out(),
            ErrorCode::UnknownMemberId => {
                self.id.clear();
                self.out();
            }
            ErrorCode::FencedInstanceId => *self = Client::new(Protocol::Classic, self.lives + 1),
            other => panic!("{other:?}"),
        }
        false
    }
}

/// A leader's work: everybody gets about as much, keeps what it can, and gets what another has only when that one has given
/// it up.
fn led(roll: &[JoinedMember], partitions: i32) -> Vec<(String, Bytes)> {
    let has: Vec<Vec<i32>> = roll.iter().map(|m| owned(&m.metadata)).collect();
    let most = (partitions as usize).div_ceil(roll.len().max(1));
    let mut given: Vec<Vec<i32>> = vec![Vec::new(); roll.len()];
    let mut free = Vec::new();
    for partition in 0..partitions {
        let owners: Vec<usize> = (0..roll.len()).filter(|at| has[*at].contains(&partition)).collect();
        match owners[..] {
            [] => free.push(partition),
            [owner] if given[owner].len() < most => given[owner].push(partition),
            // Too many for it, or the claim of two: given to somebody once nobody has it.
            _ => {}
        }
    }
    for partition in free {
        if let Some(least) = (0..roll.len()).min_by_key(|at| given[*at].len()) {
            given[least].push(partition);
        }
    }
    roll.iter().zip(given).map(|(m, given)| (m.member.to_string(), assignment(&given))).collect()
}

/// The smallest story that went wrong: the member that brought the group over was not in the log yet when the broker
/// stopped, and the group of classic members that was left was one of the consumer protocol for ever.
#[test]
fn a_stop_while_a_group_goes_over_finds_it_on_one_side() {
    use Protocol::{Classic, Consumer};
    let go = |client| Act::Go { client, lost: false };
    let mut story = Story::new(&[Classic, Classic, Classic, Classic, Consumer]);
    for act in [go(0), go(1), Act::Confirm, go(4), Act::Confirm, Act::Restart] {
        story.act(act);
    }
    story.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn members_of_both_protocols_share_one_group(
        speak in prop::collection::vec(prop_oneof![4 => Just(Protocol::Classic), 1 => Just(Protocol::Consumer)], CLIENTS),
        acts in prop::collection::vec(act(), 1..250),
    ) {
        let mut story = Story::new(&speak);
        for act in acts {
            story.act(act);
        }
        story.end();
    }
}
