use crate::rig::{Rig, config, join_of, protocols};
use ringmill_groups::{Event, Join, State};
use ringmill_types::ErrorCode;

fn fixed(member: &str) -> Join {
    Join { instance: Some("i1".into()), ..join_of("g", member) }
}

/// A stable group of one static member; gives its id.
fn settled(rig: &mut Rig) -> String {
    let ticket = rig.join(fixed(""));
    let id = rig.joined(ticket).unwrap().member.to_string();
    rig.sync("g", &id, 1, &[(&id, "all")]);
    assert_eq!(rig.state("g"), Some(State::Stable));
    id
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    for can_skip in [false, true] {
        let mut rig = Rig::new(config());
        let old = settled(&mut rig);
        let join = Join { can_skip_assignment: can_skip, protocols: protocols(&["range"], ""), ..fixed("") };
        let ticket = rig.join(join);
        let answer = rig.joined(ticket).unwrap().clone();
        assert_eq!((answer.error, answer.generation), (ErrorCode::None, 1));
        assert_ne!(*answer.member, *old);
        assert_eq!(answer.skip_assignment, can_skip);
        assert_eq!(*answer.leader == *answer.member, can_skip, "an older client is not told that it leads");
        let sync = rig.sync("g", &answer.member, 1, &[]);
        assert_eq!(&rig.synced(sync).unwrap().assignment[..], b"all");
        let beat = ringmill_groups::Heartbeat {
            group: "g".into(),
            member: old,
            instance: Some("i1".into()),
            generation: 1,
        };
        let ticket = rig.ask(|t| Event::Heartbeat(t, beat));
        assert_eq!(rig.answers[&ticket], ringmill_groups::Answer::Heartbeat(ErrorCode::FencedInstanceId));
        // What was told is in the log.
        rig.restart();
        assert_eq!(rig.groups.describe("g").unwrap().members[0].id, answer.member);
    }
}

#[test]
fn a_static_member_is_told_only_when_its_new_id_is_durable() {
    let mut rig = Rig::new(config());
    settled(&mut rig);
    rig.prompt = false;
    let ticket = rig.join(fixed(""));
    assert!(rig.joined(ticket).is_none());
    rig.fail();
    assert_eq!(rig.joined(ticket).unwrap().error, ErrorCode::CoordinatorNotAvailable);
}

#[test]
fn a_static_member_with_another_preference_brings_a_rebalance() {
    let mut rig = Rig::new(config());
    settled(&mut rig);
    let stranger = rig.join(Join { protocols: protocols(&["sticky"], ""), ..fixed("") });
    assert_eq!(rig.joined(stranger).unwrap().error, ErrorCode::InconsistentGroupProtocol);
    let ticket = rig.join(Join { protocols: protocols(&["sticky", "range"], ""), ..fixed("") });
    let answer = rig.joined(ticket).unwrap();
    assert_eq!((answer.generation, answer.protocol.as_deref()), (2, Some("sticky")));
}

#[test]
fn an_operator_takes_out_a_static_member_by_its_instance() {
    let mut rig = Rig::new(config());
    let id = settled(&mut rig);
    assert_eq!(rig.leave("g", "other", Some("i1")), ErrorCode::FencedInstanceId);
    assert_eq!(rig.leave("g", "", Some("i2")), ErrorCode::UnknownMemberId);
    assert_eq!(rig.leave("g", "", Some("i1")), ErrorCode::None);
    assert_eq!(rig.state("g"), Some(State::Empty));
    assert_eq!(rig.beat("g", &id, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_member_keeps_its_place_until_its_session_ends() {
    let mut rig = Rig::new(config());
    settled(&mut rig);
    rig.pass(9_000);
    assert_eq!(rig.state("g"), Some(State::Stable));
    rig.pass(2_000);
    assert_eq!(rig.state("g"), Some(State::Empty));
}
