//! What may change while cores run and is no topic's: decided by control, published like the topics.

use ringmill_wire::api_versions::Features;

/// Immutable; a change is a new one, in a [`TopicDelta`](crate::TopicDelta).
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub features: Features,
}

impl Default for Live {
    /// Nothing was ever decided.
    fn default() -> Live {
        Live { features: ringmill_wire::features::shown(|_| None, 0) }
    }
}
