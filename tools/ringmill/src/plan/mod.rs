//! `ringmill plan`: what a load needs, from a calibration of this machine.
//!
//! Only `--rate` is required; every default is printed with the answer. `--verify` runs the planned load on this machine
//! and puts what was predicted beside what was measured.

mod page;
mod tell;
mod verify;

use crate::calibrate::{DEFAULT_FILE, load};
use crate::exit::{Code, Failed};
use crate::output::{Out, remark};
use crate::saving::{refuse_overwriting, save};
use clap::Args;
use ringmill_plan::Calibration;
use ringmill_plan::sizing::{self, Demand, Hardware};
use ringmill_plan::units::{self, Goal, Rate};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Nodes, cores, memory, disk and network for a load; what saturates first and when; the latency to expect
#[derive(Args)]
#[command(
    after_help = "Rates: 80MB/s, or a number of records per second. Read from the file that `ringmill calibrate` wrote."
)]
pub struct Plan {
    /// Load: 80MB/s, 20000 (records per second) or 20krec/s
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    rate: Rate,
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", default_value = "1000", value_parser = record_size)]
    record_size: u32,
    #[arg(long, value_name = "COUNT", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    partitions: u32,
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    producers: u32,
    /// Groups of consumers, each of which reads everything
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    consumers: u32,
    /// How long records are kept
    #[arg(long, value_name = "TIME", default_value = "3d", value_parser = units::seconds)]
    retention: f64,
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    replicas: u32,
    /// Goal such as p99=5ms
    #[arg(long, value_name = "GOAL", value_parser = units::goal)]
    slo: Option<Goal>,
    /// Growth such as 2x/y or 5%/m
    #[arg(long, value_name = "GROWTH", value_parser = units::growth)]
    growth: Option<f64>,
    /// linger.ms of the producers, as a time
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = units::seconds)]
    linger: f64,
    /// batch.size of the producers
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = batch_size)]
    batch_size: u32,
    /// Part of a resource that is to be used at most
    #[arg(long, value_name = "PART", default_value_t = 0.7, value_parser = part)]
    headroom: f64,
    /// Cores of a node [default: as this machine has]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    cores: Option<u32>,
    /// Memory of a node [default: as this machine has]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    memory: Option<f64>,
    /// Disk space of a node [default: the calibrated device]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    disk: Option<f64>,
    /// Network of a node in each direction, bytes per second [default: as calibrated]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    network: Option<f64>,
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    calibration: PathBuf,
    /// Take a calibration of another machine or kernel all the same
    #[arg(long)]
    force_calibration: bool,
    /// Run the load on this machine, scaled where it has to be, and compare
    #[arg(long)]
    verify: bool,
    /// Folder on the device for --verify [default: the calibrated one]
    #[arg(long, value_name = "DIR", requires = "verify")]
    data: Option<PathBuf>,
    /// Rounds of each measurement of --verify; the middle one counts
    #[arg(long, value_name = "COUNT", default_value_t = 5, requires = "verify", value_parser = clap::value_parser!(u32).range(1..=25))]
    rounds: u32,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    /// One page with the picture of use and latency over load
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Overwrite that page
    #[arg(long)]
    force: bool,
}

fn record_size(text: &str) -> Result<u32, String> {
    let bytes = units::bytes(text)?;
    if (24.0..=1_000_000.0).contains(&bytes) {
        Ok(bytes as u32)
    } else {
        Err(format!("{text}: records of 24 to 1,000,000 bytes are planned"))
    }
}

fn batch_size(text: &str) -> Result<u32, String> {
    let bytes = units::bytes(text)?;
    if bytes <= f64::from(4 << 20) {
        Ok(bytes as u32)
    } else {
        Err(format!("{text}: batches are at most 4MiB"))
    }
}

fn part(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|part| (0.05..=1.0).contains(part));
    found.ok_or_else(|| format!("{text} is not a part between 0.05 and 1"))
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    plan: &'a sizing::Plan,
    calibration: String,
    calibration_differs: Vec<String>,
    #[serde(flatten)]
    verified: Option<verify::Verified>,
}

impl Plan {
    fn demand(&self) -> Demand {
        Demand {
            records_per_second: self.rate.records(self.record_size),
            record_bytes: self.record_size,
            partitions: self.partitions,
            producers: self.producers,
            consumers: self.consumers,
            retention_s: self.retention,
            replicas: self.replicas,
            linger_us: self.linger * 1e6,
            batch_bytes: self.batch_size,
            goal: self.slo,
            growth_per_year: self.growth.unwrap_or(1.0),
            headroom: self.headroom,
        }
    }

    fn hardware(&self, here: Hardware) -> Hardware {
        Hardware {
            cores: self.cores.unwrap_or(here.cores),
            memory_bytes: self.memory.unwrap_or(here.memory_bytes),
            disk_bytes: self.disk.unwrap_or(here.disk_bytes),
            network_bytes_per_second: self.network.unwrap_or(here.network_bytes_per_second),
            ..here
        }
    }

    pub fn run(self) -> Result<(), Failed> {
        if let Some(path) = &self.html {
            refuse_overwriting(path, self.force)?;
        }
        let demand = self.demand();
        if !(1.0..=1e12).contains(&demand.records_per_second) {
            return Err(Failed::new(Code::Usage, "--rate: at least one record per second, at most 10^12"));
        }
        if !(0.0..=60e6).contains(&demand.linger_us) {
            return Err(Failed::new(Code::Usage, "--linger: at most a minute"));
        }
        let (calibration, differs) = load(&self.calibration, self.force_calibration)?;
        for difference in &differs {
            remark(&format!("taken all the same: {difference}"));
        }
        let hardware = self.hardware(sizing::here(&calibration));
        let found = sizing::plan(&calibration, &demand, hardware);
        let mut out = Out::new();
        if !self.json {
            // A verification takes a while, and may fail: what is known is said before it.
            tell::plan(&mut out, &found, &calibration)?;
            out.flush()?;
        }
        let verified = self.verify.then(|| self.verified(&calibration, &demand)).transpose();
        let (verified, failure) = match verified {
            Ok(verified) => (verified, None),
            Err(failure) => (None, Some(failure)),
        };
        if let Some(path) = &self.html {
            save(path, page::page(&found, &calibration, verified.as_ref()).as_bytes(), self.force)?;
        }
        if self.json {
            let calibration = self.calibration.display().to_string();
            out.json_pretty(&Document { plan: &found, calibration, calibration_differs: differs, verified })?;
        } else if let Some(verified) = &verified {
            tell::verified(&mut out, verified)?;
        }
        out.finish()?;
        failure.map_or(Ok(()), Err)
    }

    fn verified(&self, calibration: &Calibration, demand: &Demand) -> Result<verify::Verified, Failed> {
        let folder = self.data.clone().unwrap_or_else(|| PathBuf::from(&calibration.stamp.folder));
        verify::verify(calibration, demand, folder, self.rounds as usize)
    }
}
