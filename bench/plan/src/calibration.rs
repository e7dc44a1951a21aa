//! What was measured on a machine, as a TOML file with a version and a stamp.
//!
//! A file holds what planning needs and the runs it was fitted from, so that a reader can judge it. It is only believed on
//! the machine and kernel it was made on ([`Stamp::differences`]); numbers that cannot be are refused when it is read.

use crate::draw::Quantiles;
use ringmill_device::{Identity, Point, Spread};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Of the file's format. A reader takes its own only.
pub const VERSION: u32 = 5;
/// A file larger than this is not one of ours.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// CPU microseconds for one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// One round of a thread's loop.
    pub turn_us: f64,
    pub request_us: f64,
    /// One partition's batch in a request.
    pub batch_us: f64,
    pub record_us: f64,
    pub kib_us: f64,
    /// One flush group.
    pub group_us: f64,
    /// Going to sleep for want of work, and waking.
    pub sleep_us: f64,
}

impl Costs {
    pub const WIDTH: usize = 7;

    /// As the regression orders them.
    pub fn of(coefficients: &[f64]) -> Costs {
        let at = |place: usize| coefficients.get(place).copied().unwrap_or(0.0);
        Costs {
            turn_us: at(0),
            request_us: at(1),
            batch_us: at(2),
            record_us: at(3),
            kib_us: at(4),
            group_us: at(5),
            sleep_us: at(6),
        }
    }

    fn all(&self) -> [f64; Costs::WIDTH] {
        [
            self.turn_us,
            self.request_us,
            self.batch_us,
            self.record_us,
            self.kib_us,
            self.group_us,
            self.sleep_us,
        ]
    }

    /// CPU microseconds for all of it.
    pub fn us(&self, counts: &Counts) -> f64 {
        self.all().iter().zip(counts.all()).map(|(cost, count)| cost * count).sum()
    }
}

/// How much was done of each thing that [`Costs`] has a cost of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub turns: f64,
    pub requests: f64,
    pub batches: f64,
    pub records: f64,
    pub kib: f64,
    pub groups: f64,
    pub sleeps: f64,
}

impl Counts {
    /// As the regression orders them.
    pub fn all(&self) -> [f64; Costs::WIDTH] {
        [self.turns, self.requests, self.batches, self.records, self.kib, self.groups, self.sleeps]
    }
}

/// Costs, and how well they explain the runs they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    #[serde(flatten)]
    pub costs: Costs,
    /// Mean and largest relative error over the runs, percent.
    pub error_pct: f64,
    pub error_pct_max: f64,
}

/// The machine, and what made the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    pub ringmill: String,
    pub made_unix_s: u64,
    pub mode: String,
    pub kernel: String,
    pub cpu: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// The folder that was measured, its file system and device.
    pub folder: String,
    pub file_system: String,
    pub device: Option<Identity>,
}

impl Stamp {
    /// Why a calibration with this stamp says nothing about `here`; empty when it may be believed.
    pub fn differences(&self, here: &Stamp) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, then: &str, now: &str| {
            if then != now {
                found.push(format!("{what} was {then}, here it is {now}"));
            }
        };
        compare("the kernel", &self.kernel, &here.kernel);
        compare("the CPU", &self.cpu, &here.cpu);
        compare("the number of CPUs", &self.cpus.to_string(), &here.cpus.to_string());
        compare("ringmill", &self.ringmill, &here.ringmill);
        let device = |of: &Option<Identity>| {
            of.as_ref().map_or("none".into(), |d| format!("{} {} of {} bytes", d.name, d.model, d.size_bytes))
        };
        compare("the device", &device(&self.device), &device(&here.device));
        let gib = |bytes: u64| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30));
        compare("the memory", &gib(self.memory_bytes), &gib(here.memory_bytes));
        found
    }
}

/// One point of the device's curves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePoint {
    #[serde(flatten)]
    pub point: Point,
    pub per_second: f64,
    pub bytes_per_second: f64,
    pub cpu_us: f64,
    #[serde(flatten)]
    pub spread: Spread,
}

/// Speeds that are not the device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Of one thread: read and written, both counted.
    pub copy_bytes_per_second: f64,
    pub crc_bytes_per_second: f64,
    /// From the time a thread asked to sleep until to when it ran.
    pub timer_us: f64,
    /// Stalls of a thread that wants to run, of 100 µs and more.
    pub stalls_per_second: f64,
    /// CPUs that other processes used while all of this was measured: the more, the less any figure is worth.
    pub others_cpus: f64,
}

/// The way between client and broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `loopback`, or the address of the peer.
    pub to: String,
    pub bytes_per_second: f64,
    pub round_trip: Spread,
}

/// What flushes inside a loaded broker take the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flush {
    pub base_us: f64,
    pub kib_us: f64,
    /// For the sync of one segment at a checkpoint.
    pub sync_us: f64,
    /// By how much the model misses the rates and medians that these were found from: the mean, percent.
    pub error_pct: f64,
    /// How single ones lie around the mean, as a part of it.
    pub around: Quantiles,
}

/// What kept a loaded core from its flushes now and then, far longer than flushes take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holds {
    pub per_second: f64,
    pub us: Quantiles,
}

/// How far the machine repeats itself: a half and a double are both 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// One and the same run as fast as it goes, near the begin and at the end.
    pub rate_times: f64,
    /// The highest p99 over the lowest of runs that were made several times: the typical one.
    pub p99_times: f64,
}

impl Repeat {
    /// Above this a calibration's minutes were not alike, and it is worth little.
    pub const NOISY: f64 = 1.15;
    pub const EXACT: Repeat = Repeat { rate_times: 1.0, p99_times: 1.0 };

    pub fn is_noisy(&self) -> bool {
        self.rate_times > Repeat::NOISY
    }
}

/// Memory of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Resident after the runs, without what partitions add.
    pub base_bytes: f64,
    pub partition_bytes: f64,
}

/// Costs of every side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// The core's thread, for produce.
    pub core: Fitted,
    /// Everything else of the broker's process: flush workers, control, file thread.
    pub beside: Fitted,
    /// The generator's thread.
    pub client: Fitted,
    /// Reading: the core's thread and a reader's.
    pub core_fetch: Fitted,
    pub client_fetch: Fitted,
    /// CPU of the broker for one partition that is written to, for each second.
    pub partition_us_per_second: f64,
}

/// What no count explains and is fitted from latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waits {
    /// From a message to a sleeping thread that runs.
    pub wake_us: f64,
}

/// What the runs that the model was fitted from had over what it says of them, the typical one of each kind. Told, and
/// no prediction is bent by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Misses {
    /// The rate as fast as it goes.
    pub rate: f64,
    /// p99 at half and at 80 % of it.
    pub p99_half: f64,
    pub p99_high: f64,
}

impl Misses {
    pub const NONE: Misses = Misses { rate: 1.0, p99_half: 1.0, p99_high: 1.0 };
}

/// A run as it was measured, for whoever wants to judge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub name: String,
    pub record_bytes: u32,
    pub partitions: u32,
    pub producers: u32,
    /// That read along.
    pub readers: u32,
    pub linger_us: f64,
    pub batch_bytes: u32,
    /// Asked; 0: no limit.
    pub asked: f64,
    pub seconds: f64,
    pub records: f64,
    pub wire_bytes: f64,
    pub requests: f64,
    pub batches: f64,
    pub groups: f64,
    pub group_bytes: f64,
    pub client_turns: f64,
    pub core_turns: f64,
    /// Of each thread: how often it waited for something to do.
    pub client_sleeps: f64,
    pub core_sleeps: f64,
    pub client_cpu_s: f64,
    pub core_cpu_s: f64,
    pub broker_cpu_s: f64,
    pub flush_mean_us: f64,
    /// Records per second, once warm.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    pub version: u32,
    pub stamp: Stamp,
    pub machine: Machine,
    pub network: Network,
    pub flush: Flush,
    pub holds: Option<Holds>,
    pub repeat: Repeat,
    pub stalls_us: Option<Quantiles>,
    pub memory: Memory,
    pub sides: Sides,
    pub waits: Waits,
    pub misses: Misses,
    /// Bytes per second that the device takes while a log and its destaging write to it, both counted.
    pub disk_bytes_per_second: f64,
    pub device: Vec<DevicePoint>,
    pub runs: Vec<Run>,
}

/// Why a text is no calibration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalibrationError {
    Toml(String),
    Version(u32),
    /// A number that cannot be.
    Number(&'static str),
}

impl fmt::Display for CalibrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalibrationError::Toml(why) => write!(f, "not a calibration: {}", why.trim_end()),
            CalibrationError::Version(found) => {
                write!(f, "its version is {found}, this ringmill reads {VERSION}: calibrate again")
            }
            CalibrationError::Number(what) => {
                write!(f, "{what} is not a number that can be: calibrate again")
            }
        }
    }
}

impl std::error::Error for CalibrationError {}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Calibration {
    /// # Errors
    /// When the text is no calibration of this version, or holds numbers that cannot be.
    pub fn parse(text: &str) -> Result<Calibration, CalibrationError> {
        let wrong = |error: toml::de::Error| CalibrationError::Toml(error.message().to_string());
        let Version { version } = toml::from_str(text).map_err(wrong)?;
        if version != VERSION {
            return Err(CalibrationError::Version(version));
        }
        let read: Calibration = toml::from_str(text).map_err(wrong)?;
        read.check()?;
        Ok(read)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        const HEAD: &str =
            "# Made by `ringmill calibrate`; read by `ringmill plan`. Valid for this machine and kernel.\n";
        toml::to_string_pretty(self)
            .map_or_else(|error| format!("# {error}\n"), |text| format!("{HEAD}{text}"))
    }

    /// The same machine with a device that takes so many times as long for what it is given.
    pub fn with_slower_device(&self, times: f64) -> Calibration {
        let mut other = self.clone();
        other.flush.base_us *= times;
        other.flush.kib_us *= times;
        other.flush.sync_us *= times;
        other.disk_bytes_per_second /= times;
        other
    }

    fn check(&self) -> Result<(), CalibrationError> {
        let sides = &self.sides;
        for (what, fitted) in [
            ("sides.core", sides.core),
            ("sides.beside", sides.beside),
            ("sides.client", sides.client),
            ("sides.core_fetch", sides.core_fetch),
            ("sides.client_fetch", sides.client_fetch),
        ] {
            if !fitted.costs.all().iter().all(|cost| (0.0..1e9).contains(cost)) {
                return Err(CalibrationError::Number(what));
            }
        }
        let bounded = [
            ("flush.base_us", self.flush.base_us, 0.0, 1e9),
            ("flush.kib_us", self.flush.kib_us, 0.0, 1e9),
            ("flush.sync_us", self.flush.sync_us, 0.0, 1e9),
            ("holds.per_second", self.holds.as_ref().map_or(0.0, |holds| holds.per_second), 0.0, 1e5),
            ("repeat.rate_times", self.repeat.rate_times, 1.0, 1e9),
            ("repeat.p99_times", self.repeat.p99_times, 1.0, 1e9),
            ("machine.timer_us", self.machine.timer_us, 0.0, 1e9),
            ("machine.stalls_per_second", self.machine.stalls_per_second, 0.0, 1e5),
            ("machine.others_cpus", self.machine.others_cpus, 0.0, 1e5),
            ("machine.copy_bytes_per_second", self.machine.copy_bytes_per_second, 1.0, 1e15),
            ("machine.crc_bytes_per_second", self.machine.crc_bytes_per_second, 1.0, 1e15),
            ("network.bytes_per_second", self.network.bytes_per_second, 1.0, 1e15),
            ("disk_bytes_per_second", self.disk_bytes_per_second, 1.0, 1e15),
            ("memory.base_bytes", self.memory.base_bytes, 0.0, 1e15),
            ("memory.partition_bytes", self.memory.partition_bytes, 0.0, 1e12),
            ("sides.partition_us_per_second", sides.partition_us_per_second, 0.0, 1e9),
            ("waits.wake_us", self.waits.wake_us, 0.0, 1e7),
            ("misses.rate", self.misses.rate, 0.0, 1e6),
            ("misses.p99_half", self.misses.p99_half, 0.0, 1e6),
            ("misses.p99_high", self.misses.p99_high, 0.0, 1e6),
        ];
        // A NaN is in no range.
        if let Some((what, ..)) = bounded.iter().find(|(_, value, low, high)| !(*low..=*high).contains(value))
        {
            return Err(CalibrationError::Number(what));
        }
        if !self.flush.around.is_sound() {
            return Err(CalibrationError::Number("flush.around"));
        }
        if self.holds.as_ref().is_some_and(|holds| !holds.us.is_sound()) {
            return Err(CalibrationError::Number("holds.us"));
        }
        if self.stalls_us.as_ref().is_some_and(|stalls| !stalls.is_sound()) {
            return Err(CalibrationError::Number("stalls_us"));
        }
        if self.stamp.cpus == 0 || self.flush.base_us + self.flush.kib_us <= 0.0 {
            return Err(CalibrationError::Number("stamp.cpus or flush"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of a machine that is easy to reckon with.
    pub fn example() -> Calibration {
        let fitted = |costs: Costs| Fitted { costs, error_pct: 1.0, error_pct_max: 2.0 };
        Calibration {
            version: VERSION,
            stamp: Stamp {
                ringmill: "0.1.0".into(),
                made_unix_s: 1_780_000_000,
                mode: "quick".into(),
                kernel: "6.18.0".into(),
                cpu: "A CPU".into(),
                cpus: 2,
                memory_bytes: 16 << 30,
                folder: "/data".into(),
                file_system: "ext4".into(),
                device: None,
            },
            machine: Machine {
                copy_bytes_per_second: 2e10,
                crc_bytes_per_second: 2e10,
                timer_us: 55.0,
                stalls_per_second: 0.0,
                others_cpus: 0.0,
            },
            network: Network { to: "loopback".into(), bytes_per_second: 5e9, round_trip: Spread::default() },
            flush: Flush {
                base_us: 100.0,
                kib_us: 0.5,
                sync_us: 0.0,
                error_pct: 5.0,
                around: Quantiles { parts: vec![0.0, 0.5, 0.99, 1.0], values: vec![0.6, 0.9, 3.0, 5.0] },
            },
            holds: None,
            repeat: Repeat::EXACT,
            stalls_us: None,
            memory: Memory { base_bytes: 6e7, partition_bytes: 20_000.0 },
            sides: Sides {
                core: fitted(Costs {
                    turn_us: 1.0,
                    request_us: 5.0,
                    batch_us: 1.0,
                    record_us: 0.05,
                    kib_us: 0.15,
                    group_us: 5.0,
                    sleep_us: 4.0,
                }),
                beside: fitted(Costs { kib_us: 0.1, group_us: 10.0, ..Costs::default() }),
                client: fitted(Costs { turn_us: 2.0, request_us: 6.0, record_us: 0.3, ..Costs::default() }),
                core_fetch: fitted(Costs { request_us: 5.0, kib_us: 0.1, ..Costs::default() }),
                client_fetch: fitted(Costs { request_us: 5.0, record_us: 0.1, ..Costs::default() }),
                partition_us_per_second: 10.0,
            },
            waits: Waits { wake_us: 10.0 },
            misses: Misses::NONE,
            disk_bytes_per_second: 2e9,
            device: Vec::new(),
            runs: vec![Run { name: "a".into(), ..Run::default() }],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let one = example();
        assert_eq!(Calibration::parse(&one.to_toml()).expect("our own text"), one);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = example().to_toml();
        let replaced = |from: &str, to: &str| Calibration::parse(&text.replacen(from, to, 1));
        assert_eq!(replaced("version = 5", "version = 2"), Err(CalibrationError::Version(2)));
        assert_eq!(
            replaced("wake_us = 10.0", "wake_us = nan"),
            Err(CalibrationError::Number("waits.wake_us"))
        );
        assert_eq!(
            replaced("base_us = 100.0", "base_us = -1.0"),
            Err(CalibrationError::Number("flush.base_us"))
        );
        assert_eq!(
            replaced("request_us = 5.0", "request_us = inf"),
            Err(CalibrationError::Number("sides.core"))
        );
        assert!(matches!(replaced("wake_us = 10.0", "vake_us = 10.0"), Err(CalibrationError::Toml(_))));
        assert!(matches!(Calibration::parse("hello"), Err(CalibrationError::Toml(_))));
    }

    #[test]
    fn a_slower_device_flushes_longer_and_takes_less() {
        let slower = example().with_slower_device(2.0);
        assert_eq!((slower.flush.base_us, slower.flush.kib_us), (200.0, 1.0));
        assert_eq!(slower.disk_bytes_per_second, 1e9);
        assert_eq!(slower.sides, example().sides);
    }

    #[test]
    fn another_machine_or_kernel_is_noticed() {
        let (then, mut now) = (example().stamp, example().stamp);
        assert!(then.differences(&now).is_empty());
        now.kernel = "6.19.0".into();
        now.cpus = 4;
        let found = then.differences(&now);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("6.18.0") && found[0].contains("6.19.0"), "{found:?}");
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC*", at in 0usize..2000, byte: u8) {
            let _ = Calibration::parse(&text);
            let mut bytes = example().to_toml().into_bytes();
            let place = at % bytes.len();
            bytes[place] = byte;
            let _ = Calibration::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
