//! Control's end of the queues to one core.

use crate::messages::{ControlMessage, CoreMessage};
use ringmill_reactor::Waker;
use ringmill_types::CoreId;

/// Queues between control and one core, control's side. Bounded by `limits::MAILBOX_SLOTS`.
pub struct CoreLink {
    pub core: CoreId,
    pub to_core: rtrb::Producer<CoreMessage>,
    pub from_core: rtrb::Consumer<ControlMessage>,
    /// Call after pushing to `to_core`.
    pub waker: Waker,
}
