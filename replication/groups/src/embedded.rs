//! What consumers of the classic protocol put into their group's bytes: subscriptions and assignments, which the
//! coordinator reads where a group goes from one protocol to the other.
//!
//! ```text
//! subscription  version i16, topics [string], user data bytes?, 1: owned [topic string, [partition i32]],
//!               2: generation i32, 3: rack string?
//! assignment    version i16, [topic string, [partition i32]], user data bytes?
//! ```
//! Big-endian, lengths of strings i16, of the rest i32, -1 for none. Later versions append; what they append is not read.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Kafka's protocol type of consumers; others (Connect) put something else into their metadata.
pub(crate) const CONSUMER: &str = "consumer";
/// The newest version that is known here.
const VERSION_MAX: i16 = 3;

/// Partitions by the name of their topic.
pub(crate) type Named = BTreeMap<String, BTreeSet<i32>>;

/// What a member wants and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub version: i16,
    pub topics: BTreeSet<String>,
    /// Empty before version 1, and from members that give up everything before they join.
    pub owned: Named,
    pub rack: Option<String>,
}

/// What a leader gave a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub partitions: Named,
    /// Words of an assignor of the clients' own, which nobody else could keep.
    pub has_user_data: bool,
}

impl Subscription {
    /// `None` when it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Subscription> {
        let mut from = Reader { rest: bytes };
        let version = from.version()?;
        let mut topics = BTreeSet::new();
        for _ in 0..from.count()? {
            topics.insert(from.string()?);
        }
        from.skip_bytes()?;
        let owned = if version >= 1 { from.partitions()? } else { Named::new() };
        if version >= 2 {
            from.i32()?;
        }
        let rack = if version >= 3 { from.nullable()? } else { None };
        Some(Subscription { version, topics, owned, rack: rack.filter(|rack| !rack.is_empty()) })
    }
}

impl Assignment {
    /// `None` when it is not one. No bytes are an assignment of nothing: a member that has not been given any yet.
    pub fn decode(bytes: &[u8]) -> Option<Assignment> {
        if bytes.is_empty() {
            return Some(Assignment::default());
        }
        let mut from = Reader { rest: bytes };
        from.version()?;
        let partitions = from.partitions()?;
        Some(Assignment { partitions, has_user_data: from.skip_bytes()? > 0 })
    }
}

/// An assignment as a member of this version of the embedded protocol reads it.
pub(crate) fn assignment(version: i16, partitions: &Named) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(&version.clamp(0, VERSION_MAX).to_be_bytes());
    put_count(&mut out, partitions.len());
    for (topic, partitions) in partitions {
        // Names of topics have at most 249 bytes.
        out.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
        put_count(&mut out, partitions.len());
        partitions.iter().for_each(|p| out.extend_from_slice(&p.to_be_bytes()));
    }
    out.extend_from_slice(&(-1i32).to_be_bytes());
    Bytes::from(out)
}

/// The version that a member's metadata has; 0 when there is none to be read.
pub(crate) fn version_of(metadata: &[u8]) -> i16 {
    Reader { rest: metadata }.version().unwrap_or(0)
}

/// The topics in one member's metadata, whatever follows them; `None` when it is not a subscription.
pub(crate) fn topics_of(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let mut from = Reader { rest: metadata };
    from.version()?;
    let mut topics = BTreeSet::new();
    for _ in 0..from.i32()?.max(0) {
        topics.insert(from.string()?);
    }
    Some(topics)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as i32).to_be_bytes());
}

/// Counts are not trusted with room: what they count is read one by one, and bytes end.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    fn version(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes).filter(|version| *version >= 0)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.i32()?).ok()
    }

    fn nullable(&mut self) -> Option<Option<String>> {
        let length = self.array().map(i16::from_be_bytes)?;
        if length == -1 {
            return Some(None);
        }
        let bytes = self.take(usize::try_from(length).ok()?)?;
        Some(Some(std::str::from_utf8(bytes).ok()?.to_string()))
    }

    fn string(&mut self) -> Option<String> {
        self.nullable()?
    }

    /// The length of the bytes that were skipped; 0 for none.
    fn skip_bytes(&mut self) -> Option<usize> {
        let length = self.i32()?;
        if length == -1 {
            return Some(0);
        }
        self.take(usize::try_from(length).ok()?).map(<[u8]>::len)
    }

    fn partitions(&mut self) -> Option<Named> {
        let mut named = Named::new();
        for _ in 0..self.count()? {
            let topic = self.string()?;
            let partitions = named.entry(topic).or_default();
            for _ in 0..self.count()? {
                partitions.insert(self.i32()?);
            }
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Of librdkafka: version 1, one topic, no user data, nothing owned.
    const KCAT: &[u8] = b"\x00\x01\x00\x00\x00\x01\x00\x02t1\x00\x00\x00\x00\x00\x00\x00\x00";
    /// Version 3: a topic, no user data, owned t1-0 and t1-2, generation 5, rack r.
    const FULL: &[u8] = b"\x00\x03\x00\x00\x00\x01\x00\x02t1\xff\xff\xff\xff\x00\x00\x00\x01\x00\x02t1\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x05\x00\x01r";

    #[test]
    fn subscriptions_of_every_version_are_read() {
        let kcat = Subscription::decode(KCAT).unwrap();
        assert_eq!((kcat.version, kcat.topics.len(), kcat.owned.len(), kcat.rack), (1, 1, 0, None));
        let full = Subscription::decode(FULL).unwrap();
        assert_eq!(full.owned, Named::from([("t1".into(), BTreeSet::from([0, 2]))]));
        assert_eq!(full.rack.as_deref(), Some("r"));
        let newer = [&[0, 9], &FULL[2..], b"more"].concat();
        assert_eq!(Subscription::decode(&newer).unwrap().owned, full.owned);
        for cut in 0..FULL.len() {
            assert_eq!(Subscription::decode(&FULL[..cut]), None, "{cut}");
        }
        assert_eq!(topics_of(KCAT), Some(BTreeSet::from(["t1".to_string()])));
        assert_eq!(topics_of(b""), None);
        assert_eq!(topics_of(b"\x00\x00\x7f\xff\xff\xff\x00\x02t1"), None);
        assert_eq!((version_of(FULL), version_of(b""), version_of(b"\xff\xff")), (3, 0, 0));
    }

    #[test]
    fn user_data_of_an_assignment_is_noticed() {
        let mut given = assignment(1, &Named::from([("t".into(), BTreeSet::from([1]))])).to_vec();
        assert!(!Assignment::decode(&given).unwrap().has_user_data);
        given.truncate(given.len() - 4);
        given.extend_from_slice(b"\x00\x00\x00\x01x");
        assert!(Assignment::decode(&given).unwrap().has_user_data);
        given.pop();
        assert_eq!(Assignment::decode(&given), None);
        assert_eq!(Assignment::decode(b""), Some(Assignment::default()));
        assert_eq!(Assignment::decode(b"\x00\x01\x7f\xff\xff\xff"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            partitions in prop::collection::btree_map("[a-z]{1,9}", prop::collection::btree_set(0..99i32, 0..5), 0..5),
            version in -2..9i16,
        ) {
            let bytes = assignment(version, &partitions);
            prop_assert_eq!(Assignment::decode(&bytes).unwrap().partitions, partitions);
            prop_assert!((0..=VERSION_MAX).contains(&version_of(&bytes)));
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Subscription::decode(&bytes), Assignment::decode(&bytes), topics_of(&bytes));
        }
    }
}
