//! `ringmill consume`: records to stdout, in a form the reader chooses.

mod format;
mod group;
mod start;
pub use start::{ago, now_ms, timestamp};

use crate::exit::{Code, Failed};
use crate::output::{Out, remark, throughput};
use crate::server::Server;
use clap::Args;
use format::{Format, Seen};
use ringmill_client::consumer::Notice;
use ringmill_client::{Client, Consumer, RecordView, Start};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(Args)]
#[command(
    after_help = "Formats: %t topic, %p partition, %o offset, %k key, %K its length, %s value, %S its length, %T timestamp in ms, \
    %h headers, %% a percent sign; \\n \\r \\t \\e \\\\ and \\xHH. Null keys and values are empty, with length -1.

Ctrl-C ends reading with a summary; the exit code is 130 if --count or --exit-at-end were not reached."
)]
pub struct Consume {
    topic: String,
    /// Partitions to read, such as 0 or 0,2 [default: all]
    #[arg(long, short = 'p', value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Read as a member of this consumer group: from what it committed, or --from where it committed nothing
    #[arg(long, short = 'g', value_name = "NAME", conflicts_with = "partition")]
    group: Option<String>,
    /// beginning, end, OFFSET, -COUNT (before the end), timestamp:MS, timestamp:2026-11-21T06:00:00Z, ago:5m
    #[arg(long, short = 'f', value_name = "WHERE", default_value = "beginning", value_parser = start::parse, allow_hyphen_values = true)]
    from: Start,
    /// Stop after so many records
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop where each partition ended when reading began
    #[arg(long, short = 'e')]
    exit_at_end: bool,
    /// How a record is printed
    #[arg(long, short = 'F', value_name = "TEXT", default_value = "%s\\n", value_parser = format::parse)]
    format: Format,
    /// One object per record and line; bytes that are not UTF-8 as base64 in key_base64 and value_base64
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// No summary and no remarks on stderr
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    server: Server,
}

impl Consume {
    pub fn run(self) -> Result<(), Failed> {
        let stop = stop_on_signals()?;
        let mut client = self.server.connect()?;
        let mut reading = Reading { args: &self, out: Out::new(), records: 0, bytes: 0, failed: None, stop };
        let started = Instant::now();
        let result = match &self.group {
            Some(group) => reading.in_group(group, &mut client),
            None => reading.all(&mut client),
        };
        let interrupted = reading.stop.load(Ordering::Relaxed);
        let wrote = reading.out.flush();
        // Of a failure before the first record there is nothing to sum up.
        let told = result.is_ok() || reading.records > 0;
        let ends = interrupted || self.exit_at_end || self.count.is_some();
        if ends && told && !self.quiet && wrote.is_ok() {
            remark(&format!("{} read", throughput(reading.records, reading.bytes, started.elapsed())));
        }
        result?;
        wrote?;
        let fulfilled = self.count.is_some_and(|count| reading.records >= count);
        let bounded = self.count.is_some() || self.exit_at_end;
        if interrupted && bounded && !fulfilled {
            return Err(Failed::said(Code::Interrupted));
        }
        Ok(())
    }
}

/// The first signal ends reading in order; a second one ends the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failed> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let killed = i32::from(Code::Interrupted as u8);
        signal_hook::flag::register_conditional_shutdown(signal, killed, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failed::local("signals cannot be caught", &error))?;
    }
    Ok(stop)
}

struct Reading<'a> {
    args: &'a Consume,
    out: Out,
    records: u64,
    bytes: u64,
    failed: Option<std::io::Error>,
    stop: Arc<AtomicBool>,
}

impl Reading<'_> {
    fn all(&mut self, client: &mut Client) -> Result<(), Failed> {
        let args = self.args;
        let partitions = if args.partition.is_empty() { None } else { Some(args.partition.as_slice()) };
        let mut consumer = Consumer::new(client, &args.topic, partitions, args.from)?;
        if args.exit_at_end {
            consumer.stop_at_end();
        }
        while !self.is_over(&consumer) && self.step(&mut consumer)?.is_continue() {}
        Ok(())
    }

    fn is_over(&self, consumer: &Consumer<'_>) -> bool {
        self.stop.load(Ordering::Relaxed) || (self.args.exit_at_end && consumer.reached_end())
    }

    /// One poll; what it gave is written when this returns.
    fn step(&mut self, consumer: &mut Consumer<'_>) -> Result<ControlFlow<()>, Failed> {
        let quiet = self.args.quiet;
        let mut notice = |notice: Notice| match notice {
            Notice::Skipped { partition, from, to } if !quiet => remark(&format!(
                "partition {partition}: offsets {from} to {to} are gone (retention); reading goes on at {to}"
            )),
            Notice::Skipped { .. } => {}
        };
        let flow = consumer.poll(&mut |partition, record| self.record(partition, record), &mut notice)?;
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        self.out.flush()?;
        Ok(flow)
    }

    fn record(&mut self, partition: i32, record: &RecordView<'_>) -> ControlFlow<()> {
        let seen = Seen { topic: &self.args.topic, partition, record };
        let written = if self.args.json {
            self.out.json(&seen.json())
        } else {
            self.args.format.write(&seen, &mut self.out)
        };
        if let Err(error) = written {
            self.failed = Some(error);
            return ControlFlow::Break(());
        }
        self.records += 1;
        self.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        let enough = self.args.count.is_some_and(|count| self.records >= count);
        if enough || self.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
