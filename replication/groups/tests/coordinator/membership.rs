use crate::rig::{Rig, config, join_of, protocols};
use ringmill_groups::{GroupConfig, State};
use ringmill_types::ErrorCode;

#[test]
fn one_member_joins_syncs_and_leaves() {
    let mut rig = Rig::new(config());
    let ticket = rig.join(join_of("g", ""));
    let answer = rig.joined(ticket).unwrap().clone();
    assert_eq!((answer.error, answer.generation), (ErrorCode::None, 1));
    assert_eq!((&answer.leader, answer.members.len()), (&answer.member, 1));
    assert_eq!(rig.beat("g", &answer.member, 1), ErrorCode::None);
    let sync = rig.sync("g", &answer.member, 1, &[(&answer.member, "all")]);
    assert_eq!(&rig.synced(sync).unwrap().assignment[..], b"all");
    assert_eq!(rig.leave("g", &answer.member, None), ErrorCode::None);
    assert_eq!(rig.state("g"), Some(State::Empty));
    assert_eq!(rig.beat("g", &answer.member, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_new_member_gets_its_id_before_it_joins() {
    let mut rig = Rig::new(config());
    let mut join = join_of("g", "");
    join.member_id_required = true;
    let first = rig.join(join.clone());
    let answer = rig.joined(first).unwrap();
    assert_eq!(answer.error, ErrorCode::MemberIdRequired);
    join.member = answer.member.to_string();
    let second = rig.join(join.clone());
    assert_eq!(rig.joined(second).unwrap().error, ErrorCode::None);
    // An id that was never given out is not taken.
    join.member = "somebody".into();
    let other = rig.join(join);
    assert_eq!(rig.joined(other).unwrap().error, ErrorCode::UnknownMemberId);
}

#[test]
fn an_id_that_was_given_out_is_forgotten_after_a_session() {
    let mut rig = Rig::new(config());
    let mut join = join_of("g", "");
    join.member_id_required = true;
    let first = rig.join(join.clone());
    join.member = rig.joined(first).unwrap().member.to_string();
    rig.pass(10_100);
    let late = rig.join(join);
    assert_eq!(rig.joined(late).unwrap().error, ErrorCode::UnknownMemberId);
}

#[test]
fn an_empty_group_waits_for_more_members() {
    let mut rig = Rig::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..config() });
    let first = rig.join(join_of("g", ""));
    rig.pass(2_000);
    let second = rig.join(join_of("g", ""));
    rig.pass(1_500);
    assert!(rig.joined(first).is_none(), "a member that came extends the delay");
    rig.pass(3_000);
    let (a, b) = (rig.joined(first).unwrap(), rig.joined(second).unwrap());
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!(a.members.len() + b.members.len(), 2);
}

#[test]
fn a_second_member_brings_a_second_generation() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 1);
    let second = rig.join(join_of("g", ""));
    assert!(rig.joined(second).is_none());
    assert_eq!(rig.beat("g", &ids[0], 1), ErrorCode::RebalanceInProgress);
    let first = rig.join(join_of("g", &ids[0]));
    assert_eq!(rig.joined(first).unwrap().generation, 2);
    assert_eq!(rig.joined(second).unwrap().generation, 2);
    assert_eq!(rig.joined(first).unwrap().members.len(), 2, "the leader keeps its office");
    let stale = rig.sync("g", &ids[0], 1, &[]);
    assert_eq!(rig.synced(stale).unwrap().error, ErrorCode::IllegalGeneration);
}

#[test]
fn who_does_not_come_back_is_left_behind() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 1);
    let second = rig.join(join_of("g", ""));
    // Alive, but busy: heartbeats do not save it from the rebalance timeout.
    for _ in 0..31 {
        rig.beat("g", &ids[0], 1);
        rig.pass(1_000);
    }
    let answer = rig.joined(second).unwrap();
    assert_eq!((answer.error, answer.generation, answer.members.len()), (ErrorCode::None, 2, 1));
    assert_eq!(rig.beat("g", &ids[0], 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_is_removed_after_its_session() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 2);
    for _ in 0..11 {
        rig.beat("g", &ids[0], rig.generation("g"));
        rig.pass(1_000);
    }
    assert_eq!(rig.state("g"), Some(State::PreparingRebalance));
    assert_eq!(rig.groups.describe("g").unwrap().members.len(), 1);
}

#[test]
fn who_does_not_sync_is_left_behind() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 1);
    let second = rig.join(join_of("g", ""));
    let first = rig.join(join_of("g", &ids[0]));
    let other = rig.joined(second).unwrap().member.to_string();
    assert_eq!(rig.joined(first).unwrap().generation, 2);
    let parked = rig.sync("g", &other, 2, &[]);
    for _ in 0..31 {
        rig.beat("g", &ids[0], 2);
        rig.pass(1_000);
    }
    assert_eq!(rig.synced(parked).unwrap().error, ErrorCode::RebalanceInProgress);
    assert!(!rig.groups.describe("g").unwrap().members.iter().any(|m| *m.id == *ids[0]));
}

#[test]
fn the_protocol_is_the_one_most_prefer_and_all_know() {
    let mut rig = Rig::new(GroupConfig { initial_rebalance_delay_ms: 1_000, ..config() });
    let wishes: [&[&str]; 3] = [&["sticky", "range"], &["range", "sticky"], &["x", "range", "sticky"]];
    let mut tickets = Vec::new();
    for wish in wishes {
        let mut join = join_of("g", "");
        join.protocols = protocols(wish, "m");
        tickets.push(rig.join(join));
    }
    rig.pass(4_000);
    assert_eq!(rig.joined(tickets[0]).unwrap().protocol.as_deref(), Some("range"));
    let mut stranger = join_of("g", "");
    stranger.protocols = protocols(&["roundrobin"], "m");
    let ticket = rig.join(stranger);
    assert_eq!(rig.joined(ticket).unwrap().error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut rig = Rig::new(GroupConfig { size_max: 1, ..config() });
    let mut odd = join_of("g", "");
    odd.session_timeout_ms = 10;
    let cases = [
        (join_of("", ""), ErrorCode::InvalidGroupId),
        (odd, ErrorCode::InvalidSessionTimeout),
        (join_of("none", "who"), ErrorCode::UnknownMemberId),
        (
            ringmill_groups::Join { protocols: Vec::new(), ..join_of("g", "") },
            ErrorCode::InconsistentGroupProtocol,
        ),
    ];
    for (join, code) in cases {
        let ticket = rig.join(join);
        assert_eq!(rig.joined(ticket).unwrap().error, code);
    }
    assert!(rig.groups.list().next().is_none(), "a refused join leaves no group behind");
    let ids = rig.stable("g", 1);
    let second = rig.join(join_of("g", ""));
    assert_eq!(rig.joined(second).unwrap().error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(rig.beat("g", &ids[0], 7), ErrorCode::IllegalGeneration);
    assert_eq!(rig.beat("none", &ids[0], 1), ErrorCode::UnknownMemberId);
}

#[test]
fn an_assignment_that_is_not_durable_is_given_to_nobody() {
    let mut rig = Rig::new(config());
    rig.prompt = false;
    let ticket = rig.join(join_of("g", ""));
    rig.confirm_all();
    let id = rig.joined(ticket).unwrap().member.to_string();
    let sync = rig.sync("g", &id, 1, &[(&id, "all")]);
    assert!(rig.synced(sync).is_none());
    rig.fail();
    assert_eq!(rig.synced(sync).unwrap().error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(rig.state("g"), Some(State::PreparingRebalance));
    let again = rig.join(join_of("g", &id));
    assert_eq!(rig.joined(again).unwrap().generation, 2);
}

#[test]
fn a_request_asked_twice_is_answered_twice() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 2);
    let lost = rig.join(join_of("g", &ids[0]));
    let again = rig.join(join_of("g", &ids[0]));
    assert_eq!(rig.joined(lost).unwrap().error, ErrorCode::RebalanceInProgress);
    assert!(rig.joined(again).is_none(), "waits for the other member");
}

#[test]
fn a_group_with_members_survives_a_restart() {
    let mut rig = Rig::new(config());
    let ids = rig.stable("g", 2);
    let generation = rig.generation("g");
    rig.restart();
    assert_eq!(rig.state("g"), Some(State::Stable));
    for id in &ids {
        assert_eq!(rig.beat("g", id, generation), ErrorCode::None);
    }
    rig.pass(10_100);
    assert_eq!(rig.state("g"), Some(State::Empty), "sessions count from the restart");
}

#[test]
fn leaving_a_group_that_is_not_there_is_each_members_error() {
    let mut rig = Rig::new(config());
    let who = |member: &str| ringmill_groups::Identity { member: member.into(), instance: None };
    let leave = ringmill_groups::Leave { group: "none".into(), members: vec![who("a"), who("b")] };
    let ticket = rig.ask(|t| ringmill_groups::Event::Leave(t, leave));
    let unknown = |member: &str| (who(member), ErrorCode::UnknownMemberId);
    let expected = ringmill_groups::Answer::Leave(ErrorCode::None, vec![unknown("a"), unknown("b")]);
    assert_eq!(rig.answers[&ticket], expected);
}

#[test]
fn members_say_no_more_than_records_and_memory_hold() {
    let tight = GroupConfig { record_bytes_max: 1_000, said_bytes_max: 10_000, ..config() };
    let mut rig = Rig::new(tight);
    let says = |group: &str, bytes: usize| {
        let mut join = join_of(group, "");
        join.protocols = protocols(&["range"], &"x".repeat(bytes));
        join
    };
    // Eight records' worth in one group: only one protocol of each member goes into the group's record.
    let first = rig.join(says("g", 5_000));
    assert_eq!(rig.joined(first).unwrap().error, ErrorCode::None);
    let second = rig.join(says("g", 4_000));
    assert_eq!(rig.joined(second).unwrap().error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(rig.members("g").len(), 1, "who is in the group stays in it");
    // All groups together.
    let third = rig.join(says("h", 4_500));
    assert_eq!(rig.joined(third).unwrap().error, ErrorCode::None);
    let fourth = rig.join(says("i", 1_000));
    assert_eq!(rig.joined(fourth).unwrap().error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(rig.state("i"), None, "a group that nobody could join was not made");
    // A member may say something else, even where there is no room for more; and whoever goes makes room.
    let leader = rig.members("h")[0].clone();
    let mut again = says("h", 4_400);
    again.member = leader.clone();
    let again = rig.join(again);
    assert_eq!(rig.joined(again).unwrap().error, ErrorCode::None);
    assert_eq!(rig.leave("h", &leader, None), ErrorCode::None);
    let fifth = rig.join(says("i", 1_000));
    assert_eq!(rig.joined(fifth).unwrap().error, ErrorCode::None);
}
