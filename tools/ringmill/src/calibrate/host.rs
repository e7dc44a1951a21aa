//! What a calibration is stamped with.

use ringmill_broker::host;
use ringmill_device::Identity;
use ringmill_plan::Stamp;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// This machine, with the device that holds `folder`.
pub fn stamp(folder: &Path, mode: &str) -> Stamp {
    let facts = host::facts();
    let folder = host::nearest_existing(folder);
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp {
        ringmill: env!("CARGO_PKG_VERSION").to_string(),
        made_unix_s: made.as_secs(),
        mode: mode.to_string(),
        kernel: host::kernel_release(),
        cpu: cpu_model(),
        cpus: facts.cpus.len() as u32,
        memory_bytes: facts.memory_bytes,
        file_system: host::file_system(&folder).map_or_else(|e| e.to_string(), |found| found.name),
        device: Identity::of(&folder),
        folder: folder.display().to_string(),
    }
}

/// As /proc/cpuinfo names it; machines whose kernel has no such line are told by their architecture.
fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let named = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_string());
    named.unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_itself() {
        let one = stamp(Path::new("/tmp"), "quick");
        assert!(one.cpus >= 1 && !one.kernel.is_empty() && !one.cpu.is_empty());
        assert!(one.differences(&stamp(Path::new("/tmp"), "full")).is_empty());
    }
}
