//! Topics that are the broker's own. Clients may read them; only the broker writes to them.

/// Where the group coordinator keeps groups and committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Kafka's list, whether or not the topic has a meaning here: what a client keeps under such a name today would be in the
/// way of what it will mean.
pub fn is_internal(topic: &str) -> bool {
    matches!(topic, OFFSETS_TOPIC | "__transaction_state" | "__share_group_state")
}
