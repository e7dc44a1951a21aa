//! CPUs: how many, how they are clocked, and what time is read from.

use super::{Finding, read};
use ringmill_broker::host;
use std::collections::BTreeMap;

pub fn count() -> Finding {
    let cpus = host::facts().cpus.len();
    let cores = if cpus == 1 { "core" } else { "cores" };
    let found = format!("{cpus}: a broker starts {cpus} {cores} unless --cores says otherwise");
    if cpus < 2 {
        return Finding::warn("cpus", found, "with one CPU, control and upkeep share it with the core");
    }
    Finding::ok("cpus", found)
}

pub fn governor() -> Finding {
    const NAME: &str = "governor";
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for cpu in host::facts().cpus {
        if let Some(name) = read(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")) {
            *by_name.entry(name).or_default() += 1;
        }
    }
    if by_name.is_empty() {
        return Finding::ok(
            NAME,
            "the kernel does not clock the CPUs (a virtual machine, or the firmware does)",
        );
    }
    let found: Vec<String> = by_name.iter().map(|(name, cpus)| format!("{name} on {cpus}")).collect();
    let slow = by_name.keys().any(|name| name != "performance");
    let found = found.join(", ");
    if slow {
        return Finding::warn(NAME, found, "tails are shorter with `cpupower frequency-set -g performance`");
    }
    Finding::ok(NAME, found)
}

/// Shown, not warned of: it is on nearly everywhere, and matters only where others work on the broker's CPUs.
pub fn autogroup() -> Finding {
    const NAME: &str = "autogroup";
    match read("/proc/sys/kernel/sched_autogroup_enabled").as_deref() {
        Some("1") => Finding::ok(
            NAME,
            "on: beside busy processes on the same CPUs, writes may wait 100 ms for a kernel thread \
             (`sysctl kernel.sched_autogroup_enabled=0`, or CPUs of its own: --cores LIST)",
        ),
        Some(_) => Finding::ok(NAME, "off"),
        None => Finding::ok(NAME, "not in this kernel"),
    }
}

pub fn clock_source() -> Finding {
    const NAME: &str = "clock source";
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
    let Some(current) = read(&format!("{FOLDER}/current_clocksource")) else {
        return Finding::ok(NAME, "not shown by this kernel");
    };
    match current.as_str() {
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" => {
            let others = read(&format!("{FOLDER}/available_clocksource")).unwrap_or_default();
            let advice = format!(
                "each look at the clock is a device access; available are: {others} (boot with clocksource=tsc)"
            );
            Finding::warn(NAME, current, advice)
        }
        _ => Finding::ok(NAME, current),
    }
}
