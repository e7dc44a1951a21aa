//! Metrics as Prometheus text (exposition format 0.0.4), from the one table in [`table`].
//!
//! Pure but for [`Process::now`], which reads `/proc/self`, and [`Disk::of`]. A core that did not answer, and a topic with a partition on
//! such a core, has no samples in this scrape: a counter that read 0 for once would look like a restart.

mod table;

use crate::admin::AdminTopic;
use crate::watch::{ControlMetrics, Mailboxes};
use ringmill_core::metrics::{ApiMetrics, CoreMetrics, Histogram, Throttled};
use ringmill_types::CoreId;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
pub use table::METRICS;

/// The content type of [`render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric.
pub struct MetricDef {
    pub name: &'static str,
    pub read: Read,
    pub help: &'static str,
}

/// Where a metric's numbers come from; says its type and labels too.
pub enum Read {
    BrokerGauge(fn(&Broker) -> Number),
    ScrubCounter(fn(&Scrub) -> Number),
    ScrubGauge(fn(&Scrub) -> Number),
    DiskGauge(fn(&Disk) -> Number),
    ControlCounter(fn(&ControlMetrics) -> Number),
    ControlGauge(fn(&ControlMetrics) -> Number),
    ControlHistogram(fn(&ControlMetrics) -> &Histogram),
    MailboxGauge(fn(&Mailboxes) -> Number),
    GroupStates,
    GroupLag,
    ProcessCounter(fn(&Process) -> Option<Number>),
    ProcessGauge(fn(&Process) -> Option<Number>),
    CoreAnswered,
    ClientSoftware,
    CoreCounter(fn(&CoreMetrics) -> Number),
    CoreGauge(fn(&CoreMetrics) -> Number),
    CoreHistogram(Unit, fn(&CoreMetrics) -> &Histogram),
    ApiCounter(fn(&ApiMetrics) -> Number),
    ApiHistogram(Unit, fn(&ApiMetrics) -> &Histogram),
    QuotaCounter(fn(&Throttled) -> Number),
    TopicCounter(fn(&TopicTotals) -> Number),
    TopicGauge(fn(&TopicTotals) -> Number),
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Int(u64),
    /// Nanoseconds, shown as seconds.
    Seconds(u64),
    /// Milliseconds, shown as seconds.
    Millis(u64),
    /// A share in millionths, shown as a fraction of 1.
    Millionths(u64),
}

/// What a histogram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shown as seconds.
    Micros,
    Bytes,
}

impl Unit {
    /// Bounds of the `le` buckets, as powers of two less one: 15 µs to 16.8 s, 511 bytes to 64 MiB.
    fn powers(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Unit::Micros => 4..=24,
            Unit::Bytes => 9..=26,
        }
    }
}

/// What is known without asking a core.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    pub ready: bool,
    pub topics: u64,
}

/// The file system that holds the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk {
    pub capacity_bytes: u64,
    /// What the broker may still take; the system keeps a part for root.
    pub free_bytes: u64,
    /// Of files that were removed, what it has not got back yet.
    pub removed_bytes: u64,
}

impl Disk {
    /// None where the system does not say.
    pub fn of(folder: &Path) -> Option<Disk> {
        let stat = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Disk {
            capacity_bytes: bytes(stat.f_blocks),
            free_bytes: bytes(stat.f_bavail),
            removed_bytes: ringmill_reactor::reclaim::pending_bytes(),
        })
    }
}

/// The scrub of sealed segments, as upkeep counts it.
#[derive(Clone, Debug, Default)]
pub struct Scrub {
    pub read_bytes: u64,
    /// The bound on how fast it reads; 0 switches it off.
    pub limit_bytes_per_second: u64,
    pub segments_clean: u64,
    pub segments_damaged: u64,
    pub segments_unreadable: u64,
    pub rounds: u64,
    pub in_round: bool,
    /// 0 before the first whole round.
    pub last_round_unix_ms: u64,
    pub last_round_ms: u64,
    /// Not done, although it is not switched off; the log said why.
    pub resting: bool,
    /// Its neighbour.
    pub passes: Passes,
}

/// Compaction passes, as upkeep counts them.
#[derive(Clone, Debug, Default)]
pub struct Passes {
    /// Read and written.
    pub io_bytes: u64,
    pub limit_bytes_per_second: u64,
    pub done: u64,
    pub failed: u64,
    /// 0: none failed.
    pub last_failed_unix_ms: u64,
}

/// Where the admin port looks for [`Scrub`].
pub type ScrubSource = std::sync::Arc<dyn Fn() -> Scrub + Send + Sync>;

/// Sums over a topic's partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicTotals {
    pub partitions: u64,
    pub offline: u64,
    pub relaxed: bool,
    pub size_bytes: u64,
    pub segments: u64,
    pub unflushed_records: u64,
    pub records_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl TopicTotals {
    /// None where the core of a partition did not answer.
    pub fn of(topic: &AdminTopic) -> Option<TopicTotals> {
        let mut totals = TopicTotals::default();
        for partition in &topic.partitions {
            if partition.log_end < 0 {
                return None;
            }
            totals.partitions += 1;
            totals.offline += u64::from(partition.offline);
            totals.relaxed |= partition.relaxed;
            totals.size_bytes += partition.size_bytes;
            totals.segments += u64::from(partition.segments);
            totals.unflushed_records +=
                u64::try_from(partition.log_end - partition.durable.max(0)).unwrap_or(0);
            totals.records_in += partition.records_in;
            totals.bytes_in += partition.bytes_in;
            totals.bytes_out += partition.bytes_out;
        }
        Some(totals)
    }
}

/// The process as `/proc/self` tells. What cannot be read is not shown.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub cpu_ns: u64,
    /// Since 1970.
    pub started_ms: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
}

/// `USER_HZ`: the unit of times in `/proc`, 100 on every architecture this builds for.
const TICKS_PER_SECOND: u64 = 100;

impl Process {
    pub fn now() -> Process {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let open_fds = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64).ok();
        let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Process::parse(&read("stat"), &system, &read("status"), &read("limits"), open_fds)
    }

    fn parse(stat: &str, system: &str, status: &str, limits: &str, open_fds: Option<u64>) -> Process {
        let kib =
            |name: &str| Some(field(status, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10);
        // The command may hold spaces and brackets; after its last bracket come fields 3 and on. 14 and 15 are the ticks.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 =
            after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        // Field 22 counts from the start of the system, which `/proc/stat` tells in seconds.
        let booted_s =
            system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        let after_boot = after.split_whitespace().nth(19).and_then(|n| n.parse::<u64>().ok());
        let started_ms = booted_s.zip(after_boot).map(|(booted, ticks)| {
            booted.saturating_mul(1000).saturating_add(ticks.saturating_mul(1000 / TICKS_PER_SECOND))
        });
        let max_fds = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
        Process {
            cpu_ns: ticks * (1_000_000_000 / TICKS_PER_SECOND),
            started_ms,
            resident_bytes: kib("VmRSS"),
            virtual_bytes: kib("VmSize"),
            threads: field(status, "Threads").and_then(|text| text.parse().ok()),
            open_fds,
            max_fds,
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// One scrape's numbers.
pub struct Scrape {
    pub broker: Broker,
    pub process: Process,
    pub disk: Option<Disk>,
    /// None where there is no upkeep thread.
    pub scrub: Option<Scrub>,
    pub control: Box<ControlMetrics>,
    /// All cores; None for one that did not answer.
    pub cores: Vec<(CoreId, Option<Box<CoreMetrics>>)>,
    pub topics: Vec<AdminTopic>,
}

impl MetricDef {
    pub fn type_name(&self) -> &'static str {
        match self.read {
            Read::ProcessCounter(_)
            | Read::ScrubCounter(_)
            | Read::CoreCounter(_)
            | Read::ApiCounter(_)
            | Read::ClientSoftware
            | Read::ControlCounter(_)
            | Read::QuotaCounter(_)
            | Read::TopicCounter(_) => "counter",
            Read::BrokerGauge(_)
            | Read::ScrubGauge(_)
            | Read::DiskGauge(_)
            | Read::ProcessGauge(_)
            | Read::CoreAnswered
            | Read::ControlGauge(_)
            | Read::MailboxGauge(_)
            | Read::GroupStates
            | Read::GroupLag
            | Read::CoreGauge(_)
            | Read::TopicGauge(_) => "gauge",
            Read::CoreHistogram(..) | Read::ApiHistogram(..) | Read::ControlHistogram(_) => "histogram",
        }
    }

    pub fn labels(&self) -> &'static str {
        match self.read {
            Read::BrokerGauge(_) if self.name == BUILD_INFO => "version",
            Read::BrokerGauge(_)
            | Read::ScrubCounter(_)
            | Read::ScrubGauge(_)
            | Read::DiskGauge(_)
            | Read::ControlCounter(_)
            | Read::ControlGauge(_)
            | Read::ControlHistogram(_)
            | Read::ProcessCounter(_)
            | Read::ProcessGauge(_) => "",
            Read::GroupStates => "state, protocol",
            Read::GroupLag => "group, topic, partition",
            Read::MailboxGauge(_) => "core",
            Read::CoreAnswered | Read::CoreCounter(_) | Read::CoreGauge(_) | Read::CoreHistogram(..) => {
                "core"
            }
            Read::ApiCounter(_) | Read::ApiHistogram(..) => "core, api",
            Read::ClientSoftware => "core, software, version",
            Read::QuotaCounter(_) => "core, quota",
            Read::TopicCounter(_) | Read::TopicGauge(_) => "topic",
        }
    }
}

const BUILD_INFO: &str = "ringmill_build_info";

/// The text of a scrape.
pub fn render(scrape: &Scrape) -> String {
    let mut topics: Vec<(String, TopicTotals)> = Vec::new();
    for topic in &scrape.topics {
        topics.extend(TopicTotals::of(topic).map(|totals| (label("topic", &topic.name), totals)));
    }
    let mut out = String::new();
    for def in METRICS {
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", def.name, def.help, def.name, def.type_name());
        family(&mut out, def, scrape, &topics);
    }
    out
}

fn family(out: &mut String, def: &MetricDef, scrape: &Scrape, topics: &[(String, TopicTotals)]) {
    let name = def.name;
    let answered = || {
        scrape
            .cores
            .iter()
            .filter_map(|(core, metrics)| Some((format!("core=\"{core}\""), metrics.as_deref()?)))
    };
    match &def.read {
        Read::BrokerGauge(read) if name == BUILD_INFO => {
            sample(out, name, &label("version", env!("CARGO_PKG_VERSION")), read(&scrape.broker));
        }
        Read::BrokerGauge(read) => sample(out, name, "", read(&scrape.broker)),
        Read::ScrubCounter(read) | Read::ScrubGauge(read) => {
            if let Some(scrub) = &scrape.scrub {
                sample(out, name, "", read(scrub));
            }
        }
        Read::DiskGauge(read) => {
            if let Some(disk) = &scrape.disk {
                sample(out, name, "", read(disk));
            }
        }
        Read::ProcessCounter(read) | Read::ProcessGauge(read) => {
            if let Some(number) = read(&scrape.process) {
                sample(out, name, "", number);
            }
        }
        Read::ControlCounter(read) | Read::ControlGauge(read) => sample(out, name, "", read(&scrape.control)),
        Read::ControlHistogram(read) => histogram(out, name, "", Unit::Micros, read(&scrape.control)),
        Read::MailboxGauge(read) => {
            for mailboxes in &scrape.control.mailboxes {
                sample(out, name, &format!("core=\"{}\"", mailboxes.core), read(mailboxes));
            }
        }
        Read::GroupStates => group_states(out, name, scrape),
        Read::GroupLag => group_lags(out, name, scrape),
        Read::CoreAnswered => {
            for (core, metrics) in &scrape.cores {
                sample(out, name, &format!("core=\"{core}\""), Number::Int(metrics.is_some().into()));
            }
        }
        Read::ClientSoftware => {
            answered().for_each(|(labels, core)| client_software(out, name, &labels, core))
        }
        Read::CoreCounter(read) | Read::CoreGauge(read) => {
            answered().for_each(|(labels, core)| sample(out, name, &labels, read(core)))
        }
        Read::CoreHistogram(unit, read) => {
            answered().for_each(|(labels, core)| histogram(out, name, &labels, *unit, read(core)))
        }
        Read::ApiCounter(read) => {
            answered().for_each(|(labels, core)| {
                apis(core, |api, of| sample(out, name, &format!("{labels},api=\"{api}\""), read(of)))
            });
        }
        Read::ApiHistogram(unit, read) => answered().for_each(|(labels, core)| {
            apis(core, |api, of| histogram(out, name, &format!("{labels},api=\"{api}\""), *unit, read(of)));
        }),
        Read::QuotaCounter(read) => answered().for_each(|(labels, core)| {
            quotas(core, |quota, of| sample(out, name, &format!("{labels},quota=\"{quota}\""), read(of)));
        }),
        Read::TopicCounter(read) | Read::TopicGauge(read) => {
            topics.iter().for_each(|(labels, totals)| sample(out, name, labels, read(totals)))
        }
    }
}

fn group_states(out: &mut String, name: &str, scrape: &Scrape) {
    for ((state, protocol), count) in &scrape.control.groups {
        let labels = format!("{},{}", label("state", state), label("protocol", protocol));
        sample(out, name, &labels, Number::Int(*count));
    }
}

fn client_software(out: &mut String, name: &str, labels: &str, core: &CoreMetrics) {
    for (software, count) in core.client_software.rows() {
        let (kind, version) = (label("software", &software.name), label("version", &software.version));
        sample(out, name, &format!("{labels},{kind},{version}"), Number::Int(*count));
    }
}

/// Of partitions that are gone, or whose core did not answer, nothing is known.
fn group_lags(out: &mut String, name: &str, scrape: &Scrape) {
    let topics: BTreeMap<&str, &AdminTopic> = scrape.topics.iter().map(|t| (t.name.as_str(), t)).collect();
    for committed in &scrape.control.committed {
        let topic = topics.get(&*committed.topic);
        // Partitions lie at their numbers.
        let at = usize::try_from(committed.partition).ok();
        let partition = topic.and_then(|t| t.partitions.get(at?));
        let Some(end) = partition.map(|p| p.high_watermark).filter(|end| *end >= 0) else { continue };
        let (group, topic) = (label("group", &committed.group), label("topic", &committed.topic));
        let labels = format!("{group},{topic},partition=\"{}\"", committed.partition);
        sample(out, name, &labels, Number::Int(u64::try_from(end - committed.offset).unwrap_or(0)));
    }
}

fn apis(core: &CoreMetrics, mut each: impl FnMut(&str, &ApiMetrics)) {
    each("Produce", &core.produce);
    each("Fetch", &core.fetch);
    each("Other", &core.other);
}

fn quotas(core: &CoreMetrics, mut each: impl FnMut(&str, &Throttled)) {
    let of = [&core.throttled_produce, &core.throttled_fetch, &core.throttled_time];
    for (quota, throttled) in crate::limits::KEYS.iter().zip(of) {
        each(quota, throttled);
    }
    each(crate::mutations::KEY, &core.throttled_mutations);
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

// Writing to a String cannot fail, here and below.
fn sample(out: &mut String, name: &str, labels: &str, number: Number) {
    let _ = match labels {
        "" => write!(out, "{name} "),
        labels => write!(out, "{name}{{{labels}}} "),
    };
    let _ = match number {
        Number::Int(n) => writeln!(out, "{n}"),
        Number::Seconds(ns) => writeln!(out, "{}", ns as f64 / 1e9),
        Number::Millis(ms) => writeln!(out, "{}", ms as f64 / 1e3),
        Number::Millionths(ppm) => writeln!(out, "{}", ppm as f64 / 1e6),
    };
}

fn histogram(out: &mut String, name: &str, labels: &str, unit: Unit, of: &Histogram) {
    let shown = |value: u64| match unit {
        Unit::Micros => value as f64 / 1e6,
        Unit::Bytes => value as f64,
    };
    let powers = unit.powers();
    let (before, plain) = match labels {
        "" => (String::new(), String::new()),
        labels => (format!("{labels},"), format!("{{{labels}}}")),
    };
    for (upper, below) in of.cumulative() {
        let power = upper.checked_add(1).map_or(64, u64::ilog2);
        if powers.contains(&power) {
            let _ = writeln!(out, "{name}_bucket{{{before}le=\"{}\"}} {below}", shown(upper));
        }
    }
    let _ = writeln!(out, "{name}_bucket{{{before}le=\"+Inf\"}} {}", of.count());
    let _ = writeln!(out, "{name}_sum{plain} {}", shown(of.sum()));
    let _ = writeln!(out, "{name}_count{plain} {}", of.count());
}

#[cfg(test)]
mod tests;
