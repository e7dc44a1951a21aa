//! Groups that go over from one protocol to the other with their members, and back.

use crate::mixed::{assigned, assignment, classic_of, subscription};
use crate::rig::{Rig, config, hello, join_of};
use ringmill_groups::records::{ConsumerValue, GroupValue, Key};
use ringmill_groups::*;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::BTreeMap;

const T: TopicId = TopicId([7; 16]);

fn rig_with(config: GroupConfig) -> Rig {
    let mut rig = Rig::new(config);
    rig.step(Event::Topics(vec![("t".into(), T, 6)]));
    rig
}

fn rig() -> Rig {
    rig_with(config())
}

/// A start on what the log holds.
fn restart(rig: &mut Rig) {
    rig.restart();
    rig.step(Event::Topics(vec![("t".into(), T, 6)]));
}

fn again(member: &str, epoch: i32, owned: &[i32]) -> ConsumerBeat {
    ConsumerBeat {
        epoch,
        rebalance_timeout_ms: -1,
        topics: None,
        owned: Some(Partitions::from([(T, owned.iter().copied().collect())])),
        ..hello(member)
    }
}

fn beat(rig: &mut Rig, beat: ConsumerBeat) -> Result<ConsumerAnswer, Refused> {
    let ticket = rig.ask(|t| Event::ConsumerBeat(t, beat));
    match rig.answers.get(&ticket) {
        Some(Answer::ConsumerBeat(answer)) => answer.clone(),
        other => panic!("{other:?}"),
    }
}

fn has(answer: &ConsumerAnswer) -> Vec<i32> {
    answer.assignment.iter().flat_map(|a| a.values().flatten().copied()).collect()
}

/// JoinGroup that is answered at once.
fn join(rig: &mut Rig, member: &str, owned: &[i32]) -> JoinAnswer {
    let ticket = rig.join(classic_of("g", member, owned));
    rig.joined(ticket).expect("an answer").clone()
}

fn sync(rig: &mut Rig, member: &str, generation: i32) -> Result<Vec<i32>, ErrorCode> {
    let ticket = rig.sync("g", member, generation, &[]);
    let answer = rig.synced(ticket).expect("an answer");
    if answer.error == ErrorCode::None { Ok(assigned(&answer.assignment)) } else { Err(answer.error) }
}

/// Joins and asks for what it has.
fn comes(rig: &mut Rig, member: &str, owned: &[i32]) -> (String, i32, Vec<i32>) {
    let joined = join(rig, member, owned);
    assert_eq!(joined.error, ErrorCode::None);
    let has = sync(rig, &joined.member, joined.generation).expect("an assignment");
    (joined.member.to_string(), joined.generation, has)
}

/// A stable classic group of two, with these partitions.
fn classic(rig: &mut Rig, first: &[i32], second: &[i32]) -> [String; 2] {
    let ticket = rig.join(classic_of("g", "", &[]));
    let a = rig.joined(ticket).expect("alone").member.to_string();
    let ticket = rig.join(classic_of("g", "", &[]));
    rig.join(classic_of("g", &a, first));
    let answer = rig.joined(ticket).expect("together").clone();
    let (b, generation) = (answer.member.to_string(), answer.generation);
    rig.sync("g", &b, generation, &[]);
    let given = [(a.clone(), assignment(first)), (b.clone(), assignment(second))];
    let given = Sync {
        group: "g".into(),
        member: a.clone(),
        generation,
        assignments: given.to_vec(),
        ..Sync::default()
    };
    rig.ask(|t| Event::Sync(t, given));
    assert_eq!(rig.state("g"), Some(State::Stable));
    [a, b]
}

fn group(rig: &Rig) -> DescribedConsumerGroup {
    rig.groups.describe_consumers("g").expect("a group of the consumer protocol")
}

/// Who has what, and what it speaks.
fn seen(rig: &Rig) -> BTreeMap<String, (Protocol, Vec<i32>)> {
    let members = group(rig).members.into_iter();
    members
        .map(|m| (m.id.to_string(), (m.protocol, m.assigned.values().flatten().copied().collect())))
        .collect()
}

#[test]
fn a_classic_group_goes_over_with_its_members_and_what_they_have() {
    let mut rig = rig();
    let [a, b] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    rig.commit("g", &a, 2, 5);
    let c = beat(&mut rig, hello("c")).unwrap();
    // The generation is the epoch, and the third member brings the next one.
    assert_eq!((c.epoch, has(&c)), (3, vec![]), "nothing is free yet");
    assert_eq!(group(&rig).state, "Reconciling");
    assert_eq!(seen(&rig)[&a], (Protocol::Classic, vec![0, 1, 2]));
    assert_eq!(seen(&rig)[&b], (Protocol::Classic, vec![3, 4, 5]));
    assert!(rig.groups.describe("g").is_none(), "no classic group any more");
    let listed = rig.groups.list().next().unwrap();
    assert_eq!((&*listed.protocol_type, listed.protocol), ("consumer", Protocol::Consumer));
    assert_eq!(rig.offset("g"), Some(5));
    restart(&mut rig);
    assert_eq!((rig.offset("g"), seen(&rig).len()), (Some(5), 3));

    assert_eq!(rig.beat("g", &a, 2), ErrorCode::RebalanceInProgress);
    // It keeps its generation while it gives up, and gets less.
    let (_, generation, kept) = comes(&mut rig, &a, &[0, 1, 2]);
    assert_eq!((generation, kept.len()), (2, 2));
    assert_eq!(beat(&mut rig, again("c", 3, &[])).unwrap().assignment, None, "not given up yet");
    let (_, generation, _) = comes(&mut rig, &a, &kept);
    assert_eq!(generation, 3);
    assert_eq!(rig.beat("g", &a, 3), ErrorCode::None);
    let c = beat(&mut rig, again("c", 3, &[])).unwrap();
    assert_eq!(has(&c).len(), 1);
    // The other one gives everything up before it joins, as older consumers do.
    assert_eq!(rig.beat("g", &b, 2), ErrorCode::RebalanceInProgress);
    let (_, generation, rest) = comes(&mut rig, &b, &[]);
    assert_eq!((generation, rest.len()), (3, 2));
    let c = beat(&mut rig, again("c", 3, &has(&c))).unwrap();
    assert_eq!(has(&c).len(), 2);
    assert_eq!(group(&rig).state, "Stable");
    restart(&mut rig);
    assert_eq!(group(&rig).state, "Stable");
    assert_eq!(sync(&mut rig, &b, 3), Ok(rest));
}

#[test]
fn whoever_waits_when_a_group_goes_over_is_told_to_join_again() {
    let mut rig = rig();
    let [a, b] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    // A rebalance is under way: one has joined, the other one has not.
    let parked = rig.join(classic_of("g", &a, &[0, 1, 2]));
    assert!(rig.joined(parked).is_none());
    beat(&mut rig, hello("c")).unwrap();
    let told = rig.joined(parked).unwrap();
    assert_eq!((told.error, &*told.member), (ErrorCode::RebalanceInProgress, a.as_str()));
    assert_eq!(seen(&rig)[&a].1, [0, 1, 2], "what it has it has still");
    // A SyncGroup that waits for the leader is sent away as well.
    let mut rig = rig_with(config());
    let ticket = rig.join(classic_of("g", "", &[]));
    let first = rig.joined(ticket).unwrap().member.to_string();
    let ticket = rig.join(classic_of("g", "", &[]));
    rig.join(classic_of("g", &first, &[]));
    let second = rig.joined(ticket).unwrap().member.to_string();
    let parked = rig.sync("g", &second, 2, &[]);
    assert!(rig.synced(parked).is_none());
    beat(&mut rig, hello("c")).unwrap();
    assert_eq!(rig.synced(parked).unwrap().error, ErrorCode::RebalanceInProgress);
    assert_eq!(rig.open, []);
    let _ = b;
}

#[test]
fn what_a_member_may_not_have_given_up_yet_is_nobody_elses() {
    let mut rig = rig();
    let [a, b] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    // The leader takes 2 from a; a has not asked for its new assignment when c comes.
    let ticket = rig.join(classic_of("g", &a, &[0, 1, 2]));
    rig.join(classic_of("g", &b, &[3, 4, 5]));
    let generation = rig.joined(ticket).unwrap().generation;
    let given = vec![(a.clone(), assignment(&[0, 1])), (b.clone(), assignment(&[3, 4, 5]))];
    let given =
        Sync { group: "g".into(), member: a.clone(), generation, assignments: given, ..Sync::default() };
    rig.ask(|t| Event::Sync(t, given));
    let c = beat(&mut rig, hello("c")).unwrap();
    assert_eq!(has(&c), [], "2 is a's until it says that it is not");
    let (_, _, kept) = comes(&mut rig, &a, &[0, 1, 2]);
    assert_eq!(kept, [0, 1]);
    assert_eq!(has(&beat(&mut rig, again("c", c.epoch, &[])).unwrap()), []);
    comes(&mut rig, &a, &[0, 1]);
    assert_eq!(has(&beat(&mut rig, again("c", c.epoch, &[])).unwrap()), [2]);
}

#[test]
fn groups_that_cannot_go_over_stay_as_they_are() {
    let refusal = |rig: &mut Rig, beat_of: ConsumerBeat| {
        let before = (rig.groups.describe("g"), rig.log.len());
        let refused = beat(rig, beat_of).unwrap_err();
        assert_eq!((rig.groups.describe("g"), rig.log.len()), before, "{refused:?}");
        refused
    };
    for migration in [Migration::Disabled, Migration::Downgrade] {
        let mut rig = rig_with(GroupConfig { migration, ..config() });
        classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
        let refused = refusal(&mut rig, hello("c"));
        assert_eq!(refused.code, ErrorCode::GroupIdNotFound);
        let text = "Cannot upgrade classic group g to consumer group because online upgrade is disabled.";
        assert_eq!(refused.reason, text);
    }
    let mut rig = rig();
    let mut connect = join_of("g", "");
    connect.protocol_type = "connect".into();
    rig.join(connect);
    assert!(refusal(&mut rig, hello("c")).reason.contains("does not use the consumer embedded protocol"));
    let mut rig = rig_with(config());
    rig.stable("g", 1);
    assert!(refusal(&mut rig, hello("c")).reason.contains("is malformed"));
    let mut rig = rig_with(GroupConfig { consumer_size_max: 1, ..config() });
    classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    assert_eq!(refusal(&mut rig, hello("c")).code, ErrorCode::GroupMaxSizeReached);
    let mut rig = rig_with(config());
    classic(&mut rig, &[0, 1, 2], &[2, 4, 5]);
    assert!(refusal(&mut rig, hello("c")).reason.contains("assigned to several"));
    let mut rig = rig_with(config());
    classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    let bad = ConsumerBeat { topics: None, regex: Some("(".into()), ..hello("c") };
    assert_eq!(refusal(&mut rig, bad).code, ErrorCode::InvalidRegularExpression);
    let mut rig = rig_with(GroupConfig { record_bytes_max: 400, ..config() });
    classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    assert!(refusal(&mut rig, hello("c")).reason.contains("more than one write holds"));
}

#[test]
fn a_group_goes_over_with_whoever_joins_in_one_write_or_not_at_all() {
    // Of every size of a record and of all memory, most are too small for one of the steps.
    let configs = (200..1_600).step_by(7).flat_map(|bytes| {
        [
            GroupConfig { record_bytes_max: bytes, ..config() },
            GroupConfig { said_bytes_max: bytes, ..config() },
        ]
    });
    let (mut over, mut refused) = (0, 0);
    for config in configs {
        let mut rig = rig_with(config);
        let ticket = rig.join(classic_of("g", "", &[]));
        let Some(JoinAnswer { error: ErrorCode::None, member, .. }) = rig.joined(ticket).cloned() else {
            continue;
        };
        let given = vec![(member.to_string(), assignment(&[0, 1, 2, 3, 4, 5]))];
        let given = Sync {
            group: "g".into(),
            member: member.to_string(),
            generation: 1,
            assignments: given,
            ..Sync::default()
        };
        rig.ask(|t| Event::Sync(t, given));
        rig.prompt = false;
        let before = rig.groups.describe("g");
        let topics = (0..9).map(|n| format!("another-topic-{n}")).chain(["t".into()]).collect();
        let ticket = rig.ask(|t| Event::ConsumerBeat(t, ConsumerBeat { topics: Some(topics), ..hello("c") }));
        match rig.answers.get(&ticket) {
            Some(Answer::ConsumerBeat(Err(_))) => {
                refused += 1;
                assert_eq!((rig.groups.describe("g"), rig.unwritten.len()), (before, 0));
                assert_eq!(rig.beat("g", &member, 1), ErrorCode::None);
            }
            Some(other) => panic!("{other:?}"),
            None => {
                over += 1;
                assert_eq!(rig.unwritten.len(), 1);
                rig.confirm_all();
                restart(&mut rig);
                assert_eq!(seen(&rig).keys().collect::<Vec<_>>(), ["c", &*member]);
            }
        }
    }
    assert!(over > 100 && refused > 50, "{over} {refused}");
}

#[test]
fn an_assignment_with_words_of_its_own_is_not_given_up() {
    let mut rig = rig();
    let ticket = rig.join(classic_of("g", "", &[]));
    let a = rig.joined(ticket).unwrap().member.to_string();
    let mut given = assignment(&[0]).to_vec();
    given.truncate(given.len() - 4);
    given.extend_from_slice(b"\0\0\0\x01x");
    let given = vec![(a.clone(), given.into())];
    let given = Sync { group: "g".into(), member: a, generation: 1, assignments: given, ..Sync::default() };
    rig.ask(|t| Event::Sync(t, given));
    let refused = beat(&mut rig, hello("c")).unwrap_err();
    assert_eq!(refused.code, ErrorCode::GroupIdNotFound);
    assert!(refused.reason.contains("unsupported custom assignor"), "{}", refused.reason);
}

#[test]
fn a_group_goes_back_when_the_last_member_of_the_consumer_protocol_is_gone() {
    for way in ["leaves", "is silent", "is taken out"] {
        let mut rig = rig();
        let [a, b] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
        rig.commit("g", &a, 2, 5);
        beat(&mut rig, hello("c")).unwrap();
        let (_, _, kept) = comes(&mut rig, &a, &[0, 1, 2]);
        match way {
            "leaves" => assert_eq!(beat(&mut rig, again("c", -1, &[])).unwrap().epoch, -1),
            "is silent" => {
                comes(&mut rig, &a, &kept);
                comes(&mut rig, &b, &[]);
                for _ in 0..8 {
                    rig.pass(5_000);
                    assert_eq!(rig.beat("g", &a, 3), ErrorCode::None);
                    assert_eq!(rig.beat("g", &b, 3), ErrorCode::None);
                }

                rig.pass(6_000);
            }
            _ => assert_eq!(rig.leave("g", "c", None), ErrorCode::None),
        }
        assert!(rig.groups.describe_consumers("g").is_none(), "{way}");
        assert_eq!(rig.state("g"), Some(State::PreparingRebalance), "{way}");
        assert_eq!(rig.offset("g"), Some(5));
        // Whoever reads the log from now on finds a classic group that has a rebalance to make.
        restart(&mut rig);
        assert_eq!((rig.state("g"), rig.offset("g")), (Some(State::PreparingRebalance), Some(5)), "{way}");
        let first = rig.join(classic_of("g", &a, &kept));
        rig.join(classic_of("g", &b, &[3, 4, 5]));
        let joined = rig.joined(first).unwrap();
        assert_eq!((joined.error, joined.generation, joined.members.len()), (ErrorCode::None, 4, 2), "{way}");
    }
}

#[test]
fn a_group_does_not_go_back_against_the_policy_or_with_nobody() {
    for migration in [Migration::Disabled, Migration::Upgrade] {
        let mut rig = rig_with(GroupConfig { migration, ..config() });
        beat(&mut rig, hello("c")).unwrap();
        let (a, generation, _) = comes(&mut rig, "", &[]);
        beat(&mut rig, again("c", -1, &[])).unwrap();
        // All partitions are the classic member's, in a group of the consumer protocol.
        assert_eq!(rig.beat("g", &a, generation), ErrorCode::RebalanceInProgress);
        let (_, generation, all) = comes(&mut rig, &a, &[]);
        assert_eq!((generation, all.len(), group(&rig).state), (4, 6, "Stable"));
        // Nobody else would see that the topic has grown.
        rig.step(Event::TopicsChanged(vec![("t".into(), T, 7)]));
        assert_eq!(rig.beat("g", &a, generation), ErrorCode::RebalanceInProgress);
        assert_eq!(comes(&mut rig, &a, &[]).2.len(), 7);
        assert_eq!(rig.leave("g", &a, None), ErrorCode::None);
        assert_eq!(group(&rig).state, "Empty");
    }
}

#[test]
fn a_classic_member_comes_into_a_group_of_the_consumer_protocol() {
    let mut rig = rig();
    beat(&mut rig, hello("c")).unwrap();
    let mut asks = classic_of("g", "", &[]);
    asks.member_id_required = true;
    let ticket = rig.join(asks.clone());
    let told = rig.joined(ticket).unwrap().clone();
    assert_eq!(told.error, ErrorCode::MemberIdRequired);
    assert_eq!(group(&rig).members.len(), 1, "nothing is kept of it");
    let (id, generation, none) = comes(&mut rig, &told.member, &[]);
    assert_eq!((id.as_str(), generation, none), (&*told.member, 3, vec![]));
    let c = beat(&mut rig, again("c", 2, &[0, 1, 2, 3, 4, 5])).unwrap();
    let left = has(&c);
    assert_eq!(rig.beat("g", &id, 3), ErrorCode::None, "nothing is free yet");
    beat(&mut rig, again("c", 2, &left)).unwrap();
    assert_eq!(rig.beat("g", &id, 3), ErrorCode::RebalanceInProgress, "now it is");
    assert_eq!(comes(&mut rig, &id, &[]).2.len(), 3);
    for (change, wanted) in [("protocol", 0), ("type", 1), ("bytes", 2)] {
        let mut bad = classic_of("g", "", &[]);
        let error = match wanted {
            0 => {
                bad.protocols[0].0 = "another".into();
                ErrorCode::InconsistentGroupProtocol
            }
            1 => {
                bad.protocol_type = "connect".into();
                ErrorCode::InconsistentGroupProtocol
            }
            _ => {
                bad.protocols[0].1 = "x".into();
                ErrorCode::UnknownServerError
            }
        };
        let ticket = rig.join(bad);
        assert_eq!(rig.joined(ticket).unwrap().error, error, "{change}");
    }
    assert_eq!(sync(&mut rig, &id, 2), Err(ErrorCode::IllegalGeneration));
    assert_eq!(sync(&mut rig, "c", 3), Err(ErrorCode::UnknownMemberId), "it does not speak that");
    assert_eq!(rig.beat("g", "nobody", 3), ErrorCode::UnknownMemberId);
    let wrong = Sync { protocol: Some("range".into()), ..Sync::default() };
    let wrong = Sync { group: "g".into(), member: id, generation: 3, ..wrong };
    let ticket = rig.ask(|t| Event::Sync(t, wrong));
    assert_eq!(rig.synced(ticket).unwrap().error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn classic_members_are_out_when_they_do_not_come_again() {
    let mut rig = rig();
    let [a, b] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    beat(&mut rig, hello("c")).unwrap();
    let mut epoch = 3;
    // a heeds no call to join, b joins and asks for nothing: each has its rebalance timeout, 30 s.
    assert_eq!(rig.beat("g", &a, 2), ErrorCode::RebalanceInProgress);
    let joined = join(&mut rig, &b, &[]);
    for _ in 0..7 {
        rig.pass(5_000);
        let _ = rig.beat("g", &a, 2);
        let _ = rig.beat("g", &b, joined.generation);
        epoch = beat(&mut rig, again("c", epoch, &[])).unwrap().epoch;
    }
    assert_eq!(rig.beat("g", &a, 2), ErrorCode::UnknownMemberId);
    assert_eq!(rig.beat("g", &b, joined.generation), ErrorCode::UnknownMemberId);
    assert_eq!(seen(&rig)["c"], (Protocol::Consumer, vec![0, 1, 2, 3, 4, 5]));
    // Its own session timeout, 10 s, is what a classic member has, after a start as well.
    let (d, generation, _) = comes(&mut rig, "", &[]);
    restart(&mut rig);
    rig.pass(9_000);
    beat(&mut rig, again("c", epoch, &[0, 1, 2, 3, 4, 5])).unwrap();
    let _ = rig.beat("g", &d, generation);
    assert!(seen(&rig).contains_key(&d));
    rig.pass(11_000);
    assert!(!seen(&rig).contains_key(&d));
}

#[test]
fn a_static_member_changes_its_protocol_and_keeps_its_place() {
    let fixed = || Join { instance: Some("i".into()), ..classic_of("g", "", &[]) };
    let mut rig = rig();
    let ticket = rig.join(fixed());
    let old = rig.joined(ticket).unwrap().member.to_string();
    let given = vec![(old.clone(), assignment(&[0, 1, 2, 3, 4, 5]))];
    let given =
        Sync { group: "g".into(), member: old.clone(), generation: 1, assignments: given, ..Sync::default() };
    rig.ask(|t| Event::Sync(t, given));
    let mut comes_back = hello("c");
    comes_back.instance = Some("i".into());
    let c = beat(&mut rig, comes_back).unwrap();
    assert_eq!((c.epoch, has(&c)), (1, vec![0, 1, 2, 3, 4, 5]), "no new epoch");
    assert_eq!(rig.beat("g", &old, 1), ErrorCode::UnknownMemberId);
    restart(&mut rig);
    assert_eq!(seen(&rig), BTreeMap::from([("c".into(), (Protocol::Consumer, vec![0, 1, 2, 3, 4, 5]))]));
    // And back: nobody speaks the consumer protocol any more, and nothing has to move.
    rig.prompt = false;
    let ticket = rig.join(fixed());
    assert!(rig.joined(ticket).is_none(), "not before it is durable");
    rig.confirm_all();
    rig.prompt = true;
    let back = rig.joined(ticket).unwrap().clone();
    assert_eq!((back.error, back.generation, back.members.len()), (ErrorCode::None, 1, 0));
    assert_eq!(rig.state("g"), Some(State::Stable));
    assert_eq!(sync(&mut rig, &back.member, 1), Ok(vec![0, 1, 2, 3, 4, 5]));
    restart(&mut rig);
    assert_eq!(rig.state("g"), Some(State::Stable));
    assert_eq!(sync(&mut rig, &back.member, 1), Ok(vec![0, 1, 2, 3, 4, 5]));
    assert_eq!(beat(&mut rig, again("c", 1, &[])).unwrap_err().code, ErrorCode::GroupIdNotFound);
    // One that wants something else brings a rebalance.
    let mut over = hello("c");
    over.instance = Some("i".into());
    beat(&mut rig, over).unwrap();
    let mut other = fixed();
    other.protocols = vec![("coop".into(), subscription(&["u"], &[]))];
    let ticket = rig.join(other);
    let back = rig.joined(ticket).unwrap();
    assert_eq!((back.error, back.generation, back.members.len()), (ErrorCode::None, 2, 1), "it leads");
}

#[test]
fn static_classic_members_are_known_by_their_instance() {
    let mut rig = rig();
    beat(&mut rig, hello("c")).unwrap();
    let fixed = |member: &str| Join { instance: Some("i".into()), ..classic_of("g", member, &[]) };
    let ticket = rig.join(fixed("nobody"));
    assert_eq!(rig.joined(ticket).unwrap().error, ErrorCode::UnknownMemberId);
    let ticket = rig.join(fixed(""));
    let first = rig.joined(ticket).unwrap().member.to_string();
    let ticket = rig.join(fixed("another"));
    assert_eq!(rig.joined(ticket).unwrap().error, ErrorCode::FencedInstanceId);
    // It starts again: the new one has its place.
    let ticket = rig.join(fixed(""));
    let second = rig.joined(ticket).unwrap().clone();
    assert_ne!(*second.member, *first);
    assert_eq!(group(&rig).members.len(), 2);
    let ticket = rig.join(fixed(&first));
    assert_eq!(rig.joined(ticket).unwrap().error, ErrorCode::FencedInstanceId);
    assert_eq!(rig.leave("g", "", Some("i")), ErrorCode::None, "as operators do it");
    assert_eq!(group(&rig).members.len(), 1);
}

#[test]
fn offsets_are_those_of_members_in_their_generation() {
    let mut rig = rig();
    beat(&mut rig, hello("c")).unwrap();
    let (a, generation, _) = comes(&mut rig, "", &[]);
    let at = |rig: &mut Rig, member: &str, generation: i32| {
        let ticket = rig.commit("g", member, generation, 7);
        rig.committed(ticket)
    };
    assert_eq!(at(&mut rig, &a, generation - 1), Some(ErrorCode::IllegalGeneration));
    assert_eq!(at(&mut rig, &a, generation), Some(ErrorCode::None), "with a version that knows no epochs");
    assert_eq!(at(&mut rig, "c", 2), Some(ErrorCode::UnsupportedVersion));
    assert_eq!(rig.groups.check_fetch("g", Some(&a), generation), Ok(()));
    assert_eq!(rig.groups.check_fetch("g", Some(&a), 9), Err(ErrorCode::IllegalGeneration));
    assert_eq!(rig.groups.check_fetch("g", Some("c"), 9), Err(ErrorCode::StaleMemberEpoch));
}

#[test]
fn members_say_no_more_than_records_and_memory_hold() {
    let mut rig = rig_with(GroupConfig { record_bytes_max: 1_000, said_bytes_max: 1_500, ..config() });
    beat(&mut rig, hello("c")).unwrap();
    let says = |member: &str, bytes: usize| Join {
        protocols: vec![("coop".into(), subscription(&["t", &"x".repeat(bytes)], &[]))],
        ..classic_of("g", member, &[])
    };
    let mut asks = |join: Join| {
        let ticket = rig.join(join);
        rig.joined(ticket).unwrap().clone()
    };
    // The words count as they came, and once more as topics.
    assert_eq!(asks(says("", 900)).error, ErrorCode::UnknownServerError, "a record is smaller");
    let first = asks(says("", 300));
    assert_eq!(first.error, ErrorCode::None);
    assert_eq!(asks(says("", 400)).error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(asks(says(&first.member, 300)).error, ErrorCode::None, "those that are in go on");
    assert_eq!(asks(says(&first.member, 10)).error, ErrorCode::None);
    assert_eq!(asks(says("", 300)).error, ErrorCode::None);
}

#[test]
fn what_could_not_be_stored_of_a_way_is_stored_with_the_next_word() {
    // Over: the log still has the classic group.
    let mut rig = rig();
    let [a, _] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    rig.prompt = false;
    let ticket = rig.ask(|t| Event::ConsumerBeat(t, hello("c")));
    rig.fail();
    let told = rig.answers.get(&ticket).cloned();
    assert!(
        matches!(told, Some(Answer::ConsumerBeat(Err(r))) if r.code == ErrorCode::CoordinatorNotAvailable)
    );
    rig.prompt = true;
    assert_eq!(rig.beat("g", &a, 2), ErrorCode::RebalanceInProgress);
    restart(&mut rig);
    assert_eq!((group(&rig).members.len(), rig.groups.describe("g")), (3, None));
    // And back: the log still has the group of the consumer protocol.
    rig.prompt = false;
    let ticket = rig.ask(|t| Event::ConsumerBeat(t, again("c", -1, &[])));
    rig.fail();
    let told = rig.answers.get(&ticket).cloned();
    assert!(
        matches!(told, Some(Answer::ConsumerBeat(Err(r))) if r.code == ErrorCode::CoordinatorNotAvailable)
    );
    rig.prompt = true;
    let members: Vec<String> = rig.members("g");
    assert_eq!(members.len(), 2);
    let tickets: Vec<Ticket> = members.iter().map(|id| rig.join(classic_of("g", id, &[]))).collect();
    let leader = rig.joined(tickets[0]).unwrap().leader.to_string();
    let generation = rig.joined(tickets[0]).unwrap().generation;
    let given = vec![(leader.clone(), assignment(&[0]))];
    let given = Sync { group: "g".into(), member: leader, generation, assignments: given, ..Sync::default() };
    rig.ask(|t| Event::Sync(t, given));
    restart(&mut rig);
    assert_eq!(rig.state("g"), Some(State::Stable));
    assert!(rig.groups.describe_consumers("g").is_none());
    // What is in the log is in Kafka's order: nobody who reads it meets both kinds of group at once.
    let mut is_classic = false;
    for (key, value) in &rig.log {
        match Key::decode(key).unwrap() {
            Key::Group(_) => is_classic = value.is_some(),
            Key::ConsumerGroup(_) | Key::ConsumerMember { .. } if value.is_some() => {
                assert!(!is_classic, "{key:?}");
            }
            _ => {}
        }
    }
}

#[test]
fn records_of_both_ways_say_what_kafkas_say() {
    let mut rig = rig();
    let [a, _] = classic(&mut rig, &[0, 1, 2], &[3, 4, 5]);
    let before = rig.log.len();
    beat(&mut rig, hello("c")).unwrap();
    let (key, value) = &rig.log[before];
    assert_eq!((Key::decode(key), value), (Ok(Key::Group("g".into())), &None));
    let key = Key::ConsumerMember { group: "g".into(), member: a.clone() };
    let value = rig.log.iter().rev().find(|(k, _)| Key::decode(k).as_ref() == Ok(&key));
    let value = ConsumerValue::decode(&key, value.unwrap().1.as_deref().unwrap()).unwrap();
    let ConsumerValue::Member { classic: Some(classic), about, .. } = value else { panic!("{value:?}") };
    assert_eq!((classic.session_timeout_ms, about.rebalance_timeout_ms), (10_000, 30_000));
    assert_eq!(classic.protocols, classic_of("g", "", &[0, 1, 2]).protocols);
    let before = rig.log.len();
    beat(&mut rig, again("c", -1, &[])).unwrap();
    let (last, tombstones) = rig.log[before..].split_last().unwrap();
    assert!(tombstones.iter().all(|(key, value)| value.is_none() && Key::decode(key).is_ok()));
    assert_eq!(tombstones.len(), 3 * 3 + 2, "of three members and the group");
    let value = GroupValue::decode(last.1.as_deref().unwrap()).unwrap();
    assert_eq!((value.generation, value.protocol.as_deref(), value.members.len()), (3, Some("coop"), 2));
    assert_eq!(assigned(&value.members[0].assignment), [0, 1, 2]);
}
