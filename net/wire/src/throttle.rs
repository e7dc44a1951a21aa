//! Where answers say how long the client has to pause (KIP-219), for those that somebody else encoded.

use crate::api::{ApiKey, Encoding};
use crate::frame::{LENGTH_BYTES, ResponseHead};

/// Where in an answer, with its length, the throttle time lies; `None` where the version has none. Not asked for
/// Produce, Fetch and ApiVersions, whose answers are encoded here.
fn place(head: ResponseHead) -> Option<usize> {
    let since = match head.api_key {
        ApiKey::PRODUCE | ApiKey::FETCH | ApiKey::API_VERSIONS | ApiKey::SASL_HANDSHAKE => return None,
        ApiKey::SASL_AUTHENTICATE => return None,
        ApiKey::LIST_OFFSETS
        | ApiKey::JOIN_GROUP
        | ApiKey::CREATE_TOPICS
        | ApiKey::OFFSET_FOR_LEADER_EPOCH => 2,
        ApiKey::METADATA | ApiKey::OFFSET_COMMIT | ApiKey::OFFSET_FETCH => 3,
        ApiKey::FIND_COORDINATOR
        | ApiKey::HEARTBEAT
        | ApiKey::LEAVE_GROUP
        | ApiKey::SYNC_GROUP
        | ApiKey::DESCRIBE_GROUPS
        | ApiKey::LIST_GROUPS
        | ApiKey::DELETE_TOPICS => 1,
        _ => 0,
    };
    if head.api_version < since {
        return None;
    }
    // OffsetDelete puts its error first, all others begin with it.
    let before = if head.api_key == ApiKey::OFFSET_DELETE { 2 } else { 0 };
    let tags = head.api_key.response_header_encoding(head.api_version)? == Encoding::Flexible;
    Some(LENGTH_BYTES + 4 + usize::from(tags) + before)
}

/// Writes the throttle time into an answer, `answer` beginning with its length. Versions without it stay as they are:
/// their clients only notice that they are not read.
pub fn patch_throttle(head: ResponseHead, answer: &mut [u8], throttle_ms: i32) {
    let field = place(head).and_then(|at| answer.get_mut(at..at + 4));
    if let Some(field) = field {
        field.copy_from_slice(&throttle_ms.to_be_bytes());
    }
}
