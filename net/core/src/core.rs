//! The core loop: completions in, events applied, operations out.

use crate::accept::Accepting;
use crate::addresses::Addresses;
use crate::clients::Client;
use crate::closing::Closing;
use crate::conn::{AnswerState, Conn};
use crate::fetch::{FetchPending, Sessions, Waiters};
use crate::heartbeat::{Heartbeat, Phase, SUBMIT_WAIT_NS_MAX};
use crate::limits::Limits;
use crate::live::Live;
use crate::messages::{Answer, ConnKey, ControlMessage, CoreMessage};
use crate::metadata::Advertised;
use crate::metrics::CoreMetrics;
use crate::peer::PeerMessage;
use crate::produce::{ProducePending, RemoteWork};
use crate::served::Served;
use crate::slab::{Key, Slab};
use crate::token;
use crate::topics::Topics;
use crate::warn::About;
use ringmill_log::token::{is_logs, split, token};
use ringmill_log::{Log, LogEvent, Slot};
use ringmill_reactor::mailbox::Doorbell;
use ringmill_reactor::{Backend, Buf, Completion, Op, SocketId, Waker};
use ringmill_types::{CoreId, GroupSeq};
use ringmill_wire::api_versions::ApiVersionsAnswers;
use std::collections::VecDeque;
use std::sync::Arc;

/// Sends of this size and more go without copying: none, as that loses on loopback and was not measured elsewhere
/// (kernel-notes/send.md).
pub const ZERO_COPY_FROM_BYTES: usize = usize::MAX;

/// Settings of a core that are not its log's.
#[derive(Clone, Debug)]
pub struct CoreSettings {
    pub id: CoreId,
    pub node_id: i32,
    /// A larger frame closes the connection.
    pub request_bytes_max: usize,
    pub idle_ms: u64,
    /// A frame must be complete this long after its first byte.
    pub frame_ms: u64,
    pub slow_request_ms: u64,
    pub connections_max: usize,
    pub zero_copy_from_bytes: usize,
    pub sessions_max: usize,
    /// Move a connection to the core that owns most of its bytes.
    pub move_connections: bool,
    /// What Metadata says of this broker.
    pub advertised: Advertised,
    /// A topic that Metadata names is made, where its client does not mind.
    pub auto_create: bool,
}

impl CoreSettings {
    pub fn new(id: CoreId, node_id: i32) -> CoreSettings {
        CoreSettings {
            id,
            node_id,
            request_bytes_max: ringmill_types::limits::REQUEST_MAX_BYTES_DEFAULT,
            idle_ms: 600_000,
            frame_ms: 30_000,
            slow_request_ms: 1_000,
            connections_max: 100_000,
            zero_copy_from_bytes: ZERO_COPY_FROM_BYTES,
            sessions_max: 1_000,
            move_connections: true,
            advertised: Advertised { host: "localhost".into(), port: 9092, cluster_id: String::new() },
            auto_create: true,
        }
    }
}

/// Queues to one other core.
pub(crate) struct Peer {
    pub to: rtrb::Producer<PeerMessage>,
    pub from: rtrb::Consumer<PeerMessage>,
    pub waker: Waker,
    /// Messages that found the queue full, in order.
    pub backlog: VecDeque<PeerMessage>,
    pub dirty: bool,
}

impl Peer {
    pub fn new(to: rtrb::Producer<PeerMessage>, from: rtrb::Consumer<PeerMessage>, waker: Waker) -> Peer {
        Peer { to, from, waker, backlog: VecDeque::new(), dirty: false }
    }
}

/// Ends of the queues that a core holds.
pub struct CoreEnds {
    pub to_control: rtrb::Producer<ControlMessage>,
    pub from_control: rtrb::Consumer<CoreMessage>,
    pub control_bell: Doorbell,
}

/// One core: everything a thread needs to serve its connections and partitions.
pub struct Core<B: Backend> {
    pub(crate) io: B,
    pub(crate) log: Log,
    pub(crate) settings: CoreSettings,
    pub(crate) topics: Topics,
    pub(crate) conns: Slab<Conn>,
    pub(crate) produces: Slab<ProducePending>,
    pub(crate) durable_queue: VecDeque<(GroupSeq, Key)>,
    pub(crate) sealed_queue: VecDeque<(GroupSeq, Key)>,
    pub(crate) stalled: VecDeque<Key>,
    pub(crate) remote_work: VecDeque<RemoteWork>,
    pub(crate) remote_durable: VecDeque<(GroupSeq, RemoteWork)>,
    pub(crate) remote_sealed: VecDeque<(GroupSeq, RemoteWork)>,
    pub(crate) fetches: Slab<FetchPending>,
    pub(crate) waiters: Waiters,
    pub(crate) sessions: Sessions,
    /// Fetches to look at again in this turn.
    pub(crate) poke: Vec<Key>,
    pub(crate) peers: Vec<Option<Peer>>,
    pub(crate) offset_queries: Slab<crate::queries::OffsetsPending>,
    pub(crate) time_tickets: std::collections::HashMap<u64, (Key, usize)>,
    pub(crate) control_reads: std::collections::HashMap<u64, crate::reading::ControlRead>,
    pub(crate) next_time_ticket: u64,
    pub(crate) log_starts: VecDeque<crate::queries::LogStarts>,
    ends: CoreEnds,
    control_backlog: VecDeque<ControlMessage>,
    control_dirty: bool,
    pub(crate) listener: Option<SocketId>,
    pub(crate) accepting: Accepting,
    pub(crate) metrics: CoreMetrics,
    pub(crate) heartbeat: Arc<Heartbeat>,
    pub(crate) now_ns: u64,
    last_turn: Option<LastTurn>,
    next_sweep_ns: u64,
    /// Bytes received up to the last sweep that saw more than the one before it, and when that was.
    swept_bytes: u64,
    swept_ns: u64,
    /// A large frame had no memory while so much of the pool was used.
    pub(crate) starved_at_bytes: Option<u64>,
    /// Whose large frame is the oldest of those: it goes first when memory becomes free.
    pub(crate) next_fed: Option<Key>,
    /// The largest frame that had a buffer of its own.
    pub(crate) largest_frame: usize,
    pub(crate) stopping: bool,
    stop_deadline_ns: u64,
    /// What was in flight is answered, or had its time.
    drained: bool,
    /// No other core needs this one's log any more.
    may_finish: bool,
    stopped: bool,
    deltas: VecDeque<Arc<crate::messages::TopicDelta>>,
    pub(crate) send_queue: Vec<Key>,
    /// Connections whose next request, for Metadata, waits for the next turn, and what was encoded of it in this one.
    pub(crate) resting: VecDeque<Key>,
    pub(crate) metadata_turn_bytes: usize,
    pub(crate) versions: ApiVersionsAnswers,
    pub(crate) live: Arc<Live>,
    pub(crate) limits: Limits,
    pub(crate) addresses: Addresses,
}

/// The turn before this one.
struct LastTurn {
    worked_ns: u64,
    /// When it was to be back from the kernel, if it had operations for it.
    until_ns: u64,
}

/// How long a stop waits for requests that are in flight.
const STOP_GRACE_NS: u64 = 5_000_000_000;
const SWEEP_NS: u64 = 500_000_000;
const SWEEP_ALONE_NS: u64 = 60_000_000_000;
/// Memory that was used once is kept for what comes next, until nothing was received for so long: new pages are dear in a
/// virtual machine (`kernel-notes/pages.md`), and loads pause.
const SILENCE_NS: u64 = 300_000_000_000;
/// Completions handled before the ring is entered again, so that a flush is never held up by a burst.
const TURN_COMPLETIONS_MAX: usize = 512;

impl<B: Backend> Core<B> {
    pub fn new(
        io: B,
        log: Log,
        settings: CoreSettings,
        ends: CoreEnds,
        heartbeat: Arc<Heartbeat>,
        listener: Option<SocketId>,
    ) -> Core<B> {
        let now_ns = io.now_ns();
        let sessions = Sessions::new(settings.id, settings.sessions_max);
        Core {
            io,
            log,
            settings,
            topics: Topics::default(),
            conns: Slab::new(),
            produces: Slab::new(),
            durable_queue: VecDeque::new(),
            sealed_queue: VecDeque::new(),
            stalled: VecDeque::new(),
            remote_work: VecDeque::new(),
            remote_durable: VecDeque::new(),
            remote_sealed: VecDeque::new(),
            fetches: Slab::new(),
            waiters: Waiters::default(),
            sessions,
            poke: Vec::new(),
            peers: Vec::new(),
            offset_queries: Slab::new(),
            time_tickets: std::collections::HashMap::new(),
            control_reads: std::collections::HashMap::new(),
            next_time_ticket: 0,
            log_starts: VecDeque::new(),
            ends,
            control_backlog: VecDeque::new(),
            control_dirty: false,
            listener,
            accepting: Accepting::default(),
            metrics: CoreMetrics::default(),
            heartbeat,
            now_ns,
            last_turn: None,
            next_sweep_ns: now_ns + SWEEP_NS,
            swept_bytes: 0,
            swept_ns: now_ns,
            starved_at_bytes: None,
            next_fed: None,
            largest_frame: 0,
            stopping: false,
            stop_deadline_ns: u64::MAX,
            drained: false,
            may_finish: false,
            stopped: false,
            deltas: VecDeque::new(),
            send_queue: Vec::new(),
            resting: VecDeque::new(),
            metadata_turn_bytes: 0,
            versions: ApiVersionsAnswers::new(&Live::default().features),
            live: Arc::default(),
            limits: Limits::default(),
            addresses: Addresses::default(),
        }
    }

    /// Hands over the queues to the other cores, by their numbers; `None` at its own.
    pub(crate) fn connect(&mut self, peers: Vec<Option<Peer>>) {
        self.peers = peers;
    }

    /// Everything from control is drained, flushed, destaged and checkpointed.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The backend, for whoever drives the core.
    pub fn io(&mut self) -> &mut B {
        &mut self.io
    }

    /// The log, for checks.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// One turn: completions, messages, timers, answers, log; then into the kernel until something happens.
    pub fn turn(&mut self) {
        let began = self.io.now_ns();
        self.now_ns = began;
        self.count_last_turn();
        self.metrics.turns += 1;
        self.heartbeat.turn(began);
        self.heartbeat.set_phase(Phase::Completions);
        self.start_accepting();
        self.resume_resting();
        let mut handled = 0;
        while handled < TURN_COMPLETIONS_MAX {
            let Some(completion) = self.io.pop() else { break };
            handled += 1;
            if is_logs(completion.token) {
                self.log.complete(&mut self.io, completion);
            } else {
                self.complete(completion);
            }
        }
        self.heartbeat.set_phase(Phase::Control);
        self.drain_peers();
        self.drain_control();
        self.apply_deltas();
        self.apply_log_events();
        self.heartbeat.set_phase(Phase::Requests);
        self.run_pokes();
        self.heartbeat.set_phase(Phase::Timers);
        self.run_timers();
        self.heartbeat.set_phase(Phase::Log);
        self.log.poll(&mut self.io);
        self.apply_log_events();
        self.run_pokes();
        self.heartbeat.set_phase(Phase::Answering);
        self.flush_sends();
        self.flush_messages();
        let has_more = self.check_stop() || handled >= TURN_COMPLETIONS_MAX || !self.resting.is_empty();
        let now = self.io.now_ns();
        let mut deadline = if has_more { 0 } else { self.deadline_ns() };
        let (phase, until_ns) = if self.stopped {
            (Phase::Stopping, u64::MAX)
        } else if self.io.submits() {
            deadline = deadline.min(now + SUBMIT_WAIT_NS_MAX);
            (Phase::Submitting, deadline.max(now))
        } else {
            (Phase::Waiting, u64::MAX)
        };
        self.last_turn = Some(LastTurn { worked_ns: now.saturating_sub(began), until_ns });
        self.heartbeat.set_phase(phase);
        self.io.enter(Some(deadline));
    }

    /// A turn is counted when the next one begins: only then is known whether the kernel took its operations in time.
    fn count_last_turn(&mut self) {
        const LATE_NS_MIN: u64 = 1_000_000;
        if let Some(LastTurn { worked_ns, until_ns }) = self.last_turn.take() {
            let late_ns = self.now_ns.saturating_sub(until_ns);
            let late_ns = if late_ns < LATE_NS_MIN { 0 } else { late_ns };
            self.metrics.turn_us.record((worked_ns + late_ns) / 1000);
        }
    }

    fn deadline_ns(&self) -> u64 {
        // While nobody is connected the sweep can wait for whoever comes; nothing else can.
        let is_alone = self.conns.len() == 0 && !self.stopping;
        let sweep_ns = if is_alone { self.now_ns + SWEEP_ALONE_NS } else { self.next_sweep_ns };
        let mut deadline = sweep_ns.min(self.stop_deadline_ns);
        if let Some(at) = self.log.deadline_ns() {
            deadline = deadline.min(at);
        }
        if let Some(at) = self.waiters.next_deadline_ns() {
            deadline = deadline.min(at);
        }
        if let Some(at) = self.limits.next_deadline_ns() {
            deadline = deadline.min(at);
        }
        if let Some(at) = self.addresses.next_deadline_ns() {
            deadline = deadline.min(at);
        }
        if let Some(at) = self.accept_deadline_ns() {
            deadline = deadline.min(at);
        }
        deadline
    }

    fn complete(&mut self, completion: Completion) {
        let (kind, value) = split(completion.token);
        match kind {
            token::ACCEPT => self.accepted(completion),
            token::RECV => self.received(Key::unpack(value), completion),
            token::FILL => self.filled(Key::unpack(value), completion),
            token::SEND => self.sent(Key::unpack(value), completion),
            token::UNPACKED => self.unpacked(Key::unpack(value), completion),
            _ => {}
        }
    }

    /// Takes up a connection, new or from another core.
    pub(crate) fn open(
        &mut self,
        socket: SocketId,
        peer: std::net::SocketAddr,
        client: Option<Client>,
        input: Vec<u8>,
    ) {
        let (core, now_ns) = (self.settings.id, self.now_ns);
        let key = self.conns.insert(|key| {
            let mut conn = Conn::new(
                ConnKey { core, slot: key.slot, serial: u64::from(key.serial) },
                socket,
                peer,
                now_ns,
            );
            conn.client = client.unwrap_or_else(|| Client::new(now_ns));
            conn.input = input;
            conn
        });
        self.metrics.connections += 1;
        if self.stopping {
            self.end(key, None);
        }
        self.advance_input(key);
    }

    /// Takes no further request of the connection: it closes when the answers to those it took have left, or its peer
    /// does not take them.
    pub(crate) fn end(&mut self, key: Key, reason: Option<Closing>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.ending {
            conn.ending = true;
            conn.input = Vec::new();
            conn.large_part = None;
            conn.large_need = 0;
            // A long poll has nothing more to wait for.
            self.poke.extend(conn.fetch);
            let peer = conn.peer;
            self.note_closing(peer, reason);
        }
        self.close_if_done(key);
    }

    pub(crate) fn close_if_done(&mut self, key: Key) {
        if self.conns.get(key).is_some_and(|conn| conn.ending && conn.owes_nothing()) {
            self.close(key, None);
        }
    }

    fn note_closing(&mut self, peer: std::net::SocketAddr, reason: Option<Closing>) {
        if let Some(reason) = reason {
            self.metrics.connections_closed_error += 1;
            crate::warn::limited(About::Peers, self.now_ns, || {
                tracing::warn!(core = self.settings.id.0, %peer, "closed a connection: {reason}");
            });
        }
    }

    /// Closes at once: the peer is gone, or does not take what it is owed.
    pub(crate) fn close(&mut self, key: Key, reason: Option<Closing>) {
        if let Some((served, _)) = self.decided(key, None, false) {
            self.look_if_slow(key, &served);
        }
        let Some(conn) = self.conns.remove(key) else { return };
        self.metrics.connections -= 1;
        self.metrics.muted_connections -= u64::from(conn.stalled);
        self.limits.closed(key, conn.paused_until_ns);
        self.note_closing(conn.peer, reason);
        if let Some(session) = conn.session {
            self.sessions.note_gone(session);
        }
        self.poke.extend(conn.fetch);
        self.io.push(Op::Close { socket: conn.socket }, token(token::CLOSE, 0));
    }

    pub(crate) fn tell_control(&mut self, message: ControlMessage) {
        self.control_backlog.push_back(message);
        self.control_dirty = true;
    }

    pub(crate) fn tell_peer(&mut self, core: CoreId, message: PeerMessage) {
        if let Some(Some(peer)) = self.peers.get_mut(core.0 as usize) {
            peer.backlog.push_back(message);
            peer.dirty = true;
        }
    }

    fn flush_messages(&mut self) {
        while let Some(message) = self.control_backlog.pop_front() {
            if let Err(rtrb::PushError::Full(message)) = self.ends.to_control.push(message) {
                self.control_backlog.push_front(message);
                break;
            }
        }
        if std::mem::take(&mut self.control_dirty) {
            self.ends.control_bell.ring();
        }
        for peer in self.peers.iter_mut().flatten() {
            while let Some(message) = peer.backlog.pop_front() {
                if let Err(rtrb::PushError::Full(message)) = peer.to.push(message) {
                    peer.backlog.push_front(message);
                    break;
                }
            }
            if std::mem::take(&mut peer.dirty) {
                peer.waker.wake();
            }
            peer.dirty = !peer.backlog.is_empty();
        }
        self.control_dirty = !self.control_backlog.is_empty();
    }

    fn drain_control(&mut self) {
        while let Ok(message) = self.ends.from_control.pop() {
            match message {
                CoreMessage::Answer(answer) => self.control_answered(answer),
                CoreMessage::Topics(delta) => self.deltas.push_back(delta),
                CoreMessage::Limits { client, limits } => self.limits_known(client, limits),
                CoreMessage::Address { address, rate } => self.address_known(address, rate),
                CoreMessage::Query { id, query } => self.answer_query(id, query),
                CoreMessage::SegmentDamaged { partition, base, what } => {
                    if !self.log.segment_damaged(partition, base, &what) {
                        tracing::info!(
                            partition = partition.0,
                            base = base.0,
                            "a segment that upkeep found damaged is gone"
                        );
                    }
                }
                CoreMessage::Stop => self.begin_stop(),
                CoreMessage::Finish => self.may_finish = true,
            }
        }
    }

    fn control_answered(&mut self, mut answer: Answer) {
        let key = Key { slot: answer.conn.slot, serial: answer.conn.serial as u32 };
        let refusal = answer.refusal.take();
        let Some((served, prepared)) = self.decided(key, Some(answer.slot), answer.failed) else { return };
        if let Some(why) = refusal {
            self.look_if_slow(key, &served);
            self.answer_nothing(key, answer.slot, Closing::Refused(why));
            return;
        }
        let mut bytes = prepared.unwrap_or_else(|| {
            let mut bytes = Vec::with_capacity(4 + answer.bytes.len());
            bytes.extend_from_slice(&(answer.bytes.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&answer.bytes);
            bytes
        });
        self.charge_for_control(key, &answer, &mut bytes);
        self.answer(key, answer.slot, AnswerState::Ready(vec![Buf::from_vec(bytes)], served));
    }

    /// The wait of a request for control is over: it is answered, or its connection has gone. What its answer is, where
    /// that was known before.
    fn decided(&mut self, key: Key, slot: Option<u64>, failed: bool) -> Option<(Served, Option<Vec<u8>>)> {
        let deciding = &mut self.conns.get_mut(key)?.deciding;
        let mut deciding = deciding.take_if(|deciding| slot.is_none_or(|slot| slot == deciding.slot))?;
        let prepared = deciding.prepared.take();
        let served = deciding.served(self.now_ns);
        self.metrics.other.answered(served.wait_us, failed);
        Some((served, prepared))
    }

    fn apply_log_events(&mut self) {
        while let Some(event) = self.log.next_event() {
            match event {
                LogEvent::Durable(group) => {
                    self.groups_durable(group);
                    self.log_starts_durable(group);
                }
                LogEvent::Sealed(group) => self.groups_sealed(group),
                LogEvent::Advanced(slot) => self.partition_advanced(slot),
                LogEvent::Block(ticket) => self.block_ready(ticket),
                LogEvent::Found { ticket, found } => self.time_found(ticket, found),
                LogEvent::Room => self.room(),
                LogEvent::Fatal(reason) => {
                    let core = self.settings.id;
                    self.tell_control(ControlMessage::Fatal { core, reason });
                }
            }
        }
        while let Some((micros, bytes)) = self.log.take_flush_sample() {
            self.metrics.flush_us.record(micros);
            self.metrics.flush_group_bytes.record(bytes);
        }
    }

    fn partition_advanced(&mut self, slot: Slot) {
        self.waiters.advanced(slot, &mut self.poke);
        self.tell_watchers();
    }

    fn apply_deltas(&mut self) {
        while let Some(delta) = self.deltas.front().cloned() {
            let own = self.settings.id;
            let log = &mut self.log;
            for id in &delta.deletes {
                for partition in self.topics.partitions_of(*id) {
                    let Some(slot) = log.slot_of(partition.id).filter(|_| partition.owner == own) else {
                        continue;
                    };
                    if !log.delete(&mut self.io, partition.id) {
                        // No room for the tombstone in this turn; the rest follows when there is.
                        return;
                    }
                    // Who waits for more of it has nothing to wait for.
                    self.waiters.advanced(slot, &mut self.poke);
                }
            }
            for topic in &delta.upserts {
                for spec in topic.partitions.iter().filter(|p| p.owner == own) {
                    log.upsert(topic, spec);
                }
            }
            self.topics.apply(&delta);
            self.tell_watchers();
            if let Some(live) = &delta.live {
                self.go_by(live.clone());
            }
            self.deltas.pop_front();
            let core = own;
            self.tell_control(ControlMessage::Applied { core, version: delta.version });
        }
    }

    fn run_timers(&mut self) {
        self.end_pauses();
        self.close_refused(self.now_ns);
        self.waiters.expired(self.now_ns, &mut self.poke);
        self.run_pokes();
        if self.starved_at_bytes.is_some_and(|then| self.io.pool().stats().used_bytes < then) {
            self.feed();
        }
        if self.now_ns < self.next_sweep_ns {
            return;
        }
        self.next_sweep_ns = self.now_ns + SWEEP_NS;
        if self.metrics.bytes_received != self.swept_bytes {
            (self.swept_bytes, self.swept_ns) = (self.metrics.bytes_received, self.now_ns);
        } else if self.now_ns.saturating_sub(self.swept_ns) >= SILENCE_NS {
            self.io.pool().trim();
        }
        self.expire_stalled();
        let (idle_ns, frame_ns, now) =
            (self.settings.idle_ms * 1_000_000, self.settings.frame_ms * 1_000_000, self.now_ns);
        for key in self.conns.keys() {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let paused = conn.paused_until_ns > now;
            let held = conn.barrier || conn.choked || conn.resting;
            if conn.stalled || paused || held || conn.waiting() > 0 {
                conn.frame_since_ns = now;
            }
            if let Some(reason) = conn.overdue(now, frame_ns) {
                self.close(key, Some(reason));
            } else if conn.sending && now.saturating_sub(conn.send_since_ns) > frame_ns {
                self.close(key, Some(Closing::ReaderTooSlow { seconds: frame_ns / 1_000_000_000 }));
            } else if idle_ns > 0 && conn.is_quiet(now) && now.saturating_sub(conn.last_active_ns) > idle_ns {
                self.metrics.connections_closed_idle += 1;
                self.close(key, None);
            }
        }
        if self.feed() {
            self.make_way();
        }
    }

    fn begin_stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.stop_deadline_ns = self.now_ns + STOP_GRACE_NS;
        if let Some(listener) = self.listener.take() {
            self.io.push(Op::Close { socket: listener }, token(token::CLOSE, 0));
        }
        self.close_refused(u64::MAX);
        for key in self.conns.keys() {
            self.end(key, None);
        }
    }

    /// Goes on with the stop, as far as it can; whether there is more to do at once.
    fn check_stop(&mut self) -> bool {
        if !self.stopping || self.stopped {
            return self.stopped;
        }
        let idle = self.conns.len() == 0
            && self.produces.len() == 0
            && self.remote_work.is_empty()
            && self.remote_durable.is_empty()
            && self.remote_sealed.is_empty();
        if !self.drained && (idle || self.now_ns >= self.stop_deadline_ns) {
            self.drained = true;
            self.stop_deadline_ns = u64::MAX;
            let seconds = STOP_GRACE_NS / 1_000_000_000;
            for key in self.conns.keys() {
                self.close(key, Some(Closing::StopGrace { seconds }));
            }
            let core = self.settings.id;
            self.tell_control(ControlMessage::Drained { core });
            self.flush_messages();
        }
        let finishes = self.drained && std::mem::take(&mut self.may_finish);
        if finishes {
            self.log.stop();
        }
        if self.log.is_stopped() {
            self.stopped = true;
            let core = self.settings.id;
            let without_room = self.log.without_room();
            self.tell_control(ControlMessage::Stopped { core, without_room });
            self.flush_messages();
        }
        // The log begins its last work in the next turn.
        finishes || self.stopped
    }

    fn drain_peers(&mut self) {
        for at in 0..self.peers.len() {
            while let Some(message) =
                self.peers.get_mut(at).and_then(|p| p.as_mut()).and_then(|p| p.from.pop().ok())
            {
                self.peer_message(CoreId(at as u16), message);
            }
        }
    }

    fn peer_message(&mut self, from: CoreId, message: PeerMessage) {
        match message {
            PeerMessage::Append(append) => self.remote_append(append),
            PeerMessage::Appended { key, part, result, give_back } => {
                drop(give_back);
                self.remote_appended(key, part, result);
            }
            PeerMessage::Read { from, key, round, reads, max_bytes, watch_below_bytes } => {
                self.remote_read(from, key, round, &reads, max_bytes, watch_below_bytes)
            }
            PeerMessage::ReadDone { key, round, results, watched } => {
                self.remote_read_done(from, key, round, results, watched)
            }
            PeerMessage::Advanced { key } => self.poke.push(key),
            PeerMessage::Unwatch { from, key } => self.waiters.unwatch_remote(from, key),
            PeerMessage::Adopt { socket, peer, client, input } => {
                let socket = self.io.adopt_socket(socket);
                self.open(socket, peer, Some(client), input);
            }
        }
    }

    pub(crate) fn move_away(&mut self, key: Key, target: u16) {
        let Some(conn) = self.conns.remove(key) else { return };
        self.metrics.connections -= 1;
        if let Some(session) = conn.session {
            self.sessions.note_gone(session);
        }
        if let Some(socket) = self.io.release_socket(conn.socket) {
            let (peer, client, input) = (conn.peer, conn.client, conn.input);
            self.tell_peer(CoreId(target), PeerMessage::Adopt { socket, peer, client, input });
        }
    }

    /// Counts where a connection's bytes belong; after enough of them it moves to the core that owns most.
    pub(crate) fn count_bytes(&mut self, key: Key, own: u64, foreign: u64, owner: Option<CoreId>) {
        const DECIDE_AFTER_BYTES: u64 = 256 << 10;
        if !self.settings.move_connections {
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.own_bytes += own;
        conn.foreign_bytes += foreign;
        if conn.own_bytes + conn.foreign_bytes < DECIDE_AFTER_BYTES {
            return;
        }
        // One whose peer has ended is not worth it.
        if let Some(owner) = owner.filter(|_| conn.foreign_bytes > conn.own_bytes * 9 && !conn.eof) {
            conn.move_to = Some(owner.0);
        }
        conn.own_bytes = 0;
        conn.foreign_bytes = 0;
    }
}
