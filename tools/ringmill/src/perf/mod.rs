//! `ringmill perf`: load with percentiles that can be trusted, against any broker that speaks the protocol.
//!
//! Takes the flags of Kafka's own perf tools and prints their result line, so that scripts that read those keep working;
//! then a table of its own, with the latency from the intended time and from the actual one side by side.

mod clock;
pub(crate) mod cluster;
mod consume;
mod consumer_properties;
mod cpu;
mod e2e;
mod group;
mod html;
mod live;
mod produce;
mod properties;
mod report;
mod sending;
mod suite;

pub use cluster::{resolve, stop_on_signals};

use crate::exit::{Code, Failed};
use crate::output::Out;
use clap::Subcommand;
use ringmill_load::{Latency, LoadError};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

const MEBIBYTE: f64 = 1_048_576.0;
const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// Measure a broker: open-loop load, latency from the intended time
#[derive(Subcommand)]
pub enum Perf {
    /// Send records at a schedule, or as fast as it goes
    Produce(produce::Produce),
    /// Read records as fast as they come
    Consume(consume::Consume),
    /// Send and read: the time from the intended send to delivery
    E2e(e2e::EndToEnd),
    /// Send and read at once, until all is sent
    Mixed(e2e::EndToEnd),
    /// Run the usual workloads, one after the other, and report
    Suite(suite::Suite),
}

impl Perf {
    pub fn run(self) -> Result<(), Failed> {
        // Ten thousand connections are more descriptors than a shell allows at first.
        ringmill_broker::host::raise_limits();
        match self {
            Perf::Produce(produce) => produce.run(),
            Perf::Consume(consume) => consume.run(),
            Perf::E2e(both) => both.run(e2e::Kind::EndToEnd),
            Perf::Suite(suite) => suite.run(),
            Perf::Mixed(both) => both.run(e2e::Kind::Mixed),
        }
    }
}

fn name(code: i16) -> String {
    ringmill_client::ServerCode(code).name()
}

pub fn failed(error: LoadError) -> Failed {
    let code = match &error {
        LoadError::Plan(_) => Code::Usage,
        LoadError::Connect(..) | LoadError::Lost(_) | LoadError::Silent(_) => Code::Unreachable,
        LoadError::Ring(_) => Code::Local,
        LoadError::Garbled(_) => Code::Garbled,
        LoadError::Refused { .. } | LoadError::NoRecords(_) => Code::Refused,
    };
    Failed::new(code, error.to_string())
}

/// Default of a request's timeout when neither flag nor property gives one.
pub(crate) fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|ms| *ms <= 86_400_000).map(Duration::from_millis)
}

/// Settings of a properties file, `KEY=VALUE` each.
pub(crate) fn file_settings(path: Option<&Path>) -> Result<Vec<String>, Failed> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(|error| Failed::local(path.display(), &error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.filter(|line| !line.starts_with(['#', '!'])).map(str::to_string).collect())
}

/// Counters under Kafka's heading, for `--print-metrics`.
pub(crate) fn metrics<T: Serialize>(out: &mut Out, group: &str, report: &T) -> Result<(), Failed> {
    let fields = serde_json::to_value(report).unwrap_or_default();
    out.line("")?;
    out.line(format!("{:<60} Value", "Metric Name"))?;
    for (name, value) in fields.as_object().into_iter().flatten() {
        if value.is_number() {
            out.line(format!("{:<60}: {value}", format!("{group}:{}", name.replace('_', "-"))))?;
        }
    }
    Ok(())
}

/// Percentiles for `--json`, milliseconds.
pub(crate) fn quantiles(of: &Latency) -> serde_json::Value {
    let mean = ("mean".to_string(), of.mean_ms().into());
    let rest = QUANTILES.iter().map(|(name, q)| ((*name).to_string(), of.ms(*q).into()));
    serde_json::Value::Object(std::iter::once(mean).chain(rest).collect())
}
