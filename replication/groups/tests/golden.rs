//! Records as a real Kafka 4.3.1 wrote them: `__consumer_offsets` after a console consumer, kcat and a static kcat had
//! read a topic and gone, and one group was deleted (`tests/golden/consumer_offsets.txt`: partition, offset, key, value
//! in hexadecimal).
#![allow(clippy::unwrap_used)]

use ringmill_groups::records::{ConsumerValue, GroupValue, Key, OffsetValue};
use ringmill_groups::{ConsumerBeat, Event, GroupConfig, Groups, Now, Partitions, Protocol, State};
use ringmill_groups::{Ticket, partition_of};
use ringmill_types::TopicId;
use std::collections::BTreeMap;

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

struct Row {
    partition: i32,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

fn rows() -> Vec<Row> {
    parse(include_str!("golden/consumer_offsets.txt"))
}

/// Two console consumers with group.protocol=consumer: the second joins, partition 2 goes over to it, both leave.
fn consumer_rows() -> Vec<Row> {
    parse(include_str!("golden/consumer_protocol.txt"))
}

/// Two kcat of the classic protocol and one of the consumer's that comes and goes: their group goes over with it, and back.
/// The tombstone of key version 4, which nobody writes any more, is left out.
fn migration_rows() -> Vec<Row> {
    parse(include_str!("golden/migration.txt"))
}

/// Rows of the file: the classic group is stable; it has gone over and everybody has what it should; it has gone back.
const CLASSIC: usize = 2;
const OVER: usize = 25;
const BACK: usize = 37;

fn parse(text: &str) -> Vec<Row> {
    let rows = text.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        Row {
            partition: fields[0].parse().unwrap(),
            key: bytes(fields[2]),
            value: (fields[3] != "null").then(|| bytes(fields[3])),
        }
    });
    rows.collect()
}

#[test]
fn what_kafka_wrote_is_read_and_written_to_the_byte() {
    let (mut groups, mut offsets, mut gone) = (0, 0, 0);
    for row in rows() {
        let key = Key::decode(&row.key).unwrap();
        assert_eq!(key.encode(), row.key);
        match (&key, &row.value) {
            (Key::Group(_), Some(value)) => {
                groups += 1;
                assert_eq!(GroupValue::decode(value).unwrap().encode(), *value);
            }
            (Key::Offset { .. }, Some(value)) => {
                offsets += 1;
                assert_eq!(OffsetValue::decode(value).unwrap().encode(), *value);
            }
            (_, None) => gone += 1,
            (other, Some(_)) => panic!("{other:?}"),
        }
    }
    assert_eq!((groups, offsets, gone), (9, 12, 3));
}

#[test]
fn a_group_lies_where_kafka_puts_it() {
    for row in rows() {
        let (Key::Group(group) | Key::Offset { group, .. }) = Key::decode(&row.key).unwrap() else {
            panic!()
        };
        assert_eq!(partition_of(&group, 50), row.partition, "{group}");
    }
}

#[test]
fn replay_gives_what_kafka_would_show() {
    let mut machine = Groups::new(GroupConfig::default(), 50, Now::default());
    for row in rows() {
        machine.load(&row.key, row.value.as_deref()).unwrap();
    }
    machine.loaded(Now::default());
    let names: Vec<String> = machine.list().map(|g| format!("{} {}", g.id, g.state)).collect();
    assert_eq!(names, ["g-java Empty", "g-static Empty"]);
    for partition in 0..2 {
        let entry = machine.offset("g-java", "t1", partition).unwrap();
        assert_eq!((entry.offset, entry.leader_epoch, entry.metadata.as_str()), (2, 0, ""));
    }
    assert!(machine.offsets("g-kcat").is_none());
}

#[test]
fn a_group_with_members_comes_back_stable() {
    let mut machine = Groups::new(GroupConfig::default(), 50, Now::default());
    for row in rows().into_iter().filter(|r| r.partition == 34).take(2) {
        machine.load(&row.key, row.value.as_deref()).unwrap();
    }
    let group = machine.describe("g-static").unwrap();
    assert_eq!((group.state, &*group.protocol, group.members.len()), (State::Stable, "range", 1));
    assert_eq!(group.members[0].instance.as_deref(), Some("inst-1"));
    assert!(!group.members[0].assignment.is_empty());
}

#[test]
fn broken_bytes_are_refused() {
    for row in rows() {
        for cut in 0..row.key.len() {
            assert!(Key::decode(&row.key[..cut]).is_err());
        }
        let Some(value) = &row.value else { continue };
        for cut in 0..value.len() {
            assert!(
                GroupValue::decode(&value[..cut]).is_err() || OffsetValue::decode(&value[..cut]).is_err()
            );
        }
    }
    assert!(Key::decode(&[0, 9, 0, 0]).is_err());
}

#[test]
fn groups_of_the_consumer_protocol_are_written_to_the_byte() {
    let mut values = 0;
    for row in consumer_rows() {
        let key = Key::decode(&row.key).unwrap();
        assert_eq!(key.encode(), row.key);
        let Some(value) = row.value.filter(|_| !matches!(key, Key::Offset { .. })) else { continue };
        assert_eq!(ConsumerValue::decode(&key, &value).unwrap().encode(), value);
        values += 1;
        for cut in 0..value.len() {
            assert!(ConsumerValue::decode(&key, &value[..cut]).is_err());
        }
    }
    assert_eq!(values, 20);
}

#[test]
fn replay_gives_the_consumer_group_as_kafka_had_it() {
    let mut machine = Groups::new(GroupConfig::default(), 50, Now::default());
    // Up to where the second member has its partition.
    for row in consumer_rows().into_iter().take(21) {
        machine.load(&row.key, row.value.as_deref()).unwrap();
    }
    machine.loaded(Now::default());
    let group = machine.describe_consumers("g848").unwrap();
    assert_eq!((group.state, group.epoch, group.target_epoch, group.assignor), ("Stable", 3, 3, "uniform"));
    let counts: Vec<usize> = group.members.iter().map(|m| m.assigned.values().flatten().count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 3);
    assert!(group.members.iter().all(|m| m.assigned == m.target && m.epoch == 3));
}

#[test]
fn members_of_the_classic_protocol_are_written_to_the_byte() {
    let mut members = 0;
    for row in migration_rows() {
        let key = Key::decode(&row.key).unwrap();
        assert_eq!(key.encode(), row.key);
        let Some(value) = row.value else { continue };
        match &key {
            Key::Offset { .. } => assert_eq!(OffsetValue::decode(&value).unwrap().encode(), value),
            Key::Group(_) => assert_eq!(GroupValue::decode(&value).unwrap().encode(), value),
            _ => {
                let read = ConsumerValue::decode(&key, &value).unwrap();
                assert_eq!(read.encode(), value);
                members += usize::from(matches!(read, ConsumerValue::Member { classic: Some(_), .. }));
                for cut in 0..value.len() {
                    assert!(ConsumerValue::decode(&key, &value[..cut]).is_err());
                }
            }
        }
    }
    assert_eq!(members, 2);
}

const GROUP: &str = "over-with-members-librdkafka";
/// The member of the consumer protocol.
const COMES: &str = "IkCECXR3SxmITFgiR24KNg";

fn member_of(row: &Row) -> Option<BTreeMap<TopicId, BTreeMap<i32, i32>>> {
    match ConsumerValue::decode(&Key::decode(&row.key).ok()?, row.value.as_deref()?).ok()? {
        ConsumerValue::Standing(standing) => Some(standing.assigned),
        _ => None,
    }
}

/// A machine that knows the first rows, and the topic they are about.
fn at(rows: usize) -> Groups {
    let mut machine = Groups::new(GroupConfig::default(), 50, Now::default());
    for row in migration_rows().into_iter().take(rows) {
        machine.load(&row.key, row.value.as_deref()).unwrap();
    }
    machine.loaded(Now::default());
    let topic = migration_rows().iter().filter_map(member_of).flat_map(BTreeMap::into_keys).next().unwrap();
    machine.step(Event::Topics(vec![(GROUP.into(), topic, 4)]), Now::default());
    machine
}

#[test]
fn replay_gives_the_group_as_kafka_had_it_on_both_sides() {
    let over = at(OVER);
    let group = over.describe_consumers(GROUP).unwrap();
    assert_eq!((group.state, group.epoch, group.members.len()), ("Stable", 2, 3));
    let classic = group.members.iter().filter(|m| m.protocol == Protocol::Classic);
    assert!(classic.clone().all(|m| m.id.starts_with("rdkafka-")));
    assert_eq!((classic.count(), over.describe(GROUP)), (2, None));
    let back = at(BACK);
    let group = back.describe(GROUP).unwrap();
    assert_eq!((group.state, &*group.protocol, group.members.len()), (State::Stable, "range", 2));
    assert!(back.describe_consumers(GROUP).is_none());
    assert_eq!(back.offsets(GROUP).map(|topics| topics.values().flatten().count()), Some(4));
}

/// The newest value of each key, without what differs from run to run and what is this broker's own: hashes of topics,
/// times, and that no leader is named before the first generation.
fn newest<'a>(
    records: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> BTreeMap<String, Option<String>> {
    let mut newest = BTreeMap::new();
    for (key, value) in records {
        let key = Key::decode(key).unwrap();
        let value = match (&key, value) {
            (Key::Offset { .. }, _) => continue,
            (_, None) => None,
            (Key::Group(_), Some(value)) => {
                let value = GroupValue::decode(value).unwrap();
                Some(format!("{:?}", GroupValue { leader: None, state_ms: 0, ..value }))
            }
            (key, Some(value)) => Some(match ConsumerValue::decode(key, value).unwrap() {
                ConsumerValue::Epoch { epoch, .. } => format!("epoch {epoch}"),
                ConsumerValue::TargetEpoch { epoch, .. } => format!("target of epoch {epoch}"),
                ConsumerValue::Member { instance, about, classic: Some(mut classic) } => {
                    // A group that was read back knows of the chosen protocol only.
                    classic.protocols.truncate(1);
                    format!("{instance:?} {about:?} {classic:?}")
                }
                other => format!("{other:?}"),
            }),
        };
        newest.insert(format!("{key:?}"), value);
    }
    newest
}

fn kafkas(rows: std::ops::Range<usize>) -> BTreeMap<String, Option<String>> {
    let all = migration_rows();
    newest(all[rows].iter().map(|row| (row.key.as_slice(), row.value.as_deref())))
}

fn ours(machine: &mut Groups, beat: ConsumerBeat) -> BTreeMap<String, Option<String>> {
    let effects = machine.step(Event::ConsumerBeat(Ticket(1), beat), Now::default());
    let records = effects.writes.iter().flat_map(|write| &write.records);
    newest(records.map(|(key, value)| (&key[..], value.as_deref())))
}

#[test]
fn a_group_goes_over_and_back_with_the_records_that_kafka_wrote() {
    let hello = ConsumerBeat {
        group: GROUP.into(),
        member: COMES.into(),
        client_id: "rdkafka".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 300_000,
        topics: Some(vec![GROUP.into()]),
        regex: Some(String::new()),
        owned: Some(Partitions::new()),
        id_required: true,
        ..ConsumerBeat::default()
    };
    // Up to the new member's first standing.
    assert_eq!(ours(&mut at(CLASSIC), hello.clone()), kafkas(CLASSIC..17));
    let bye = ConsumerBeat { epoch: -1, ..hello };
    assert_eq!(ours(&mut at(OVER), bye), kafkas(OVER..BACK));
}
