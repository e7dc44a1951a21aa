//! One point of a device's curves, measured.
//!
//! A [`Probe`] owns a file in the folder in question, zero-filled and synced as a recycled core log is, and a ring. It
//! keeps `depth` operations outstanding for the time asked and counts each from when it was handed to the kernel.

use hdrhistogram::Histogram;
use ringmill_reactor::ring::{RingBackend, RingError, RingFeatures, RingOptions};
use ringmill_reactor::{Backend, Buf, Errno, FileId, Flush, Fs, Op, OpenMode, Payload, Token, stdfs::StdFs};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest operation: a group of the core log at its largest.
pub const SIZE_BYTES_MAX: u32 = 4 << 20;
/// Most operations outstanding.
pub const DEPTH_MAX: u32 = 64;
const SIZE_BYTES_MIN: u32 = 4 << 10;
/// Nobody waits for more to be written.
const FILE_BYTES_MAX: u64 = 1 << 50;
const CHUNK_BYTES: usize = 1 << 20;
/// Room for every buffer of reads at the largest depth.
const POOL_BYTES: u64 = (SIZE_BYTES_MAX as u64) * (DEPTH_MAX as u64 + 4);
/// The first part of a span is not counted: the device's queues and the CPU's caches fill.
const WARM_PART: u32 = 8;
const HIGHEST_NS: u64 = 60_000_000_000;

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A write with a linked fdatasync.
    LinkedSync,
    /// A write that is durable when it completes (`RWF_DSYNC`).
    Dsync,
    /// A write without a flush.
    Write,
    Read,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::LinkedSync => "write+fdatasync",
            Method::Dsync => "write dsync",
            Method::Write => "write",
            Method::Read => "read",
        })
    }
}

/// One point of the curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Point {
    pub method: Method,
    /// A multiple of 4 KiB, at most [`SIZE_BYTES_MAX`].
    pub size_bytes: u32,
    /// Operations outstanding, at most [`DEPTH_MAX`].
    pub depth: u32,
}

/// A distribution of latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean_us: f64,
    pub deviation_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Spread {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Spread {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Spread {
            mean_us: histogram.mean() / 1e3,
            deviation_us: histogram.stdev() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

/// What a point gave.
#[derive(Clone, Debug)]
pub struct Measured {
    pub point: Point,
    pub operations: u64,
    pub per_second: f64,
    pub bytes_per_second: f64,
    /// Of this process, the kernel's workers included, for one operation.
    pub cpu_us: f64,
    pub spread: Spread,
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
}

/// Why there is no measurement.
#[derive(Debug)]
pub enum ProbeError {
    /// A size or depth outside the limits.
    Point(Point),
    Ring(RingError),
    File(PathBuf, io::Error),
    /// There is no such folder.
    NoFolder(PathBuf),
    /// An operation failed.
    Operation(Point, Errno),
    /// The file would not leave room for others.
    NoRoom {
        free_bytes: u64,
        needed_bytes: u64,
    },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::Point(point) => {
                write!(f, "{} bytes at depth {} cannot be measured", point.size_bytes, point.depth)
            }
            ProbeError::Ring(error) => write!(f, "{error}"),
            ProbeError::File(path, error) => write!(f, "{}: {error}", path.display()),
            ProbeError::NoFolder(folder) => {
                let folder = folder.display();
                write!(f, "{folder}: there is no such folder; make it first, or name one with --data")
            }
            ProbeError::Operation(point, error) => {
                write!(f, "{} of {} bytes failed: {error}", point.method, point.size_bytes)
            }
            ProbeError::NoRoom { free_bytes, needed_bytes } => {
                write!(f, "{free_bytes} bytes are free, and {needed_bytes} are needed for a measurement")
            }
        }
    }
}

impl std::error::Error for ProbeError {}

/// A file and a ring to measure a folder's device with. The file goes away with it.
pub struct Probe {
    backend: RingBackend,
    file: FileId,
    direct: bool,
    path: PathBuf,
    file_bytes: u64,
    /// What is written.
    source: Buf,
    offset: u64,
}

impl Probe {
    /// Makes a file of `file_bytes` (rounded up to whole MiB) in `folder`, which must exist.
    ///
    /// # Errors
    /// When there is no ring, or the file cannot be made.
    pub fn open(folder: &Path, file_bytes: u64) -> Result<Probe, ProbeError> {
        let least = 2 * u64::from(SIZE_BYTES_MAX);
        let file_bytes = file_bytes.clamp(least, FILE_BYTES_MAX).next_multiple_of(CHUNK_BYTES as u64);
        let path = folder.join(format!("ringmill-probe-{}", std::process::id()));
        let failed = |error| ProbeError::File(path.clone(), error);
        if !folder.is_dir() {
            return Err(ProbeError::NoFolder(folder.to_path_buf()));
        }
        let free_bytes = StdFs.free_bytes(folder).map_err(failed)?;
        // Twice: a full disk is somebody's bad day.
        if free_bytes < file_bytes * 2 {
            return Err(ProbeError::NoRoom { free_bytes, needed_bytes: file_bytes * 2 });
        }
        let ring = RingOptions { pool_limit_bytes: POOL_BYTES, features: RingFeatures::ALL };
        let mut backend = RingBackend::new(ring).map_err(ProbeError::Ring)?;
        let handle = StdFs.open(&path, OpenMode::CreateDirect).map_err(failed)?;
        let direct = handle.is_direct();
        let mut source =
            backend.pool().take(SIZE_BYTES_MAX as usize).expect("the pool has room for its first buffer");
        source.set_len(SIZE_BYTES_MAX as usize);
        // Letters: a device that compresses would make zeros cheaper than a log's records.
        for (at, byte) in source.as_mut_full().iter_mut().enumerate() {
            *byte = b'A' + ((at * at / 7 + at) % 26) as u8;
        }
        let source = source.freeze();
        let file = backend.attach_file(handle.clone());
        let probe = Probe { backend, file, direct, path: path.clone(), file_bytes, source, offset: 0 };
        // From here on the file goes away with the probe, whatever happens.
        let zeros = vec![0; CHUNK_BYTES];
        let chunk = ringmill_reactor::Pool::new(POOL_BYTES).take(CHUNK_BYTES);
        let mut chunk = chunk.expect("a fresh pool has room for its first buffer");
        chunk.extend(&zeros);
        for at in (0..file_bytes).step_by(CHUNK_BYTES) {
            StdFs.write_at(&handle, &chunk, at).map_err(failed)?;
        }
        StdFs.sync_data(&handle).map_err(failed)?;
        Ok(probe)
    }

    /// Whether operations pass the page cache by; where they do not, reads say little about the device.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Keeps `point.depth` operations outstanding for `span`.
    ///
    /// # Errors
    /// When the point is outside the limits or an operation fails.
    pub fn measure(&mut self, point: Point, span: Duration) -> Result<Measured, ProbeError> {
        let Point { size_bytes, depth, .. } = point;
        let in_limits = (SIZE_BYTES_MIN..=SIZE_BYTES_MAX).contains(&size_bytes)
            && size_bytes.is_multiple_of(SIZE_BYTES_MIN)
            && (1..=DEPTH_MAX).contains(&depth);
        if !in_limits {
            return Err(ProbeError::Point(point));
        }
        let mut histogram =
            Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds that are in order");
        let mut started = vec![0; depth as usize];
        let begin_ns = self.backend.now_ns();
        let span_ns = span.as_nanos() as u64;
        let end_ns = begin_ns + span_ns + span_ns / u64::from(WARM_PART);
        let (mut counted_from_ns, mut cpu) = (None, Duration::ZERO);
        for slot in 0..depth as usize {
            self.push(point, slot, &mut started, None);
        }
        while self.backend.in_flight() > 0 {
            self.backend.enter(None);
            while let Some(done) = self.backend.pop() {
                let now_ns = self.backend.now_ns();
                let slot = done.token.0 as usize;
                if let Err(error) = done.result {
                    self.drain();
                    return Err(ProbeError::Operation(point, error));
                }
                match counted_from_ns {
                    Some(_) => {
                        histogram.saturating_record(now_ns - started.get(slot).copied().unwrap_or(now_ns))
                    }
                    None if now_ns - begin_ns >= span_ns / u64::from(WARM_PART) => {
                        (counted_from_ns, cpu) = (Some(now_ns), process_cpu());
                    }
                    None => {}
                }
                if now_ns < end_ns || histogram.is_empty() {
                    self.push(point, slot, &mut started, Some(done.payload));
                }
            }
        }
        let from_ns = counted_from_ns.unwrap_or(begin_ns);
        let seconds = (self.backend.now_ns() - from_ns).max(1) as f64 / 1e9;
        let operations = histogram.len();
        Ok(Measured {
            point,
            operations,
            per_second: operations as f64 / seconds,
            bytes_per_second: operations as f64 * f64::from(size_bytes) / seconds,
            cpu_us: (process_cpu() - cpu).as_secs_f64() * 1e6 / operations.max(1) as f64,
            spread: Spread::of(&histogram),
            histogram,
        })
    }

    /// Starts the next operation of a slot, with the buffer of its last one.
    fn push(&mut self, point: Point, slot: usize, started: &mut [u64], last: Option<Payload>) {
        let size = u64::from(point.size_bytes);
        if self.offset + size > self.file_bytes {
            self.offset = 0;
        }
        let (file, offset, len) = (self.file, self.offset, point.size_bytes as usize);
        self.offset += size;
        let flush = match point.method {
            Method::LinkedSync => Flush::Linked,
            Method::Dsync => Flush::Dsync,
            Method::Write | Method::Read => Flush::None,
        };
        let op = if point.method == Method::Read {
            let buf = match last {
                Some(Payload::BufMut(mut buf)) => {
                    buf.set_len(0);
                    buf
                }
                _ => self.backend.pool().take(len).expect("the pool has room for the largest depth"),
            };
            Op::Read { file, buf, offset, len }
        } else {
            Op::Write { file, buf: self.source.slice(0, len), offset, flush }
        };
        if let Some(started) = started.get_mut(slot) {
            *started = self.backend.now_ns();
        }
        self.backend.push(op, Token(slot as u64));
    }

    /// Waits for what is outstanding, whatever its result.
    fn drain(&mut self) {
        while self.backend.in_flight() > 0 {
            self.backend.enter(None);
            while self.backend.pop().is_some() {}
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.drain();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
