//! Cores as threads: wiring of queues, recovery on the core's own thread, the loop until it has stopped.

use crate::core::{Core, CoreEnds, CoreSettings, Peer};
use crate::heartbeat::{Heartbeat, Phase};
use crate::link::CoreLink;
use crate::live::Live;
use crate::messages::{ControlMessage, CoreMessage, TopicDelta};
use crate::peer::{PEER_SLOTS, PeerMessage};
use ringmill_log::folder::FolderNames;
use ringmill_log::{Log, LogOptions, RecoveryError, RecoveryReport};
use ringmill_reactor::ring::{RingBackend, RingError, RingFeatures, RingOptions};
use ringmill_reactor::{Backend, Doorbell, Waker};
use ringmill_types::limits::MAILBOX_SLOTS;
use ringmill_types::{CoreId, TopicSpec};
use std::fmt;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};

/// What one core needs to start.
pub struct CoreOptions {
    pub settings: CoreSettings,
    pub log: LogOptions,
    pub ring: RingOptions,
    pub listener: TcpListener,
    /// CPU to run on; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
    pub incarnation: u128,
    pub next_partition_id: u64,
}

/// A running core.
pub struct CoreHandle {
    pub heartbeat: Arc<Heartbeat>,
    pub thread: std::thread::JoinHandle<()>,
    pub recovery: RecoveryReport,
    pub features: RingFeatures,
}

/// Why a core did not start.
#[derive(Debug)]
pub enum StartError {
    Ring(CoreId, RingError),
    Log(CoreId, RecoveryError),
    Thread(CoreId, std::io::Error),
    /// The thread ended without a word; a panic message stands above.
    Died(CoreId),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Ring(core, error) => write!(f, "core {core}: {error}"),
            StartError::Log(core, error) => write!(f, "core {core}: {error}"),
            StartError::Thread(core, error) => {
                write!(f, "a thread for core {core} could not be started: {error}")
            }
            StartError::Died(core) => write!(f, "core {core} ended while starting; its message is above"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts all cores of a broker, each recovering its own log, and returns when all of them can serve.
///
/// `topics` and `live` are control's image; version 0 of it counts as applied. `control_bell` is rung when a core said something.
///
/// # Errors
/// The first core that cannot start; the others are stopped then.
pub fn start(
    cores: Vec<CoreOptions>,
    topics: Arc<Vec<TopicSpec>>,
    live: &Arc<Live>,
    control_bell: &Doorbell,
) -> Result<(Vec<CoreLink>, Vec<CoreHandle>), StartError> {
    let count = cores.len();
    let mut queues = peer_queues(count);
    let mut links = Vec::new();
    let mut handles = Vec::new();
    let mut started = Vec::new();
    let mut waker_txs: Vec<mpsc::Sender<Vec<Waker>>> = Vec::new();
    let names = FolderNames::default();
    for (mut options, peers) in cores.into_iter().zip(queues.drain(..)) {
        options.log.folder_names = names.clone();
        let (to_core, from_control) = rtrb::RingBuffer::<CoreMessage>::new(MAILBOX_SLOTS);
        let (to_control, from_core) = rtrb::RingBuffer::<ControlMessage>::new(MAILBOX_SLOTS);
        let (ready_tx, ready_rx) = mpsc::channel();
        let (wakers_tx, wakers_rx) = mpsc::channel();
        let ends = CoreEnds { to_control, from_control, control_bell: control_bell.clone() };
        let heartbeat = Arc::new(Heartbeat::default());
        let id = options.settings.id;
        let (known, beat) = ((topics.clone(), live.clone()), heartbeat.clone());
        let thread = std::thread::Builder::new()
            .name(format!("core-{id}"))
            .spawn(move || run(options, &known, ends, peers, beat, &ready_tx, &wakers_rx))
            .map_err(|error| StartError::Thread(id, error))?;
        started.push((id, to_core, from_core, ready_rx, heartbeat, thread));
        waker_txs.push(wakers_tx);
    }
    let mut failure = None;
    for (id, to_core, from_core, ready, heartbeat, thread) in started {
        match ready.recv() {
            Ok(Ok(Ready { waker, recovery, features })) => {
                links.push(CoreLink { core: id, to_core, from_core, waker });
                handles.push(CoreHandle { heartbeat, thread, recovery, features });
            }
            Ok(Err(reason)) => failure = failure.or(Some(reason)),
            Err(_) => failure = failure.or(Some(StartError::Died(id))),
        }
    }
    if let Some(reason) = failure {
        return Err(reason);
    }
    let wakers: Vec<Waker> = links.iter().map(|l| l.waker.clone()).collect();
    for tx in waker_txs {
        // A core that is gone already has said why through its ready channel.
        let _ = tx.send(wakers.clone());
    }
    Ok((links, handles))
}

type PeerEnds = Vec<Option<(rtrb::Producer<PeerMessage>, rtrb::Consumer<PeerMessage>)>>;

/// Both ends that one core holds to another, while they are being handed out.
type HalfWired = (Option<rtrb::Producer<PeerMessage>>, Option<rtrb::Consumer<PeerMessage>>);

/// A queue from every core to every other.
fn peer_queues(count: usize) -> Vec<PeerEnds> {
    let mut ends: Vec<Vec<HalfWired>> =
        (0..count).map(|_| (0..count).map(|_| (None, None)).collect()).collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (tx, rx) = rtrb::RingBuffer::new(PEER_SLOTS);
            if let Some(place) = ends.get_mut(from).and_then(|row| row.get_mut(to)) {
                place.0 = Some(tx);
            }
            if let Some(place) = ends.get_mut(to).and_then(|row| row.get_mut(from)) {
                place.1 = Some(rx);
            }
        }
    }
    ends.into_iter().map(|row| row.into_iter().map(|(tx, rx)| tx.zip(rx)).collect()).collect()
}

struct Ready {
    waker: Waker,
    recovery: RecoveryReport,
    features: RingFeatures,
}

fn run(
    options: CoreOptions,
    known: &(Arc<Vec<TopicSpec>>, Arc<Live>),
    ends: CoreEnds,
    peers: PeerEnds,
    heartbeat: Arc<Heartbeat>,
    ready: &mpsc::Sender<Result<Ready, StartError>>,
    wakers: &mpsc::Receiver<Vec<Waker>>,
) {
    heartbeat.set_phase(Phase::Recovering);
    let (topics, live) = known;
    let id = options.settings.id;
    if let Some(cpu) = options.cpu
        && let Err(error) = ringmill_reactor::thread::pin(&[cpu])
    {
        tracing::warn!(core = id.0, cpu, %error, "the core could not be pinned; it runs wherever the kernel puts it");
    }
    let built = RingBackend::new(options.ring).map_err(|e| StartError::Ring(id, e)).and_then(|mut io| {
        let (log, recovery) =
            Log::open(&mut io, options.log, topics, options.next_partition_id, options.incarnation)
                .map_err(|e| StartError::Log(id, e))?;
        let listener = io.add_listener(options.listener);
        let (waker, features) = (io.waker(), io.features());
        let core = Core::new(io, log, options.settings, ends, heartbeat, Some(listener));
        Ok((core, Ready { waker, recovery, features }))
    });
    let mut core = match built {
        Ok((core, good)) => {
            if ready.send(Ok(good)).is_err() {
                return;
            }
            core
        }
        Err(reason) => {
            // Nobody listening means that another core failed first.
            let _ = ready.send(Err(reason));
            return;
        }
    };
    let Ok(wakers) = wakers.recv() else { return };
    core.connect(
        peers
            .into_iter()
            .zip(wakers)
            .map(|(ends, waker)| ends.map(|(to, from)| Peer::new(to, from, waker)))
            .collect(),
    );
    core.know(topics);
    core.go_by(live.clone());
    while !core.is_stopped() {
        core.turn();
    }
}

/// Wires cores that are not threads of their own to each other, in the order of their numbers.
pub fn join_peers<'a, B: Backend + 'a>(
    cores: impl ExactSizeIterator<Item = &'a mut Core<B>>,
    wakers: &[Waker],
) {
    let queues = peer_queues(cores.len());
    for (core, ends) in cores.zip(queues) {
        let peers = ends.into_iter().zip(wakers);
        core.connect(
            peers.map(|(ends, waker)| ends.map(|(to, from)| Peer::new(to, from, waker.clone()))).collect(),
        );
    }
}

impl<B: Backend> Core<B> {
    /// The topics of control's image at start.
    pub fn know(&mut self, topics: &[TopicSpec]) {
        self.topics.apply(&TopicDelta { version: 0, upserts: topics.to_vec(), ..TopicDelta::default() });
    }
}
