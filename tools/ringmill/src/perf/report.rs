//! Files that a run leaves for other tools and for people: `--json`, `--hdr`, `--html`.

use super::html;
use crate::exit::Failed;
use crate::saving::{refuse_overwriting, save};
use clap::Args;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};
use ringmill_load::{Latency, Timeline};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Nanoseconds in a millisecond: the log says its maxima in ms, as most tools expect.
const MAX_DIVISOR: f64 = 1e6;

/// Where results go besides the terminal.
#[derive(Args, Clone, Debug)]
pub struct Files {
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// Histograms of the run in the HdrHistogram log format (V2), nanoseconds, for other tools
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// One page with percentile curve, latency over time and throughput
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Overwrite these files
    #[arg(long)]
    force: bool,
}

/// One distribution, and how it came about over time where that is known.
pub struct Series<'a> {
    pub title: &'static str,
    /// A word for the log.
    pub tag: &'static str,
    pub latency: &'a Latency,
    pub timeline: Option<&'a Timeline>,
}

impl<'a> Series<'a> {
    pub fn new(title: &'static str, tag: &'static str, latency: &'a Latency) -> Series<'a> {
        Series { title, tag, latency, timeline: None }
    }

    pub fn over(self, timeline: &'a Timeline) -> Series<'a> {
        Series { timeline: Some(timeline), ..self }
    }
}

impl Files {
    /// Refuses what would be overwritten, before anything is measured.
    pub fn check(&self) -> Result<(), Failed> {
        for path in [&self.hdr, &self.html].into_iter().flatten() {
            refuse_overwriting(path, self.force)?;
        }
        Ok(())
    }

    /// Writes what was asked for. `start_ns`: the run's start on the monotonic clock.
    pub fn write(
        &self,
        title: &str,
        series: &[Series<'_>],
        facts: &[(String, String)],
        start_ns: u64,
    ) -> Result<(), Failed> {
        if let Some(path) = &self.hdr {
            let passed = ringmill_reactor::thread::monotonic_ns().saturating_sub(start_ns);
            let start = SystemTime::now() - Duration::from_nanos(passed);
            save(path, &hdr_log(title, series, start), self.force)?;
        }
        if let Some(path) = &self.html {
            save(path, html::page(title, series, facts).as_bytes(), self.force)?;
        }
        Ok(())
    }
}

/// An HdrHistogram interval log: a line for each stretch of a series with a timeline, one line for one without.
fn hdr_log(title: &str, series: &[Series<'_>], start: SystemTime) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to memory does not fail, and the histograms are within what the format holds.
    let _ = write_log(&mut out, title, series, start);
    out
}

fn write_log(
    out: &mut Vec<u8>,
    title: &str,
    series: &[Series<'_>],
    start: SystemTime,
) -> Result<(), Box<dyn std::error::Error>> {
    let failed = |error: IntervalLogWriterError<_>| io::Error::other(format!("{error:?}"));
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("[ringmill {title}; values in nanoseconds, maxima in milliseconds]"))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_DIVISOR);
    let mut log = builder.begin_log_with(out, &mut serializer)?;
    for one in series {
        let tag = Tag::new(one.tag);
        let stretches = one.timeline.map(|line| (line.stretch(), line.stretches()));
        let Some((length, stretches)) = stretches.filter(|(_, all)| all.iter().any(|s| s.latency.is_some()))
        else {
            let length = series.iter().filter_map(|s| s.timeline).map(whole).max().unwrap_or_default();
            log.write_histogram(one.latency.histogram(), Duration::ZERO, length, tag).map_err(failed)?;
            continue;
        };
        for (at, stretch) in stretches.iter().enumerate() {
            let Some(latency) = &stretch.latency else { continue };
            log.write_histogram(latency.histogram(), length * at as u32, length, tag).map_err(failed)?;
        }
    }
    Ok(())
}

fn whole(line: &Timeline) -> Duration {
    line.stretch() * line.stretches().len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_gives_back_what_went_in() {
        let (mut latency, mut line) = (Latency::default(), Timeline::default());
        for at in 0..1000u64 {
            latency.record_many(at * 1000, 3);
            line.latency(at * 2_000_000, at * 1000, 3);
        }
        let series =
            [Series::new("a", "intended", &latency).over(&line), Series::new("b", "actual", &latency)];
        let log = hdr_log("test", &series, SystemTime::now());
        let mut sums = [Histogram::<u64>::new(3).expect("digits"), Histogram::new(3).expect("digits")];
        let mut lines = 0;
        for entry in IntervalLogIterator::new(&log) {
            let LogEntry::Interval(interval) = entry.expect("an entry that can be read") else { continue };
            lines += 1;
            use base64::Engine;
            let raw = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram());
            let read: Histogram<u64> =
                Deserializer::new().deserialize(&mut raw.expect("base64").as_slice()).expect("a histogram");
            let which = usize::from(interval.tag().map(|t| t.as_str().to_string()) == Some("actual".into()));
            sums[which].add(&read).expect("adds up");
        }
        assert_eq!(lines, 8 + 1);
        for sum in &sums {
            assert_eq!(sum.len(), 3000);
            assert_eq!(sum.max(), latency.histogram().max());
        }
    }
}
