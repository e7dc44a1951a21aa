//! A machine under a clock that the test moves, with a log that it confirms.

use bytes::Bytes;
use ringmill_groups::*;
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

pub struct Rig {
    pub groups: Groups,
    pub now: Now,
    tickets: u64,
    pub answers: BTreeMap<Ticket, Answer>,
    pub open: Vec<Ticket>,
    pub unwritten: Vec<Write>,
    /// Handed out, and nobody has done it yet.
    pub matchings: Vec<Matching>,
    /// What the log holds, in order.
    pub log: Vec<(Bytes, Option<Bytes>)>,
    /// Confirm each write at once.
    pub prompt: bool,
}

pub fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() }
}

pub fn protocols(names: &[&str], said: &str) -> Vec<(String, Bytes)> {
    names.iter().map(|n| (n.to_string(), Bytes::copy_from_slice(said.as_bytes()))).collect()
}

pub fn join_of(group: &str, member: &str) -> Join {
    Join {
        group: group.into(),
        member: member.into(),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"], member),
        ..Join::default()
    }
}

/// What clients were told of their commits of the group `g`. Each commits the offset after the one before.
#[derive(Default)]
pub struct Promises {
    /// Newest offset that a client was told is committed.
    told: Option<i64>,
    newest: i64,
    asked: BTreeMap<Ticket, i64>,
}

impl Promises {
    /// The offset to commit next.
    pub fn next(&mut self) -> i64 {
        self.newest += 1;
        self.newest
    }

    /// The answer to the newest commit is to come.
    pub fn await_answer(&mut self, ticket: Ticket) {
        self.asked.insert(ticket, self.newest);
    }

    /// Nobody hears the answers that are still to come.
    pub fn lose_answers(&mut self) {
        self.asked.clear();
    }

    /// The group was deleted, and with it what it promised.
    pub fn write_off(&mut self) {
        self.told = None;
        self.asked.clear();
    }

    pub fn read_answers(&mut self, rig: &Rig) {
        for (ticket, offset) in std::mem::take(&mut self.asked) {
            match rig.answers.get(&ticket) {
                Some(Answer::Commit(results)) if results[0].2 == ErrorCode::None => {
                    self.told = self.told.max(Some(offset));
                }
                Some(_) => {}
                None => {
                    self.asked.insert(ticket, offset);
                }
            }
        }
    }

    /// No offset that was promised is lost.
    pub fn check(&self, rig: &Rig) {
        assert!(rig.offset("g") >= self.told, "{:?} {:?}", rig.offset("g"), self.told);
    }
}

/// The first heartbeat of a member that subscribes to `t`.
pub fn hello(member: &str) -> ConsumerBeat {
    ConsumerBeat {
        group: "g".into(),
        member: member.into(),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 30_000,
        topics: Some(vec!["t".into()]),
        owned: Some(Partitions::new()),
        id_required: true,
        ..ConsumerBeat::default()
    }
}

impl Rig {
    pub fn new(config: GroupConfig) -> Rig {
        let now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
        Rig {
            groups: Groups::new(config, 50, now),
            now,
            tickets: 0,
            answers: BTreeMap::new(),
            open: Vec::new(),
            unwritten: Vec::new(),
            matchings: Vec::new(),
            log: Vec::new(),
            prompt: true,
        }
    }

    pub fn step(&mut self, event: Event) {
        let effects = self.groups.step(event, self.now);
        self.matchings.extend(effects.matchings);
        for (ticket, answer) in effects.answers {
            let at =
                self.open.iter().position(|t| *t == ticket).expect("answered once, and only what was asked");
            self.open.remove(at);
            self.answers.insert(ticket, answer);
        }
        self.unwritten.extend(effects.writes);
        while self.prompt && !self.unwritten.is_empty() {
            self.confirm();
        }
    }

    /// The oldest write becomes durable.
    pub fn confirm(&mut self) {
        let write = self.unwritten.remove(0);
        self.log.extend(write.records);
        self.step(Event::Durable(write.id));
    }

    pub fn confirm_all(&mut self) {
        while !self.unwritten.is_empty() {
            self.confirm();
        }
    }

    /// A write fails, and with it those behind it: nothing is appended on top of what is not there.
    pub fn fail(&mut self) {
        for write in std::mem::take(&mut self.unwritten) {
            self.step(Event::Failed(write.id, ErrorCode::CoordinatorNotAvailable));
        }
    }

    pub fn ask(&mut self, event: impl FnOnce(Ticket) -> Event) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.open.push(ticket);
        self.step(event(ticket));
        ticket
    }

    pub fn pass(&mut self, ms: u64) {
        // In small steps, as a clock would.
        for _ in 0..ms.div_ceil(100) {
            self.now.mono_ms += 100;
            self.now.wall_ms += 100;
            self.step(Event::Tick);
        }
    }

    pub fn join(&mut self, mut join: Join) -> Ticket {
        join.fresh = format!("{:04}", self.tickets + 1);
        self.ask(|t| Event::Join(t, join))
    }

    pub fn joined(&self, ticket: Ticket) -> Option<&JoinAnswer> {
        match self.answers.get(&ticket)? {
            Answer::Join(answer) => Some(answer),
            other => panic!("{other:?}"),
        }
    }

    pub fn synced(&self, ticket: Ticket) -> Option<&SyncAnswer> {
        match self.answers.get(&ticket)? {
            Answer::Sync(answer) => Some(answer),
            other => panic!("{other:?}"),
        }
    }

    pub fn sync(&mut self, group: &str, member: &str, generation: i32, given: &[(&str, &str)]) -> Ticket {
        let assignments =
            given.iter().map(|(m, a)| (m.to_string(), Bytes::copy_from_slice(a.as_bytes()))).collect();
        let sync =
            Sync { group: group.into(), member: member.into(), generation, assignments, ..Sync::default() };
        self.ask(|t| Event::Sync(t, sync))
    }

    pub fn beat(&mut self, group: &str, member: &str, generation: i32) -> ErrorCode {
        let beat =
            Heartbeat { group: group.into(), member: member.into(), generation, ..Heartbeat::default() };
        let ticket = self.ask(|t| Event::Heartbeat(t, beat));
        match self.answers.get(&ticket) {
            Some(Answer::Heartbeat(code)) => *code,
            other => panic!("{other:?}"),
        }
    }

    pub fn leave(&mut self, group: &str, member: &str, instance: Option<&str>) -> ErrorCode {
        let who = Identity { member: member.into(), instance: instance.map(Into::into) };
        let ticket = self.ask(|t| Event::Leave(t, Leave { group: group.into(), members: vec![who] }));
        match self.answers.get(&ticket) {
            Some(Answer::Leave(ErrorCode::None, results)) => results[0].1,
            Some(Answer::Leave(code, _)) => *code,
            other => panic!("{other:?}"),
        }
    }

    pub fn commit(&mut self, group: &str, member: &str, generation: i32, offset: i64) -> Ticket {
        let one = CommitOffset {
            topic: "t".into(),
            topic_id: ringmill_types::TopicId([7; 16]),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: "m".into(),
        };
        let commit = Commit {
            group: group.into(),
            member: member.into(),
            generation,
            offsets: vec![one],
            ..Commit::default()
        };
        self.ask(|t| Event::Commit(t, commit))
    }

    pub fn committed(&self, ticket: Ticket) -> Option<ErrorCode> {
        match self.answers.get(&ticket)? {
            Answer::Commit(results) => Some(results[0].2),
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&self, group: &str) -> Option<State> {
        self.groups.describe(group).map(|g| g.state)
    }

    pub fn offset(&self, group: &str) -> Option<i64> {
        self.groups.offset(group, "t", 0).map(|e| e.offset)
    }

    /// A stable group of so many dynamic members; gives their ids, the leader first.
    pub fn stable(&mut self, group: &str, size: usize) -> Vec<String> {
        for _ in 0..size {
            let there: Vec<String> = self.members(group);
            self.join(join_of(group, ""));
            for id in there {
                self.join(join_of(group, &id));
            }
        }
        let generation = self.generation(group);
        let leader = self.leader(group);
        let mut ids = self.members(group);
        let given: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        for id in ids.iter().filter(|id| **id != leader) {
            self.sync(group, id, generation, &[]);
        }
        self.sync(group, &leader, generation, &given);
        assert_eq!(self.state(group), Some(State::Stable));
        ids.sort_by_key(|id| *id != leader);
        ids
    }

    pub fn members(&self, group: &str) -> Vec<String> {
        let described = self.groups.describe(group);
        described.into_iter().flat_map(|g| g.members).map(|m| m.id.to_string()).collect()
    }

    /// As the newest answer said.
    pub fn generation(&self, group: &str) -> i32 {
        self.newest(group).generation
    }

    pub fn leader(&self, group: &str) -> String {
        self.newest(group).leader.to_string()
    }

    fn newest(&self, group: &str) -> &JoinAnswer {
        let members = self.groups.describe(group).expect("the group").members;
        let answers = self.answers.values().filter_map(|a| match a {
            Answer::Join(j) if j.error == ErrorCode::None && members.iter().any(|m| m.id == j.member) => {
                Some(j)
            }
            _ => None,
        });
        answers.max_by_key(|j| j.generation).expect("an answer")
    }

    /// A machine that knows nothing but the log.
    /// However far the log was compacted, and with the markers of what was deleted or without, it says the same.
    pub fn restart(&mut self) {
        self.groups = self.read(&self.log);
        let wanted = seen(&self.groups);
        for cut in [self.log.len() / 3, self.log.len() * 2 / 3, self.log.len()] {
            for markers in [true, false] {
                let left = compacted(&self.log, cut, markers);
                assert_eq!(seen(&self.read(&left)), wanted, "compacted up to {cut}, markers left: {markers}");
            }
        }
        self.unwritten.clear();
        self.open.clear();
    }

    fn read(&self, log: &[Record]) -> Groups {
        let mut groups = Groups::new(config(), 50, self.now);
        for (key, value) in log {
            groups.load(key, value.as_deref()).expect("what was written can be read");
        }
        groups.loaded(self.now);
        groups
    }
}

type Record = (Bytes, Option<Bytes>);

/// What compaction leaves: below `cut` the newest record of each key.
fn compacted(log: &[Record], cut: usize, markers: bool) -> Vec<Record> {
    let (compared, rest) = log.split_at(cut);
    let newest: BTreeMap<&Bytes, usize> = compared.iter().zip(0..).map(|((key, _), at)| (key, at)).collect();
    let stays = |(at, (key, value)): &(usize, &Record)| newest[key] == *at && (markers || value.is_some());
    let left = compared.iter().enumerate().filter(stays).map(|(_, record)| record);
    left.chain(rest).cloned().collect()
}

/// Everything that can be asked of the groups.
fn seen(groups: &Groups) -> impl PartialEq + std::fmt::Debug + use<> {
    let listed: Vec<ListedGroup> = groups.list().collect();
    let ids: Vec<String> = listed.iter().map(|group| group.id.to_string()).collect();
    let offsets: Vec<(String, String, i32, i64)> =
        groups.committed().map(|(g, t, p, o)| (g.to_string(), t.to_string(), p, o)).collect();
    let described: Vec<_> =
        ids.iter().map(|id| (groups.describe(id), groups.describe_consumers(id))).collect();
    (listed, offsets, described)
}
