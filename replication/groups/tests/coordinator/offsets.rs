use crate::rig::{Rig, config, join_of};
use ringmill_groups::{Answer, DeleteOffsets, Event, GroupConfig, State};
use ringmill_types::ErrorCode;

const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;

#[test]
fn an_offset_is_seen_and_answered_when_it_is_durable() {
    let mut rig = Rig::new(config());
    rig.prompt = false;
    let ticket = rig.commit("g", "", -1, 5);
    assert_eq!((rig.committed(ticket), rig.offset("g")), (None, None));
    rig.confirm();
    assert_eq!((rig.committed(ticket), rig.offset("g")), (Some(ErrorCode::None), Some(5)));
    let lost = rig.commit("g", "", -1, 6);
    rig.fail();
    assert_eq!(rig.committed(lost), Some(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(rig.offset("g"), Some(5));
    let lost = rig.commit("h", "", -1, 6);
    rig.fail();
    assert_eq!(rig.committed(lost), Some(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(rig.state("h"), None, "a commit that failed makes no group");
}

#[test]
fn only_members_of_this_generation_commit() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 1);
    let cases = [
        ("", -1, ErrorCode::UnknownMemberId),
        ("who", 1, ErrorCode::UnknownMemberId),
        (ids[0].as_str(), 2, ErrorCode::IllegalGeneration),
        (ids[0].as_str(), 1, ErrorCode::None),
    ];
    for (member, generation, code) in cases {
        let ticket = rig.commit("g", member, generation, 1);
        assert_eq!(rig.committed(ticket), Some(code), "{member} {generation}");
    }
    let nowhere = rig.commit("none", "who", 3, 1);
    assert_eq!(rig.committed(nowhere), Some(ErrorCode::IllegalGeneration));
    rig.join(join_of("g", ""));
    let during = rig.commit("g", &ids[0], 1, 2);
    assert_eq!(rig.committed(during), Some(ErrorCode::None), "the last commit before joining again");
    rig.join(join_of("g", &ids[0]));
    let between = rig.commit("g", &ids[0], 2, 3);
    assert_eq!(rig.committed(between), Some(ErrorCode::RebalanceInProgress));
}

#[test]
fn metadata_has_a_limit() {
    let mut rig = Rig::new(GroupConfig { offset_metadata_bytes_max: 0, ..config() });
    let ticket = rig.commit("g", "", -1, 1);
    assert_eq!(rig.committed(ticket), Some(ErrorCode::OffsetMetadataTooLarge));
}

#[test]
fn offsets_survive_a_restart_and_deletion_does_too() {
    let mut rig = Rig::new(config());
    rig.commit("g", "", -1, 1);
    rig.commit("g", "", -1, 2);
    rig.commit("h", "", -1, 3);
    rig.restart();
    assert_eq!((rig.offset("g"), rig.offset("h")), (Some(2), Some(3)));
    let request = DeleteOffsets { group: "g".into(), partitions: vec![("t".into(), 0), ("u".into(), 1)] };
    let ticket = rig.ask(|t| Event::DeleteOffsets(t, request));
    let Answer::DeleteOffsets(ErrorCode::None, results) = &rig.answers[&ticket] else { panic!() };
    assert!(results.iter().all(|(_, _, code)| *code == ErrorCode::None));
    let ticket = rig.ask(|t| Event::DeleteGroups(t, vec!["h".into(), "none".into()]));
    let Answer::DeleteGroups(results) = &rig.answers[&ticket] else { panic!() };
    assert_eq!((results[0].1, results[1].1), (ErrorCode::None, ErrorCode::GroupIdNotFound));
    for _ in 0..2 {
        assert_eq!((rig.offset("g"), rig.state("h")), (None, None));
        rig.restart();
    }
}

#[test]
fn a_group_with_members_is_not_deleted() {
    let mut rig = Rig::new(config());
    rig.stable("g", 1);
    let ticket = rig.ask(|t| Event::DeleteGroups(t, vec!["g".into()]));
    assert_eq!(rig.answers[&ticket], Answer::DeleteGroups(vec![("g".into(), ErrorCode::NonEmptyGroup)]));
}

#[test]
fn a_commit_under_way_does_not_bring_a_deleted_group_back() {
    let mut rig = Rig::new(config());
    rig.commit("g", "", -1, 1);
    rig.prompt = false;
    let commit = rig.commit("g", "", -1, 2);
    let delete = rig.ask(|t| Event::DeleteGroups(t, vec!["g".into()]));
    assert!(!rig.answers.contains_key(&delete));
    rig.confirm_all();
    assert_eq!(rig.committed(commit), Some(ErrorCode::None));
    assert_eq!(rig.answers[&delete], Answer::DeleteGroups(vec![("g".into(), ErrorCode::None)]));
    assert_eq!(rig.state("g"), None);
    rig.restart();
    assert_eq!(rig.state("g"), None);
}

#[test]
fn offsets_of_an_empty_group_expire_and_the_group_with_them() {
    let mut rig = Rig::new(GroupConfig { retention_check_ms: 3_600_000, ..config() });
    rig.commit("simple", "", -1, 1);
    let ids = rig.stable("g", 1);
    rig.commit("g", &ids[0], 1, 1);
    rig.now.wall_ms += WEEK_MS as i64;
    rig.now.mono_ms += 3_600_000;
    // The member lived on; only its heartbeats were not played.
    assert_eq!(rig.beat("g", &ids[0], 1), ErrorCode::None);
    assert_eq!((rig.offset("simple"), rig.state("simple")), (None, None));
    assert_eq!(rig.offset("g"), Some(1), "kept while there are members, and from their departure on");
    rig.leave("g", &ids[0], None);
    rig.now.wall_ms += WEEK_MS as i64 - 3_600_000;
    rig.now.mono_ms += 3_600_000;
    rig.step(Event::Tick);
    assert_eq!(rig.offset("g"), Some(1));
    rig.now.wall_ms += 3_600_000;
    rig.now.mono_ms += 3_600_000;
    rig.step(Event::Tick);
    assert_eq!(rig.state("g"), None);
    rig.restart();
    assert!(rig.groups.list().next().is_none());
}

#[test]
fn offsets_of_a_deleted_topic_are_forgotten() {
    let mut rig = Rig::new(config());
    rig.commit("g", "", -1, 1);
    rig.step(Event::TopicsDeleted(vec!["t".into()]));
    assert_eq!((rig.offset("g"), rig.state("g")), (None, Some(State::Empty)));
    rig.restart();
    // Nothing is left of it in the topic, or only markers.
    assert_eq!((rig.offset("g"), rig.state("g")), (None, None));
}
