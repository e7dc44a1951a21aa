//! Records of `__consumer_offsets`, which other brokers write too: whatever they say, the coordinator comes up with them
//! and goes on.

use ringmill_groups::records::{ConsumerValue, GroupValue, Key, OffsetValue};
use ringmill_groups::{Event, GroupConfig, Groups, Heartbeat, Now, Ticket};

/// A length that stands for a record without a value.
const NO_VALUE: u16 = u16::MAX;
/// Long enough for every session and for the retention of offsets.
const LATER_MS: u64 = 30 * 24 * 3600 * 1000;

/// Records one after another: length (big-endian, 16 bits) and key, length and value. Each is taken to pieces and put
/// together again, all are loaded into a coordinator, which then lives through a month.
pub fn group_records(data: &[u8]) {
    let mut machine = Groups::new(GroupConfig::default(), 50, Now::default());
    let mut rest = data;
    while let Some((key, value)) = next_record(&mut rest) {
        if let Ok(key) = Key::decode(key) {
            assert_eq!(Key::decode(&key.encode()).as_ref(), Ok(&key));
            if let Some(value) = value {
                check_value(&key, value);
            }
        }
        // One that is refused changes nothing; that the next ones are taken is what matters.
        let _ = machine.load(key, value);
    }
    machine.loaded(Now::default());
    let listed: Vec<_> = machine.list().collect();
    for group in &listed {
        let _ = (machine.describe(&group.id), machine.describe_consumers(&group.id));
        for (topic, partitions) in machine.offsets(&group.id).into_iter().flatten() {
            assert!(
                partitions.keys().all(|partition| machine.offset(&group.id, topic, *partition).is_some())
            );
        }
    }
    // A stranger's heartbeat to each, then time in which every session ends; what is written for that is stored.
    let mut now = Now::default();
    for (group, ticket) in listed.iter().zip(1..) {
        let beat = Heartbeat { group: group.id.to_string(), ..Heartbeat::default() };
        let effects = machine.step(Event::Heartbeat(Ticket(ticket), beat), now);
        assert_eq!(effects.answers.len(), 1);
        stored(&mut machine, effects.writes, now);
    }
    now = Now { mono_ms: LATER_MS, wall_ms: LATER_MS as i64 };
    let effects = machine.step(Event::Tick, now);
    stored(&mut machine, effects.writes, now);
}

fn next_record<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let mut field = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = u16::from_be_bytes(*length);
        let bytes = if length == NO_VALUE { 0 } else { usize::from(length) };
        let (field, after) = after.split_at_checked(bytes)?;
        *rest = after;
        Some((length != NO_VALUE).then_some(field))
    };
    let key = field()?.unwrap_or_default();
    Some((key, field()?))
}

/// What was read can be written, and is the same when it is read again.
fn check_value(key: &Key, value: &[u8]) {
    match key {
        Key::Offset { .. } => {
            if let Ok(value) = OffsetValue::decode(value) {
                // Either it has a time of its own or its topic's id: no version that is written has both.
                let again = OffsetValue::decode(&value.encode()).expect("what was read can be written");
                assert_eq!((again.offset, &again.metadata), (value.offset, &value.metadata));
            }
        }
        Key::Group(_) => {
            if let Ok(value) = GroupValue::decode(value) {
                assert_eq!(GroupValue::decode(&value.encode()), Ok(value));
            }
        }
        Key::ConsumerGroup(_)
        | Key::ConsumerMember { .. }
        | Key::TargetEpoch(_)
        | Key::Target { .. }
        | Key::Standing { .. }
        | Key::Pattern { .. } => {
            if let Ok(value) = ConsumerValue::decode(key, value) {
                assert_eq!(ConsumerValue::decode(key, &value.encode()), Ok(value));
            }
        }
    }
}

/// Every write, and what follows from it, becomes durable.
fn stored(machine: &mut Groups, mut writes: Vec<ringmill_groups::Write>, now: Now) {
    while let Some(write) = writes.pop() {
        for (key, _) in &write.records {
            assert!(Key::decode(key).is_ok(), "the coordinator writes what it can read");
        }
        writes.extend(machine.step(Event::Durable(write.id), now).writes);
    }
    assert_eq!(machine.writes_under_way(), 0);
}
