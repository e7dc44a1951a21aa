//! What the device gives without a broker: durable writes by method, depth and size.

use crate::exit::{Code, Failed};
use ringmill_device::{Identity, Point, Probe};
use ringmill_tune::{DeviceRow, Method};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FILE_BYTES: u64 = 64 << 20;
const SPAN: Duration = Duration::from_millis(120);
/// From a page to a flush group at its largest.
const SIZES: [u32; 4] = [4 << 10, 64 << 10, 1 << 20, 4 << 20];
const DEPTHS: [u32; 3] = [1, 2, 4];

/// Measures for about three seconds.
pub fn device(folder: &Path, stop: &AtomicBool) -> Result<Vec<DeviceRow>, Failed> {
    let failed = |error: ringmill_device::ProbeError| Failed::new(Code::Local, error.to_string());
    let mut probe = Probe::open(folder, FILE_BYTES).map_err(failed)?;
    let mut rows = Vec::new();
    let methods = [
        (Method::Fdatasync, ringmill_device::Method::LinkedSync),
        (Method::Dsync, ringmill_device::Method::Dsync),
    ];
    for (method, way) in methods {
        for depth in DEPTHS {
            for size_bytes in SIZES {
                if stop.load(Ordering::Relaxed) {
                    return Ok(rows);
                }
                let measured =
                    probe.measure(Point { method: way, size_bytes, depth }, SPAN).map_err(failed)?;
                rows.push(DeviceRow {
                    method,
                    depth,
                    size_bytes: u64::from(size_bytes),
                    p50_ms: measured.spread.p50_us / 1e3,
                    p99_ms: measured.spread.p99_us / 1e3,
                    per_second: measured.per_second,
                });
            }
        }
    }
    Ok(rows)
}

/// `vda, write back, no FUA`, for people.
pub fn name(folder: &Path) -> String {
    use ringmill_device::WriteCache;
    let Some(device) = Identity::of(folder) else { return "no block device of its own".to_string() };
    let cache = match device.write_cache {
        WriteCache::WriteThrough => "no volatile write cache",
        WriteCache::WriteBack if device.fua => "volatile write cache with FUA",
        WriteCache::WriteBack => "volatile write cache without FUA",
        WriteCache::Unknown => "write cache unknown",
    };
    let model = if device.model.is_empty() { String::new() } else { format!(" ({})", device.model) };
    format!("{}{model}, {cache}", device.name)
}
