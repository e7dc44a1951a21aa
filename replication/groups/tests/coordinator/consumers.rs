//! Groups of the consumer protocol.

use crate::rig::{Rig, config, hello, join_of};
use ringmill_groups::*;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::BTreeSet;

const T: TopicId = TopicId([7; 16]);

fn rig(partitions: i32) -> Rig {
    let mut rig = Rig::new(config());
    rig.step(Event::Topics(vec![("t".into(), T, partitions)]));
    rig
}

fn again(member: &str, epoch: i32, owned: Option<&[i32]>) -> ConsumerBeat {
    ConsumerBeat {
        group: "g".into(),
        member: member.into(),
        epoch,
        rebalance_timeout_ms: -1,
        owned: owned.map(|p| Partitions::from([(T, p.iter().copied().collect())])),
        id_required: true,
        ..hello(member)
    }
    .quiet()
}

trait Quiet {
    fn quiet(self) -> Self;
}

impl Quiet for ConsumerBeat {
    fn quiet(mut self) -> ConsumerBeat {
        self.topics = None;
        self
    }
}

fn beat(rig: &mut Rig, beat: ConsumerBeat) -> Result<ConsumerAnswer, ErrorCode> {
    let ticket = rig.ask(|t| Event::ConsumerBeat(t, beat));
    match rig.answers.get(&ticket) {
        Some(Answer::ConsumerBeat(answer)) => answer.clone().map_err(|r| r.code),
        other => panic!("{other:?}"),
    }
}

fn has(answer: &ConsumerAnswer) -> Vec<i32> {
    answer.assignment.as_ref().expect("an assignment").values().flatten().copied().collect()
}

fn state(rig: &Rig) -> &'static str {
    rig.groups.describe_consumers("g").expect("the group").state
}

#[test]
fn a_partition_goes_over_only_when_it_was_given_up() {
    let mut rig = rig(4);
    let a = beat(&mut rig, hello("a")).unwrap();
    assert_eq!((a.epoch, has(&a)), (2, vec![0, 1, 2, 3]));
    assert_eq!(state(&rig), "Stable");
    let b = beat(&mut rig, hello("b")).unwrap();
    assert_eq!((b.epoch, has(&b)), (3, vec![]), "nothing is free");
    assert_eq!(state(&rig), "Reconciling");
    let a = beat(&mut rig, again("a", 2, None)).unwrap();
    assert_eq!((a.epoch, has(&a)), (2, vec![0, 1]), "to be given up: 2 and 3");
    let b = beat(&mut rig, again("b", 3, None)).unwrap();
    assert_eq!((b.epoch, b.assignment), (3, None), "a has them still");
    let a = beat(&mut rig, again("a", 2, Some(&[0, 1, 2]))).unwrap();
    assert_eq!((a.epoch, a.assignment), (2, None), "one is not given up yet");
    let a = beat(&mut rig, again("a", 2, Some(&[0, 1]))).unwrap();
    assert_eq!((a.epoch, a.assignment), (3, None));
    let b = beat(&mut rig, again("b", 3, None)).unwrap();
    assert_eq!((b.epoch, has(&b)), (3, vec![2, 3]));
    assert_eq!(state(&rig), "Stable");
}

#[test]
fn epochs_fence() {
    let mut rig = rig(4);
    beat(&mut rig, hello("a")).unwrap();
    assert_eq!(beat(&mut rig, again("x", 2, None)), Err(ErrorCode::UnknownMemberId));
    assert_eq!(beat(&mut rig, again("a", 9, None)), Err(ErrorCode::FencedMemberEpoch));
    assert_eq!(beat(&mut rig, again("a", 1, None)), Err(ErrorCode::FencedMemberEpoch));
    let mut other = again("a", 2, None);
    other.group = "none".into();
    assert_eq!(beat(&mut rig, other), Err(ErrorCode::GroupIdNotFound));
    let mut bad = hello("b");
    bad.assignor = Some("mine".into());
    assert_eq!(beat(&mut rig, bad), Err(ErrorCode::UnsupportedAssignor));
    let mut bad = hello("b");
    bad.regex = Some("(".into());
    assert_eq!(beat(&mut rig, bad), Err(ErrorCode::InvalidRegularExpression));
    assert_eq!(rig.groups.describe_consumers("g").unwrap().members.len(), 1, "refused before it had a place");
}

#[test]
fn silence_and_holding_on_end_a_membership() {
    let mut rig = rig(2);
    beat(&mut rig, hello("a")).unwrap();
    beat(&mut rig, hello("b")).unwrap();
    beat(&mut rig, again("a", 2, None)).unwrap();
    let mut epoch = 3;
    for _ in 0..7 {
        rig.pass(5_000);
        epoch = beat(&mut rig, again("b", epoch, None)).unwrap().epoch;
        let _ = beat(&mut rig, again("a", 2, None));
    }
    assert_eq!(
        beat(&mut rig, again("a", 2, None)),
        Err(ErrorCode::UnknownMemberId),
        "gave nothing up for 30 s"
    );
    beat(&mut rig, again("b", epoch, None)).unwrap();
    assert_eq!(rig.groups.describe_consumers("g").unwrap().members[0].assigned[&T], BTreeSet::from([0, 1]));
    rig.pass(46_000);
    assert_eq!(state(&rig), "Empty");
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut rig = rig(2);
    let mut first = hello("a");
    first.instance = Some("i".into());
    beat(&mut rig, first.clone()).unwrap();
    let mut second = first.clone();
    second.member = "b".into();
    assert_eq!(beat(&mut rig, second.clone()), Err(ErrorCode::UnreleasedInstanceId));
    let mut bye = again("a", -2, None);
    bye.instance = Some("i".into());
    assert_eq!(beat(&mut rig, bye.clone()).unwrap().epoch, -2);
    rig.restart();
    rig.step(Event::Topics(vec![("t".into(), T, 2)]));
    let back = beat(&mut rig, second).unwrap();
    assert_eq!((back.epoch, has(&back)), (2, vec![0, 1]), "no new epoch");
    assert_eq!(beat(&mut rig, bye), Err(ErrorCode::FencedInstanceId));
}

#[test]
fn patterns_follow_topics() {
    let mut rig = rig(2);
    let mut hello = hello("a");
    (hello.topics, hello.regex) = (None, Some("t.*".into()));
    assert_eq!(has(&beat(&mut rig, hello).unwrap()), [0, 1]);
    rig.step(Event::TopicsChanged(vec![
        ("t2".into(), TopicId([8; 16]), 1),
        ("x".into(), TopicId([9; 16]), 1),
    ]));
    let answer = beat(&mut rig, again("a", 2, None)).unwrap();
    assert_eq!((answer.epoch, has(&answer)), (3, vec![0, 1, 0]));
    rig.step(Event::TopicsDeleted(vec!["t2".into()]));
    let answer = beat(&mut rig, again("a", 3, None)).unwrap();
    assert_eq!(has(&answer), [0, 1]);
}

/// A large pattern is not matched by the coordinator itself; members have what they had until it was.
#[test]
fn a_slow_pattern_is_matched_elsewhere() {
    let mut rig = rig(2);
    let slow = format!("t{}", "(x?y?)?".repeat(300));
    let member = |id: &str| ConsumerBeat { topics: None, regex: Some(slow.clone()), ..hello(id) };
    let first = beat(&mut rig, member("a")).unwrap();
    assert_eq!(has(&first), [0; 0]);
    let old = rig.matchings.pop().unwrap();
    // What two members say is one piece of work, and topics that come meanwhile wait for their turn.
    let second = beat(&mut rig, member("b")).unwrap();
    rig.step(Event::TopicsChanged(vec![("txy".into(), TopicId([8; 16]), 1)]));
    beat(&mut rig, again("b", second.epoch, None)).unwrap();
    assert!(rig.matchings.is_empty());
    let targets = |rig: &mut Rig| {
        let stands = rig.groups.describe_consumers("g").unwrap();
        let epoch = stands.members.iter().find(|m| &*m.id == "a").unwrap().epoch;
        beat(rig, again("a", epoch, None)).unwrap();
        let stands = rig.groups.describe_consumers("g").unwrap();
        let targets = stands.members.iter().flat_map(|m| m.target.values()).map(|p| p.len());
        (stands.epoch, targets.sum::<usize>())
    };
    rig.step(Event::Matched(old.run()));
    assert_eq!(targets(&mut rig), (second.epoch + 1, 2));
    let new = rig.matchings.pop().expect("the topic that came meanwhile");
    let late = new.clone().run();
    rig.step(Event::Matched(new.run()));
    assert_eq!(targets(&mut rig), (second.epoch + 2, 3));
    // One that was not asked for, and one for a group that is gone, change nothing.
    rig.step(Event::Matched(late.clone()));
    assert_eq!(targets(&mut rig), (second.epoch + 2, 3));
    for id in ["a", "b"] {
        beat(&mut rig, again(id, -1, None)).unwrap();
    }
    rig.step(Event::Matched(late));
    assert!(rig.matchings.is_empty());
}

#[test]
fn an_empty_group_changes_its_protocol_and_keeps_its_offsets() {
    let mut rig = rig(2);
    let ids = rig.stable("g", 1);
    rig.commit("g", &ids[0], rig.generation("g"), 5);
    assert_eq!(
        beat(&mut rig, hello("a")),
        Err(ErrorCode::GroupIdNotFound),
        "members of another kind are there"
    );
    rig.leave("g", &ids[0], None);
    beat(&mut rig, hello("a")).unwrap();
    assert_eq!(rig.offset("g"), Some(5));
    let ticket = rig.join(Join { protocol_type: "connect".into(), ..join_of("g", "") });
    assert_eq!(rig.joined(ticket).unwrap().error, ErrorCode::InconsistentGroupProtocol);
    rig.restart();
    rig.step(Event::Topics(vec![("t".into(), T, 2)]));
    assert_eq!(rig.offset("g"), Some(5));
    assert_eq!(state(&rig), "Stable");
    assert!(rig.groups.describe("g").is_none());
    beat(&mut rig, again("a", -1, None)).unwrap();
    rig.stable("g", 2);
    assert!(rig.groups.describe_consumers("g").is_none());
    rig.restart();
    assert_eq!((rig.offset("g"), rig.state("g")), (Some(5), Some(State::Stable)));
}

#[test]
fn commits_are_those_of_members_in_their_epoch() {
    let mut rig = rig(1);
    let commit = |rig: &mut Rig, member: &str, epoch: i32| {
        let one = CommitOffset {
            topic: "t".into(),
            topic_id: T,
            partition: 0,
            offset: 3,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let commit = Commit {
            group: "g".into(),
            member: member.into(),
            generation: epoch,
            knows_epochs: true,
            offsets: vec![one],
            ..Commit::default()
        };
        let ticket = rig.ask(|t| Event::Commit(t, commit));
        rig.committed(ticket)
    };
    beat(&mut rig, hello("a")).unwrap();
    assert_eq!(commit(&mut rig, "a", 2), Some(ErrorCode::None));
    beat(&mut rig, hello("b")).unwrap();
    beat(&mut rig, again("a", 2, None)).unwrap();
    assert_eq!(commit(&mut rig, "a", 2), Some(ErrorCode::None), "still its own since epoch 2");
    assert_eq!(commit(&mut rig, "a", 1), Some(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit(&mut rig, "b", 2), Some(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit(&mut rig, "x", 2), Some(ErrorCode::UnknownMemberId));
    assert_eq!(commit(&mut rig, "", -1), Some(ErrorCode::UnknownMemberId), "the group has members");
}

#[test]
fn what_could_not_be_stored_is_stored_with_the_next_word() {
    let mut rig = rig(2);
    rig.prompt = false;
    rig.ask(|t| Event::ConsumerBeat(t, hello("a")));
    rig.fail();
    rig.prompt = true;
    beat(&mut rig, hello("a")).unwrap();
    rig.restart();
    rig.step(Event::Topics(vec![("t".into(), T, 2)]));
    assert_eq!(state(&rig), "Stable");
    assert_eq!(beat(&mut rig, again("a", 2, None)).unwrap().epoch, 2);
}

#[test]
fn members_subscribe_to_no_more_than_records_and_memory_hold() {
    let mut rig = Rig::new(GroupConfig { record_bytes_max: 1_000, said_bytes_max: 2_000, ..config() });
    rig.step(Event::Topics(vec![("t".into(), T, 2)]));
    let names = |member: &str, bytes: usize| ConsumerBeat {
        topics: Some(vec!["t".into(), "x".repeat(bytes)]),
        ..hello(member)
    };
    assert_eq!(beat(&mut rig, names("a", 1_000)), Err(ErrorCode::UnknownServerError), "a record is smaller");
    let first = beat(&mut rig, names("a", 900)).unwrap();
    beat(&mut rig, names("b", 900)).unwrap();
    assert_eq!(beat(&mut rig, names("c", 900)), Err(ErrorCode::CoordinatorNotAvailable));
    // Those that are in go on, and may say less or the same again.
    beat(&mut rig, again("a", first.epoch, None)).unwrap();
    beat(&mut rig, names("a", 900)).unwrap();
    beat(&mut rig, names("a", 10)).unwrap();
    beat(&mut rig, names("c", 800)).unwrap();
}

#[test]
fn a_group_has_times_of_its_own() {
    let mut rig = Rig::new(config());
    rig.step(Event::Topics(vec![("t".into(), TopicId([7; 16]), 6)]));
    let own =
        OwnConfig { consumer_session_timeout_ms: Some(60_000), consumer_heartbeat_interval_ms: Some(15_000) };
    rig.step(Event::Configured("g".into(), own));
    let interval = |rig: &mut Rig, beat: ConsumerBeat| {
        let ticket = rig.ask(|t| Event::ConsumerBeat(t, beat));
        match rig.answers.get(&ticket) {
            Some(Answer::ConsumerBeat(Ok(answer))) => answer.interval_ms,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(interval(&mut rig, hello("a")), 15_000);
    assert_eq!(interval(&mut rig, ConsumerBeat { group: "other".into(), ..hello("b") }), 5_000);
    rig.pass(59_000);
    let members = |rig: &Rig, group: &str| rig.groups.describe_consumers(group).unwrap().members.len();
    assert_eq!((members(&rig, "g"), members(&rig, "other")), (1, 0));
    // Back to everybody's: the session that runs ends as it began.
    rig.step(Event::Configured("g".into(), OwnConfig::default()));
    rig.pass(2_000);
    assert_eq!(members(&rig, "g"), 0);
    assert_eq!(interval(&mut rig, hello("a")), 5_000);
    rig.pass(46_000);
    assert_eq!(members(&rig, "g"), 0);
}
