//! What one look at the admin port gives, as numbers with names; nothing is compared here.

use crate::prometheus::{Histogram, Metrics};
use serde::Deserialize;
use std::collections::BTreeMap;

/// All that is shown, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// On a clock of the caller's that never goes back.
    pub at_seconds: f64,
    pub version: String,
    pub ready: bool,
    /// When the process began; an older broker does not say.
    pub started_seconds: Option<f64>,
    pub cpu_seconds: f64,
    pub resident_bytes: f64,
    pub capacity_bytes: Option<f64>,
    pub free_bytes: Option<f64>,
    pub scrub_read_bytes: f64,
    pub scrub_damaged: f64,
    pub scrub_in_round: bool,
    pub cores: Vec<CoreReading>,
    pub topics: BTreeMap<String, TopicReading>,
    pub connections: u64,
    pub clients: Vec<Connection>,
    /// `None` where the broker does not tell of groups.
    pub groups: Option<BTreeMap<String, GroupReading>>,
}

/// One core; only the number counts where it did not answer.
#[derive(Clone, Debug, Default)]
pub struct CoreReading {
    pub core: String,
    pub answered: bool,
    pub cpu_seconds: f64,
    pub connections: f64,
    pub partitions: f64,
    pub partitions_offline: f64,
    pub records_in: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
    pub produce_requests: f64,
    pub fetch_requests: f64,
    pub other_requests: f64,
    pub request_errors: f64,
    pub produce_waiting: f64,
    pub muted: f64,
    pub groups: f64,
    pub group_bytes: Histogram,
    pub flush: Histogram,
    pub produce: Histogram,
    pub turn: Histogram,
    pub log_used_bytes: f64,
    pub log_capacity_bytes: f64,
    pub tail_bytes: f64,
    pub tail_limit_bytes: f64,
    pub destage_bytes: f64,
    pub destage_lag_bytes: f64,
    pub cold_read_bytes: f64,
    pub storage_full: bool,
}

#[derive(Clone, Debug, Default)]
pub struct TopicReading {
    pub partitions: f64,
    pub offline: f64,
    pub relaxed: bool,
    pub size_bytes: f64,
    pub unflushed_records: f64,
    pub records_in: f64,
    pub in_bytes: f64,
    pub out_bytes: f64,
}

#[derive(Clone, Debug, Default)]
pub struct GroupReading {
    /// With a committed offset.
    pub partitions: u64,
    pub lag: f64,
    /// Of one partition.
    pub lag_most: f64,
}

/// A connection as `/v1/connections` tells of it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Connection {
    pub peer: String,
    pub client_id: String,
    pub software: String,
    pub software_version: String,
    pub age_ms: u64,
    pub idle_ms: u64,
    pub requests: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub waiting: u64,
    pub muted: bool,
}

/// The whole answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Connections {
    pub connections: u64,
    pub shown: Vec<Connection>,
}

/// Why an answer is not one of ours.
const FOREIGN: &str = "it does not answer as the admin port of a ringmill broker";

impl Reading {
    /// # Errors
    /// A sentence where it is not the text of a ringmill broker.
    pub fn of(at_seconds: f64, metrics: &str, connections: Option<Connections>) -> Result<Reading, String> {
        let metrics = Metrics::parse(metrics);
        let build = metrics.samples("ringmill_build_info").first().and_then(|sample| sample.label("version"));
        let version = build.ok_or(FOREIGN)?.to_string();
        let plain = |name: &str| metrics.sum(name, &[]);
        let number = |name: &str| plain(name).unwrap_or(0.0);
        let cores: Vec<CoreReading> = metrics
            .samples("ringmill_core_answered")
            .iter()
            .filter_map(|sample| Some(core(&metrics, sample.label("core")?, sample.value > 0.0)))
            .collect();
        let counted = cores.iter().map(|core| core.connections as u64).sum();
        let connections = connections.unwrap_or(Connections { connections: counted, shown: Vec::new() });
        Ok(Reading {
            at_seconds,
            version,
            ready: number("ringmill_ready") > 0.0,
            started_seconds: plain("process_start_time_seconds"),
            cpu_seconds: number("process_cpu_seconds_total"),
            resident_bytes: number("process_resident_memory_bytes"),
            capacity_bytes: plain("ringmill_data_capacity_bytes"),
            free_bytes: plain("ringmill_data_free_bytes"),
            scrub_read_bytes: number("ringmill_scrub_read_bytes_total"),
            scrub_damaged: number("ringmill_scrub_segments_damaged_total"),
            scrub_in_round: number("ringmill_scrub_in_round") > 0.0,
            topics: topics(&metrics),
            groups: groups(&metrics),
            connections: connections.connections,
            clients: connections.shown,
            cores,
        })
    }

    /// The process is another one than that of `before`.
    pub fn is_anew(&self, before: &Reading) -> bool {
        if let (Some(began), Some(began_before)) = (self.started_seconds, before.started_seconds) {
            return began != began_before;
        }
        let fell = |core: &CoreReading| {
            before.cores.iter().any(|old| {
                old.core == core.core && old.answered && core.answered && core.cpu_seconds < old.cpu_seconds
            })
        };
        self.cpu_seconds < before.cpu_seconds || self.cores.iter().any(fell)
    }
}

fn core(metrics: &Metrics, core: &str, answered: bool) -> CoreReading {
    let of = [("core", core)];
    let get = |name: &str| metrics.sum(name, &of).unwrap_or(0.0);
    let requests = |api: &str| {
        let of = [("core", core), ("api", api)];
        metrics.sum("ringmill_requests_total", &of).unwrap_or(0.0)
    };
    let produce = [("core", core), ("api", "Produce")];
    CoreReading {
        core: core.to_string(),
        answered,
        cpu_seconds: get("ringmill_core_cpu_seconds_total"),
        connections: get("ringmill_connections"),
        partitions: get("ringmill_partitions"),
        partitions_offline: get("ringmill_partitions_offline"),
        records_in: get("ringmill_records_in_total"),
        received_bytes: get("ringmill_received_bytes_total"),
        sent_bytes: get("ringmill_sent_bytes_total"),
        produce_requests: requests("Produce"),
        fetch_requests: requests("Fetch"),
        other_requests: requests("Other"),
        request_errors: get("ringmill_request_errors_total"),
        produce_waiting: get("ringmill_produce_waiting"),
        muted: get("ringmill_connections_muted"),
        groups: get("ringmill_flush_groups_total"),
        group_bytes: metrics.histogram("ringmill_flush_group_bytes", &of),
        flush: metrics.histogram("ringmill_flush_seconds", &of),
        produce: metrics.histogram("ringmill_request_wait_seconds", &produce),
        turn: metrics.histogram("ringmill_core_turn_seconds", &of),
        log_used_bytes: get("ringmill_core_log_used_bytes"),
        log_capacity_bytes: get("ringmill_core_log_capacity_bytes"),
        tail_bytes: get("ringmill_tail_bytes"),
        tail_limit_bytes: get("ringmill_tail_limit_bytes"),
        destage_bytes: get("ringmill_destage_bytes_total"),
        destage_lag_bytes: get("ringmill_destage_lag_bytes"),
        cold_read_bytes: get("ringmill_cold_read_bytes_total"),
        storage_full: get("ringmill_storage_full") > 0.0,
    }
}

fn topics(metrics: &Metrics) -> BTreeMap<String, TopicReading> {
    let mut topics: BTreeMap<String, TopicReading> = BTreeMap::new();
    let mut each = |name: &str, take: fn(&mut TopicReading, f64)| {
        for sample in metrics.samples(name) {
            let Some(topic) = sample.label("topic") else { continue };
            match topics.get_mut(topic) {
                Some(known) => take(known, sample.value),
                None => take(topics.entry(topic.to_string()).or_default(), sample.value),
            }
        }
    };
    each("ringmill_topic_partitions", |topic, value| topic.partitions = value);
    each("ringmill_topic_partitions_offline", |topic, value| topic.offline = value);
    each("ringmill_topic_relaxed", |topic, value| topic.relaxed = value > 0.0);
    each("ringmill_topic_size_bytes", |topic, value| topic.size_bytes = value);
    each("ringmill_topic_unflushed_records", |topic, value| topic.unflushed_records = value);
    each("ringmill_topic_records_in_total", |topic, value| topic.records_in = value);
    each("ringmill_topic_in_bytes_total", |topic, value| topic.in_bytes = value);
    each("ringmill_topic_out_bytes_total", |topic, value| topic.out_bytes = value);
    topics
}

fn groups(metrics: &Metrics) -> Option<BTreeMap<String, GroupReading>> {
    let mut groups: BTreeMap<String, GroupReading> = BTreeMap::new();
    let mut told = false;
    for sample in metrics.samples("ringmill_group_lag_records") {
        let Some(group) = sample.label("group") else { continue };
        let group = groups.entry(group.to_string()).or_default();
        group.partitions += 1;
        group.lag += sample.value;
        group.lag_most = group.lag_most.max(sample.value);
        told = true;
    }
    told.then_some(groups)
}
