//! One life of the broker in a simulation: its cores, their logs, and control's end of their queues.

use ringmill_core::heartbeat::Heartbeat;
use ringmill_core::{ControlMessage, Core, CoreEnds, CoreMessage, CoreSettings, TopicDelta, join_peers};
use ringmill_log::folder::FolderNames;
use ringmill_log::format::checkpoint::PartitionState;
use ringmill_log::{Log, LogOptions, PartitionView, RecoveryError};
use ringmill_reactor::sim::{ListenerId, SimBackend, SimRng, SimWorld};
use ringmill_reactor::{Backend, Doorbell, Waker};
use ringmill_types::limits::MAILBOX_SLOTS;
use ringmill_types::{CoreId, PartitionId, TopicSpec};
use std::sync::Arc;

/// One core and control's ends of its queues.
struct Unit {
    core: Core<SimBackend>,
    index: usize,
    listener: ListenerId,
    to_core: rtrb::Producer<CoreMessage>,
    from_core: rtrb::Consumer<ControlMessage>,
    waker: Waker,
    drained: bool,
    stopped: bool,
}

/// A running broker.
pub(crate) struct Node {
    units: Vec<Unit>,
    /// The largest write into a segment, of those that were a turn's only one.
    destage_write_bytes_max: u64,
}

/// What a turn asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Nothing,
    /// The process would have ended with this reason.
    Fatal(String),
    /// All cores have stopped.
    Stopped,
}

/// Turns in a row without a wish to sleep that much work may take: reading ahead ends after a few, and so does a burst of
/// completions.
const RESTLESS_TURNS_MAX: u64 = 200;

/// What a life begins with.
pub(crate) struct Boot<'a> {
    /// Options of core 0; the others differ in their number and folder.
    pub options: &'a LogOptions,
    pub cores: u16,
    pub topics: &'a [TopicSpec],
    pub next_partition: u64,
    /// What the cores of another number had in their last checkpoints.
    pub inherited: &'a [PartitionState],
}

impl Node {
    pub fn boot(world: &SimWorld, boot: &Boot<'_>, rng: &mut SimRng) -> Result<Node, RecoveryError> {
        let mut units = Vec::new();
        let names = FolderNames::default();
        for core in 0..boot.cores {
            units.push(Unit::open(world, boot, CoreId(core), &names, rng)?);
        }
        let wakers: Vec<Waker> = units.iter().map(|u| u.waker.clone()).collect();
        join_peers(units.iter_mut().map(|u| &mut u.core), &wakers);
        for unit in &mut units {
            unit.core.know(boot.topics);
        }
        Ok(Node { units, destage_write_bytes_max: 0 })
    }

    /// Cores that have a reason to turn.
    pub fn runnable(&self, world: &SimWorld) -> Vec<usize> {
        let ready =
            |(at, unit): (usize, &Unit)| (!unit.stopped && world.is_runnable(unit.index)).then_some(at);
        self.units.iter().enumerate().filter_map(ready).collect()
    }

    pub fn turn(&mut self, world: &SimWorld, at: usize) -> Turned {
        let Some(unit) = self.units.get_mut(at) else { return Turned::Nothing };
        let (writes, bytes) = unit.destaged();
        unit.core.turn();
        let (writes_after, bytes_after) = unit.destaged();
        if writes_after == writes + 1 {
            self.destage_write_bytes_max = self.destage_write_bytes_max.max(bytes_after - bytes);
        }
        let mut drained = false;
        while let Ok(message) = unit.from_core.pop() {
            match message {
                ControlMessage::Fatal { reason, .. } => return Turned::Fatal(reason.to_string()),
                ControlMessage::Drained { .. } => drained = true,
                ControlMessage::Stopped { .. } => unit.stopped = true,
                ControlMessage::Frame(_)
                | ControlMessage::Reply { .. }
                | ControlMessage::Limits { .. }
                | ControlMessage::Address { .. }
                | ControlMessage::Applied { .. } => {}
            }
        }
        unit.drained |= drained;
        if unit.stopped {
            world.retire_core(unit.index);
        }
        if drained && self.units.iter().all(|u| u.drained) {
            self.units.iter_mut().for_each(|u| u.tell(CoreMessage::Finish));
        }
        if self.units.iter().all(|u| u.stopped) { Turned::Stopped } else { Turned::Nothing }
    }

    /// The first core that turns although it has nothing to do until something completes.
    pub fn sleepless(&self, world: &SimWorld) -> Option<usize> {
        self.units.iter().position(|unit| world.restless_turns(unit.index) > RESTLESS_TURNS_MAX)
    }

    /// Compaction passes whose segments took the place of the old ones.
    pub fn compactions(&self) -> u64 {
        self.units.iter().map(|unit| unit.core.log().metrics().compactions).sum()
    }

    pub fn destage_write_bytes_max(&self) -> u64 {
        self.destage_write_bytes_max
    }

    /// A core to connect to: the kernel's choice.
    pub fn listener(&self, rng: &mut SimRng) -> Option<ListenerId> {
        self.units.get(rng.below(self.units.len() as u64) as usize).map(|u| u.listener)
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        for unit in &mut self.units {
            unit.tell(CoreMessage::Stop);
        }
    }

    pub fn publish(&mut self, delta: TopicDelta) {
        let delta = Arc::new(delta);
        for unit in &mut self.units {
            unit.tell(CoreMessage::Topics(delta.clone()));
        }
    }

    /// A partition as its owner has it.
    pub fn view(&self, id: PartitionId) -> Option<PartitionView> {
        self.units.iter().find_map(|unit| {
            let log = unit.core.log();
            log.slot_of(id).and_then(|slot| log.view(slot))
        })
    }

    /// Why a partition is offline, the first of them.
    pub fn offline(&self) -> Option<(PartitionId, &'static str)> {
        self.units.iter().find_map(|unit| {
            let log = unit.core.log();
            log.slots().filter_map(|slot| log.view(slot)).find_map(|v| Some((v.id, v.offline?)))
        })
    }

    pub fn describe(&self) -> String {
        let one = |unit: &Unit| {
            let log = unit.core.log();
            let ends: Vec<String> = log
                .slots()
                .filter_map(|slot| log.view(slot))
                .map(|v| {
                    let offline = v.offline.map(|why| format!(" offline: {why}")).unwrap_or_default();
                    let (start, end) = (v.log_start.0, v.log_end.0);
                    format!("{}: {start}..{}..{end}{offline}", v.id.0, v.high_watermark.0)
                })
                .collect();
            let stopped = if unit.stopped { " (stopped)" } else { "" };
            format!("{}{stopped}; partitions {}", log.describe(), ends.join(", "))
        };
        self.units.iter().map(one).collect::<Vec<_>>().join(" | ")
    }
}

impl Unit {
    /// Writes into segments, and their bytes.
    fn destaged(&self) -> (u64, u64) {
        let metrics = self.core.log().metrics();
        (metrics.destage_writes, metrics.destage_bytes)
    }

    fn open(
        world: &SimWorld,
        boot: &Boot<'_>,
        id: CoreId,
        names: &FolderNames,
        rng: &mut SimRng,
    ) -> Result<Unit, RecoveryError> {
        let (index, mut io) = world.add_core();
        let mut options = boot.options.clone();
        options.core = id;
        options.folder_names = names.clone();
        options.log_dir = options.data_dir.join(format!("core-{id}"));
        let owned = |s: &&PartitionState| {
            let mut partitions = boot.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.any(|p| p.id.0 == s.id && p.owner == id)
        };
        options.inherited = boot.inherited.iter().filter(owned).cloned().collect();
        let incarnation = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        let (log, _) = Log::open(&mut io, options, boot.topics, boot.next_partition, incarnation)?;
        let (socket, listener) = io.listen();
        let (to_core, from_control) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let (to_control, from_core) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let waker = io.waker();
        let control_bell = Doorbell::new().expect("one descriptor a life, closed with it");
        let ends = CoreEnds { to_control, from_control, control_bell };
        let mut settings = CoreSettings::new(id, 1);
        settings.slow_request_ms = u64::MAX / 2_000_000;
        let core = Core::new(io, log, settings, ends, Arc::new(Heartbeat::default()), Some(socket));
        Ok(Unit { core, index, listener, to_core, from_core, waker, drained: false, stopped: false })
    }

    fn tell(&mut self, message: CoreMessage) {
        assert!(self.to_core.push(message).is_ok(), "a simulated core is told little");
        self.waker.wake();
    }
}
