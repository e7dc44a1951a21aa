//! Control as a thread: its options from the settings, its runtime, and how its end becomes an [`Event`].

use crate::args::{Address, BrokerOptions};
use crate::config::Config;
use crate::exit::{Failure, Reason, core_failure};
use crate::identity::Identity;
use crate::signals::Event;
use ringmill_control::admin::{self, AdminRequest};
use ringmill_control::control::Ended;
use ringmill_control::groups::{GroupConfig, GroupSettings};
use ringmill_control::metrics_text::ScrubSource;
use ringmill_control::{BrokerDefaults, Control, ControlEvent, ControlOptions, SegmentDamage, specs_of};
use ringmill_core::CoreLink;
use ringmill_core::heartbeat::Heartbeat;
use ringmill_metadata::{FileJournal, Image};
use ringmill_reactor::Doorbell;
use ringmill_types::{TopicSpec, limits};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Of the memory setting, what members of groups may say of themselves: one part in so many. It lies outside the pools.
const MEMORY_SHARE_OF_GROUPS: u64 = 8;
/// Admin requests that may wait; a further one waits in its connection.
const ADMIN_QUEUE: usize = 64;
/// Events that may wait: damaged segments, and one place for the stop.
const EVENTS: usize = 65;

/// What control is told about this broker.
pub struct Brief<'a> {
    pub options: &'a BrokerOptions,
    pub identity: &'a Identity,
    pub advertised: &'a Address,
    pub data: &'a Path,
}

/// What control takes over.
pub struct Wiring {
    pub image: Image,
    pub journal: FileJournal,
    pub links: Vec<CoreLink>,
    pub bell: Doorbell,
    pub admin: TcpListener,
    /// One for each core, in order: what a core that does not answer was doing.
    pub heartbeats: Vec<Arc<Heartbeat>>,
    /// The scrub's numbers, where there is an upkeep thread.
    pub scrub: Option<ScrubSource>,
}

/// The control thread. Ends when all cores have stopped, or one must not go on.
pub struct ControlThread {
    events: mpsc::Sender<ControlEvent>,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// Asks for the orderly stop; its end comes as [`Event::Stopped`].
    pub fn stop(&self) {
        // One place is kept for it, and there is one stop; a control that is gone has sent its own event.
        let _ = self.events.try_send(ControlEvent::Stop);
    }

    /// Has the partition's core look after a damaged segment. When too many wait, the next round finds it again.
    pub fn segment_damaged(&self, damage: SegmentDamage) {
        if self.events.capacity() > 1 {
            let _ = self.events.try_send(ControlEvent::SegmentDamaged(damage));
        }
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// # Errors
    /// [`Reason::Internal`] when it panicked.
    pub fn join(self) -> Result<(), Failure> {
        self.thread
            .join()
            .map_err(|_| Failure::new(Reason::Internal, "Control panicked; its message is above."))
    }
}

/// The cores' view of an image, with the broker's defaults applied.
pub fn topics(image: &Image, options: &BrokerOptions) -> Vec<TopicSpec> {
    specs_of(image, &defaults(options))
}

/// What topics get that say nothing themselves.
fn defaults(options: &BrokerOptions) -> BrokerDefaults {
    let config = &options.config;
    let file_bytes = config.settings.core_log_file_bytes.expect("the configuration check fills it in");
    let given = config.entries().into_iter().filter(|(_, _, given)| *given);
    BrokerDefaults {
        values: given
            .filter_map(|(key, value, _)| value.map(|value| (key.name.to_string(), value)))
            .collect(),
        allow_relaxed: config.settings.relaxed_topics_enable,
        batch_bytes_max: (file_bytes - limits::GROUP_OVERHEAD_BYTES_MAX as u64)
            .min(options.batch_bytes_max()),
        ..BrokerDefaults::default()
    }
}

/// What the group coordinator is told.
fn groups(options: &BrokerOptions) -> GroupSettings {
    let settings = &options.config.settings;
    GroupSettings {
        config: GroupConfig {
            session_timeout_ms_min: settings.group_min_session_timeout_ms,
            session_timeout_ms_max: settings.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: settings.group_initial_rebalance_delay_ms,
            size_max: usize::try_from(settings.group_max_size).unwrap_or(usize::MAX),
            consumer_session_timeout_ms: settings.group_consumer_session_timeout_ms,
            consumer_heartbeat_interval_ms: settings.group_consumer_heartbeat_interval_ms,
            consumer_size_max: usize::try_from(settings.group_consumer_max_size).unwrap_or(usize::MAX),
            migration: settings.group_consumer_migration_policy,
            offsets_retention_ms: settings.offsets_retention_minutes.saturating_mul(60_000),
            retention_check_ms: u64::try_from(settings.offsets_retention_check_interval_ms).unwrap_or(1),
            offset_metadata_bytes_max: usize::try_from(settings.offset_metadata_max_bytes).unwrap_or(0),
            record_bytes_max: settings.message_max_bytes,
            said_bytes_max: options.memory_bytes / MEMORY_SHARE_OF_GROUPS,
            ..GroupConfig::default()
        },
        partitions: settings.offsets_topic_num_partitions,
        segment_bytes: settings.offsets_topic_segment_bytes as i64,
    }
}

/// Starts the thread and its runtime.
///
/// # Errors
/// [`Reason::LimitsTooLow`] when thread, runtime or admin listener cannot be had.
pub fn start(brief: &Brief<'_>, wiring: Wiring, events: Sender<Event>) -> Result<ControlThread, Failure> {
    let settings = &brief.options.config.settings;
    let options = ControlOptions {
        node_id: brief.identity.node_id,
        cluster_id: brief.identity.cluster_id.clone(),
        host: brief.advertised.host.clone(),
        port: brief.advertised.port,
        cores: brief.options.cores.len() as u16,
        num_partitions: settings.num_partitions,
        delete_topics: settings.delete_topic_enable,
        partitions_max: limits::PARTITIONS_MAX,
        data_dir: brief.data.to_path_buf(),
        defaults: defaults(brief.options),
        groups: groups(brief.options),
        settings: shown(&brief.options.config),
    };
    let cpus = settings.control_cpus.clone().unwrap_or_default();
    let failed = |error: std::io::Error| {
        Failure::new(Reason::LimitsTooLow, format!("Control could not be started ({error})."))
    };
    wiring.admin.set_nonblocking(true).map_err(failed)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    let (stop, stops) = mpsc::channel(EVENTS);
    let thread = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            if !cpus.is_empty()
                && let Err(error) = ringmill_reactor::thread::pin(&cpus)
            {
                tracing::warn!("control.cpus has no effect: {error}");
            }
            let event = match runtime.block_on(live(options, wiring, stops)) {
                Ended::Stopped => Event::Stopped,
                Ended::Core(core, what) => Event::Fatal(core_failure(core, &what)),
                Ended::Deaf(error) => Event::Fatal(Failure::new(
                    Reason::LimitsTooLow,
                    format!("Control cannot watch its eventfd ({error})."),
                )),
            };
            // The main thread is gone only when the process ends.
            let _ = events.send(event);
        })
        .map_err(failed)?;
    Ok(ControlThread { events: stop, thread })
}

async fn live(options: ControlOptions, wiring: Wiring, stops: mpsc::Receiver<ControlEvent>) -> Ended {
    let (requests, admin_requests): (mpsc::Sender<AdminRequest>, _) = mpsc::channel(ADMIN_QUEUE);
    match tokio::net::TcpListener::from_std(wiring.admin) {
        Ok(listener) => {
            let data = options.data_dir.clone();
            tokio::spawn(admin::serve(listener, requests, wiring.heartbeats, wiring.scrub, data));
        }
        Err(error) => tracing::error!("the admin port is not served: {error}"),
    }
    Control::new(options, wiring.image, wiring.journal, wiring.links, crate::logging::loggers())
        .run(wiring.bell, stops, admin_requests)
        .await
}

/// Every key with the value in force, for `/v1/config`.
fn shown(config: &Config) -> Vec<(String, String)> {
    let entries = config.entries().into_iter();
    entries.filter_map(|(key, value, _)| value.map(|value| (key.name.to_string(), value))).collect()
}
