//! One life of the broker in a simulation: a core, its log, and control's end of its queues.

use ringmill_core::heartbeat::Heartbeat;
use ringmill_core::{ControlMessage, Core, CoreEnds, CoreMessage, CoreSettings};
use ringmill_log::{Log, LogOptions, RecoveryError};
use ringmill_reactor::sim::{ListenerId, SimBackend, SimWorld};
use ringmill_reactor::{Backend, Doorbell, Waker};
use ringmill_types::limits::MAILBOX_SLOTS;
use ringmill_types::{CoreId, PartitionSpec, TopicSpec};
use std::sync::Arc;

/// A running core.
pub(crate) struct Node {
    core: Core<SimBackend>,
    index: usize,
    pub listener: ListenerId,
    to_core: rtrb::Producer<CoreMessage>,
    from_core: rtrb::Consumer<ControlMessage>,
    waker: Waker,
}

/// What a turn asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Nothing,
    /// The process would have ended with this reason.
    Fatal(String),
    Stopped,
}

impl Node {
    pub fn boot(
        world: &SimWorld,
        options: LogOptions,
        topic: &TopicSpec,
        incarnation: u128,
    ) -> Result<Node, RecoveryError> {
        let (index, mut io) = world.add_core();
        let own: Vec<(&TopicSpec, &PartitionSpec)> = topic.partitions.iter().map(|p| (topic, p)).collect();
        let next_id = topic.partitions.len() as u64 + 1;
        let (log, _) = Log::open(&mut io, options, &own, next_id, incarnation)?;
        let (socket, listener) = io.listen();
        let (to_core, from_control) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let (to_control, from_core) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let waker = io.waker();
        let control_bell = Doorbell::new().expect("one descriptor a life, closed with it");
        let ends = CoreEnds { to_control, from_control, control_bell };
        let mut settings = CoreSettings::new(CoreId(0), 1);
        settings.slow_request_ms = u64::MAX / 2_000_000;
        let mut core = Core::new(io, log, settings, ends, Arc::new(Heartbeat::default()), Some(socket));
        core.know(std::slice::from_ref(topic));
        Ok(Node { core, index, listener, to_core, from_core, waker })
    }

    pub fn is_runnable(&self, world: &SimWorld) -> bool {
        world.is_runnable(self.index)
    }

    pub fn turn(&mut self) -> Turned {
        self.core.turn();
        let mut turned = Turned::Nothing;
        while let Ok(message) = self.from_core.pop() {
            match message {
                ControlMessage::Fatal { reason, .. } => turned = Turned::Fatal(reason.to_string()),
                ControlMessage::Stopped { .. } => turned = Turned::Stopped,
                ControlMessage::Frame(_)
                | ControlMessage::Reply { .. }
                | ControlMessage::Applied { .. }
                | ControlMessage::Drained { .. } => {}
            }
        }
        turned
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        for message in [CoreMessage::Stop, CoreMessage::Finish] {
            assert!(self.to_core.push(message).is_ok(), "nothing else is sent to a simulated core");
        }
        self.waker.wake();
    }

    pub fn describe(&self) -> String {
        let log = self.core.log();
        let ends: Vec<String> = log
            .slots()
            .filter_map(|slot| log.view(slot))
            .map(|v| format!("{}: {}..{}..{}", v.id.0, v.log_start.0, v.high_watermark.0, v.log_end.0))
            .collect();
        format!("{}; partitions {}", log.describe(), ends.join(", "))
    }
}
