//! Records as a real Kafka 4.3.1 wrote them: `__consumer_offsets` after a console consumer, kcat and a static kcat had
//! read a topic and gone, and one group was deleted (`tests/golden/consumer_offsets.txt`: partition, offset, key, value
//! in hexadecimal).
#![allow(clippy::unwrap_used)]

use ringmill_groups::records::{ConsumerValue, GroupValue, Key, OffsetValue};
use ringmill_groups::{GroupConfig, Groups, Now, State, partition_of};

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
