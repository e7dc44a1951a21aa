//! `ringmill calibrate`: measures this machine for `ringmill plan`.
//!
//! Curves of the device, the network, memory and checksums, then designed runs against a broker of its own, from which
//! costs are fitted. The result is a TOML file with a stamp; nothing is overwritten without `--force`.

mod designed;
pub mod host;
mod machine;
mod network;

use crate::exit::{Code, Failed};
use crate::lab::Lab;
use crate::neighbours::{self, Stretch};
use crate::output::{Align, Out, Paint, Table};
use crate::perf::stop_on_signals;
use crate::saving::{refuse_overwriting, save};
use clap::{Args, Subcommand};
use designed::Effort;
use ringmill_device::{Method, Probe};
use ringmill_plan::Calibration;
use ringmill_plan::calibration::{Costs, DevicePoint, FILE_BYTES_MAX};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where `calibrate` writes and `plan` reads unless told otherwise.
pub const DEFAULT_FILE: &str = "ringmill-calibration.toml";
const PROBE_BYTES: u64 = 256 << 20;
/// Of the broker that is measured: what one core costs is known best from one, and the generator keeps a CPU.
const CORES: usize = 1;

/// Measures this machine into a file
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Takes about five minutes, a quarter of an hour with --full. Measure on a machine that does nothing else: what others do is \
                  measured too."
)]
pub struct Calibrate {
    #[command(subcommand)]
    command: Option<Peer>,
    /// Where the calibration goes
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    out: PathBuf,
    /// Overwrite that file
    #[arg(long)]
    force: bool,
    /// Folder on the device to measure, which gets a folder of its own for the time
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// More points, longer runs, each three times
    #[arg(long)]
    full: bool,
    /// Measure the network to this peer, `HOST:PORT`, where `ringmill calibrate peer` runs, instead of loopback
    #[arg(long, value_name = "HOST:PORT")]
    peer: Option<String>,
    /// The calibration as one JSON document, besides the file
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Peer {
    /// Answer measurements of the network from `ringmill calibrate --peer`, until stopped
    Peer {
        /// Address to listen at
        #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:9655")]
        listen: String,
    },
}

impl Calibrate {
    pub fn run(self) -> Result<(), Failed> {
        if let Some(Peer::Peer { listen }) = &self.command {
            let listener = TcpListener::bind(listen).map_err(|e| Failed::local(listen, &e))?;
            let address = listener.local_addr().map_err(|e| Failed::local(listen, &e))?;
            let mut out = Out::new();
            out.line(format!("listens   {address}"))?;
            out.flush()?;
            return network::serve(&listener).map_err(|e| Failed::local(listen, &e));
        }
        if cfg!(debug_assertions) {
            crate::output::remark("this is a debug build: its costs are not those of a release");
        }
        refuse_overwriting(&self.out, self.force)?;
        ringmill_broker::host::raise_limits();
        let folder = self.data.clone().unwrap_or_else(std::env::temp_dir);
        if !folder.is_dir() {
            return Err(Failed::new(
                Code::Usage,
                format!("--data {}: there is no such folder", folder.display()),
            ));
        }
        let calibration = self.measure(&folder)?;
        save(&self.out, calibration.to_toml().as_bytes(), self.force)?;
        let mut out = Out::new();
        if self.json {
            out.json_pretty(&calibration)?;
        } else {
            tell(&mut out, &calibration)?;
            out.line("")?;
            out.line(format!("written to {}; `ringmill plan --rate …` reads it", self.out.display()))?;
        }
        Ok(out.finish()?)
    }

    fn measure(&self, folder: &Path) -> Result<Calibration, Failed> {
        let stop = stop_on_signals()?;
        let began = Instant::now();
        let alone = Stretch::begin(&[]);
        let mut say = |what: &str| progress(began, what);
        let mode = if self.full { "full" } else { "quick" };
        let stamp = host::stamp(folder, mode);
        let span = Duration::from_millis(if self.full { 2000 } else { 700 });
        say("memory, checksums, timers");
        let (mut machine, stalls) = machine::measure(span, stamp.cpus as usize)?;
        say("network");
        let network = network::measure(self.peer.as_deref(), span)?;
        let device = self.device(folder, &stop, &mut say)?;
        let writes = device.iter().filter(|p| p.point.method == Method::Write);
        let disk = writes.map(|p| p.bytes_per_second).fold(0.0, f64::max);
        let effort =
            if self.full { Effort { seconds: 4.0, rounds: 5 } } else { Effort { seconds: 3.0, rounds: 3 } };
        let others_before = alone.others_cpus();
        let mut lab = Lab::start(Some(folder.to_path_buf()), CORES, stop)?;
        let learned = designed::all(&mut lab, effort, &mut say)?;
        machine.others_cpus = others_before.max(lab.others_cpus());
        drop(lab);
        say("fitting");
        let found = learned.calibration(stamp, machine, stalls, network, device, disk);
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        found.ok_or_else(|| Failed::new(Code::Local, "the runs made no flushes: nothing to learn from"))
    }

    fn device(
        &self,
        folder: &Path,
        stop: &std::sync::atomic::AtomicBool,
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<DevicePoint>, Failed> {
        let effort = if self.full { ringmill_device::Effort::Full } else { ringmill_device::Effort::Quick };
        let wrong = |error: ringmill_device::ProbeError| Failed::new(Code::Local, error.to_string());
        let mut probe = Probe::open(folder, PROBE_BYTES).map_err(wrong)?;
        let mut points = Vec::new();
        for point in ringmill_device::matrix(effort) {
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Failed::new(Code::Interrupted, "stopped; nothing is written"));
            }
            say(&format!(
                "device: {} of {} KiB, depth {}",
                point.method,
                point.size_bytes >> 10,
                point.depth
            ));
            let found = probe.measure(point, effort.span()).map_err(wrong)?;
            points.push(DevicePoint {
                point,
                per_second: found.per_second,
                bytes_per_second: found.bytes_per_second,
                cpu_us: found.cpu_us,
                spread: found.spread,
            });
        }
        Ok(points)
    }
}

fn progress(began: Instant, what: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{:>4.0} s  {what}", began.elapsed().as_secs_f64());
    }
}

/// Reads a calibration of this machine; one of another machine only where `force`d.
///
/// # Errors
/// A sentence for a file that is not there, cannot be understood, or belongs elsewhere.
pub fn load(path: &Path, force: bool) -> Result<(Calibration, Vec<String>), Failed> {
    let absent = |error: &std::io::Error| {
        let hint = if error.kind() == std::io::ErrorKind::NotFound {
            format!("; `ringmill calibrate --out {}` makes it", path.display())
        } else {
            String::new()
        };
        Failed::new(Code::Local, format!("{}: {error}{hint}", path.display()))
    };
    let file = File::open(path).map_err(|error| absent(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| absent(&error))?;
    let garbled = |why: String| Failed::new(Code::Garbled, format!("{}: {why}", path.display()));
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(garbled("too large for a calibration".into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| garbled("not a calibration: not UTF-8".into()))?;
    let found = Calibration::parse(&text).map_err(|error| garbled(error.to_string()))?;
    let here = host::stamp(Path::new(&found.stamp.folder), &found.stamp.mode);
    let differences = found.stamp.differences(&here);
    if !differences.is_empty() && !force {
        let why = format!(
            "{} is of another machine or kernel: {}. Calibrate again, or take it all the same with --force-calibration",
            path.display(),
            differences.join("; ")
        );
        return Err(Failed::new(Code::Refused, why));
    }
    Ok((found, differences))
}

fn tell(out: &mut Out, found: &Calibration) -> Result<(), Failed> {
    let stamp = &found.stamp;
    out.line(format!(
        "{}, {} CPUs, kernel {}, {} on {}",
        stamp.cpu,
        stamp.cpus,
        stamp.kernel,
        stamp.file_system,
        stamp.device.as_ref().map_or("no block device", |d| d.name.as_str())
    ))?;
    out.line("")?;
    device_table(out, found)?;
    out.line("")?;
    cost_table(out, found)?;
    out.line("")?;
    for line in facts(found) {
        out.line(out.paint(Paint::Dim, &line))?;
    }
    for remark in doubts(found) {
        out.line(out.paint(Paint::Bold, &remark))?;
    }
    Ok(())
}

/// What is no table.
fn facts(found: &Calibration) -> Vec<String> {
    vec![
        format!(
            "a flush takes the device {:.0} µs + {:.3} µs per KiB, p99 {:.1} times the mean, and {:.0} µs more for each \
             segment of a checkpoint beside it",
            found.flush.base_us,
            found.flush.kib_us,
            found.flush.around.at(0.99),
            found.flush.sync_us
        ),
        found.holds.as_ref().map_or("nothing else held the core up".into(), |holds| {
            format!(
                "something else held the core up {:.2} times a second, for {:.0} ms in the middle, {:.0} at most",
                holds.per_second,
                holds.us.at(0.5) / 1e3,
                holds.us.at(1.0) / 1e3
            )
        }),
        format!(
            "a partition that is written to: {:.1} µs of CPU a second, {:.1} KiB of memory",
            found.sides.partition_us_per_second,
            found.memory.partition_bytes / 1024.0
        ),
        format!(
            "one thread: {:.1} GB/s copied, {:.1} GB/s CRC-32C; {} {:.1} GB/s, round trip p50 {:.0} µs, p99 {:.0} µs",
            found.machine.copy_bytes_per_second / 1e9,
            found.machine.crc_bytes_per_second / 1e9,
            found.network.to,
            found.network.bytes_per_second / 1e9,
            found.network.round_trip.p50_us,
            found.network.round_trip.p99_us
        ),
        format!(
            "waits: wake {:.0} µs, timer {:.0} µs, {:.1} stalls above 0.1 ms a second",
            found.waits.wake_us, found.machine.timer_us, found.machine.stalls_per_second
        ),
        format!(
            "the model misses rates and medians of these runs by {:.0} %; it gives {:.2} of their rate at saturation, {:.2} \
             and {:.2} of their p99 at half and 80 % of it",
            found.flush.error_pct,
            1.0 / found.misses.rate,
            1.0 / found.misses.p99_half,
            1.0 / found.misses.p99_high
        ),
        format!(
            "one run at the begin and at the end: {:.2} times apart; p99 of one and the same run: {:.1} times apart",
            found.repeat.rate_times, found.repeat.p99_times
        ),
    ]
}

/// Why a calibration, and what is planned with it, may be worth little.
pub fn doubts(found: &Calibration) -> Vec<String> {
    let company = neighbours::remark(found.machine.others_cpus);
    let company = company.map(|remark| format!("{remark}; calibrate again when they rest"));
    unlike(found).into_iter().chain(company).collect()
}

/// What is to be said of a calibration whose minutes were not alike.
fn unlike(found: &Calibration) -> Option<String> {
    found.repeat.is_noisy().then(|| {
        format!(
            "the machine was not the same all the time: one and the same run was {:.2} times as fast at one end of the \
             calibration as at the other; calibrate again",
            found.repeat.rate_times
        )
    })
}

fn device_table(out: &mut Out, found: &Calibration) -> Result<(), Failed> {
    let right = |name| (name, Align::Right);
    let mut device = Table::new(&[
        ("DEVICE", Align::Left),
        right("KIB"),
        right("DEPTH"),
        right("OPS/S"),
        right("MB/S"),
        right("P50 µS"),
        right("P99 µS"),
        right("P99.9 µS"),
    ]);
    for at in &found.device {
        device.row(vec![
            at.point.method.to_string(),
            (at.point.size_bytes >> 10).to_string(),
            at.point.depth.to_string(),
            format!("{:.0}", at.per_second),
            format!("{:.0}", at.bytes_per_second / 1e6),
            format!("{:.0}", at.spread.p50_us),
            format!("{:.0}", at.spread.p99_us),
            format!("{:.0}", at.spread.p999_us),
        ]);
    }
    Ok(out.table(&device)?)
}

fn cost_table(out: &mut Out, found: &Calibration) -> Result<(), Failed> {
    let right = |name| (name, Align::Right);
    let mut costs = Table::new(&[
        ("CPU µS PER", Align::Left),
        right("TURN"),
        right("SLEEP"),
        right("REQUEST"),
        right("BATCH"),
        right("RECORD"),
        right("KIB"),
        right("GROUP"),
        right("ERROR %"),
    ]);
    let sides = &found.sides;
    for (name, side) in [
        ("core", sides.core),
        ("beside the core", sides.beside),
        ("producers", sides.client),
        ("core, reading", sides.core_fetch),
        ("reader", sides.client_fetch),
    ] {
        let Costs { turn_us, request_us, batch_us, record_us, kib_us, group_us, sleep_us } = side.costs;
        let mut cells = vec![name.to_string()];
        cells.extend(
            [turn_us, sleep_us, request_us, batch_us, record_us, kib_us, group_us]
                .map(|us| format!("{us:.3}")),
        );
        cells.push(format!("{:.1}", side.error_pct));
        costs.row(cells);
    }
    Ok(out.table(&costs)?)
}
