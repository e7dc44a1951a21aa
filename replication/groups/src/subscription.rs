//! Which topics a member of protocol type "consumer" is subscribed to, as far as its metadata can be read.
//!
//! ```text
//! version i16, topics [string], user data bytes, … (later versions append)
//! ```

use std::collections::BTreeSet;

/// The topics in one member's metadata; `None` when it is not a subscription.
pub(crate) fn topics_of(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let mut rest = metadata;
    let version = i16::from_be_bytes(take(&mut rest)?);
    if version < 0 {
        return None;
    }
    let count = i32::from_be_bytes(take(&mut rest)?);
    let mut topics = BTreeSet::new();
    for _ in 0..count.max(0) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        topics.insert(std::str::from_utf8(name).ok()?.to_string());
    }
    Some(topics)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::topics_of;

    #[test]
    fn reads_what_librdkafka_wrote() {
        let metadata = b"\x00\x01\x00\x00\x00\x01\x00\x02t1\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(topics_of(metadata).map(|t| t.into_iter().collect()), Some(vec!["t1".to_string()]));
        assert_eq!(topics_of(b""), None);
        assert_eq!(topics_of(b"\x00\x00\x7f\xff\xff\xff\x00\x02t1"), None);
    }
}
