//! From a load and a calibration to a cluster: how many nodes, what they need, what saturates first, and when.
//!
//! CPU, flushes and latency of one core are played by the model; cores and nodes are taken as many of that core, which is
//! told as modelled beyond what was measured. Disk, network and memory are sums.

use crate::calibration::Calibration;
use crate::model::{self, Clients};
use crate::sim::Load;
use crate::units::{self, Goal};
use serde::Serialize;

/// More nodes than this are not planned.
const NODES_MAX: u32 = 1024;
/// Points of the curve, in percent of the saturation.
const CURVE: [u32; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 97];
/// A log is written twice: to the core log, and from there to segments.
const WRITES: f64 = 2.0;
const CORE_LOG_BYTES: f64 = (512u64 << 20) as f64;
/// A horizon beyond which nobody plans.
const YEARS_MAX: f64 = 100.0;
const GIB: f64 = 1_073_741_824.0;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hardware {
    pub cores: u32,
    pub memory_bytes: f64,
    pub disks: u32,
    pub disk_bytes: f64,
    pub disk_bytes_per_second: f64,
    /// In each direction.
    pub network_bytes_per_second: f64,
}

/// What is to be carried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    pub records_per_second: f64,
    pub record_bytes: u32,
    pub partitions: u32,
    pub producers: u32,
    /// Groups that read everything once each.
    pub consumers: u32,
    pub retention_s: f64,
    pub replicas: u32,
    pub linger_us: f64,
    pub batch_bytes: u32,
    #[serde(skip)]
    pub goal: Option<Goal>,
    pub growth_per_year: f64,
    /// Part of a resource that is to be used at most.
    pub headroom: f64,
}

impl Demand {
    fn bytes_per_second(&self) -> f64 {
        self.records_per_second * f64::from(self.record_bytes)
    }

    /// The part of it that one core of a cluster sees, at `factor` of the rate.
    fn of_core(&self, nodes: u32, cores: u32, factor: f64) -> Load {
        let shares = f64::from(nodes) * f64::from(cores.max(1));
        // Copies come to other cores as bytes to append, in groups that exist already.
        let rate = self.records_per_second * factor * f64::from(self.replicas.max(1)) / shares;
        let share = |count: u32| (f64::from(count) / shares).ceil().max(1.0) as u32;
        Load {
            linger_us: self.linger_us,
            batch_bytes: self.batch_bytes,
            // Every producer has a connection to every node, which lives on one core.
            ..Load::new(
                Some(rate),
                self.record_bytes,
                share(self.partitions.saturating_mul(self.replicas.max(1))),
                (f64::from(self.producers) / f64::from(cores.max(1))).ceil().max(1.0) as u32,
            )
        }
    }
}

/// One resource of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resource {
    pub name: &'static str,
    pub unit: &'static str,
    pub used: f64,
    pub limit: f64,
    pub utilisation: f64,
    /// Records per second of the whole cluster at which it is full.
    pub full_at: f64,
    /// Years until then with the growth given; none within a hundred, or without growth.
    pub full_in_years: Option<f64>,
    /// Not measured on the calibrated machine in this form.
    pub modelled: bool,
}

/// One point of the picture of load, utilisation and latency.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    pub percent: u32,
    pub records_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// In the order of the resources.
    pub utilisation: Vec<f64>,
}

/// What one more of something buys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct More {
    pub what: String,
    /// Records per second at which the first resource is full, before and after.
    pub from: f64,
    pub to: f64,
    pub note: String,
}

/// A latency goal, and what can be had.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    pub part: f64,
    pub goal_ms: f64,
    pub expected_ms: f64,
    pub met: bool,
    /// The nearest that can be met, when the goal cannot.
    pub nearest: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub demand: Demand,
    pub hardware: Hardware,
    pub nodes: u32,
    /// False: even the largest cluster that is planned is too small.
    pub enough: bool,
    pub resources: Vec<Resource>,
    pub first: &'static str,
    pub saturation_records_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub goal: Option<Verdict>,
    pub curve: Vec<CurvePoint>,
    pub more: Vec<More>,
    pub modelled: Vec<String>,
}

/// The calibrated machine as a node.
pub fn here(calibration: &Calibration) -> Hardware {
    Hardware {
        cores: calibration.stamp.cpus,
        memory_bytes: calibration.stamp.memory_bytes as f64,
        disks: 1,
        disk_bytes: calibration.stamp.device.as_ref().map_or(1e12, |device| device.size_bytes as f64),
        disk_bytes_per_second: calibration.disk_bytes_per_second,
        network_bytes_per_second: calibration.network.bytes_per_second,
    }
}

/// Name, unit, used, limit, modelled.
type Row = (&'static str, &'static str, f64, f64, bool);

/// A cluster of a given size, without latencies.
struct Sized<'c> {
    calibration: &'c Calibration,
    demand: &'c Demand,
    hardware: Hardware,
    nodes: u32,
}

impl Sized<'_> {
    /// Records per second of the cluster that its cores can take.
    fn by_cores(&self) -> f64 {
        let load = self.demand.of_core(self.nodes, self.hardware.cores, 1.0);
        let one = model::saturation(self.calibration, &load, Clients::Apart, self.demand.consumers);
        // The device is a resource of its own here, and so are all CPUs of a node together.
        let played = model::play(self.calibration, &load, Clients::Apart, self.demand.consumers);
        let by_cpus = played.simulated.rate / played.broker_cpus.max(1e-9);
        let shares = f64::from(self.nodes) * f64::from(self.hardware.cores);
        one.min(by_cpus) * shares / f64::from(self.demand.replicas.max(1))
    }

    /// Every resource of a node, with what it takes at the load's full rate.
    fn resources(&self) -> Vec<Resource> {
        std::iter::once(self.cpu()).chain(self.sums()).map(|row| self.resource(row)).collect()
    }

    fn cpu(&self) -> Row {
        let cores = f64::from(self.hardware.cores);
        let used = self.demand.records_per_second / self.by_cores().max(1e-9) * cores;
        ("cpu", "cores", used, cores, self.hardware.cores > 1 || self.nodes > 1 || self.demand.replicas > 1)
    }

    fn sums(&self) -> [Row; 5] {
        let (demand, hardware) = (self.demand, &self.hardware);
        let nodes = f64::from(self.nodes);
        let replicas = f64::from(demand.replicas.max(1));
        let bytes = demand.bytes_per_second();
        let copies = replicas - 1.0;
        let partitions = (f64::from(demand.partitions) * replicas / nodes).ceil();
        let memory = &self.calibration.memory;
        let more_cores = hardware.cores > 1 || self.nodes > 1;
        let network = self.calibration.network.to == "loopback";
        [
            (
                "disk writes",
                "MB/s",
                bytes * replicas * WRITES / nodes / 1e6,
                hardware.disk_bytes_per_second * f64::from(hardware.disks) / 1e6,
                copies > 0.0 || hardware.disks > 1,
            ),
            (
                "disk space",
                "GB",
                (bytes * demand.retention_s * replicas / nodes + CORE_LOG_BYTES * f64::from(hardware.cores))
                    / 1e9,
                hardware.disk_bytes * f64::from(hardware.disks) / 1e9,
                false,
            ),
            (
                "network in",
                "MB/s",
                bytes * replicas / nodes / 1e6,
                hardware.network_bytes_per_second / 1e6,
                network,
            ),
            (
                "network out",
                "MB/s",
                bytes * (f64::from(demand.consumers) + copies) / nodes / 1e6,
                hardware.network_bytes_per_second / 1e6,
                network,
            ),
            (
                "memory",
                "GiB",
                (memory.base_bytes * f64::from(hardware.cores) + partitions * memory.partition_bytes) / GIB,
                hardware.memory_bytes / GIB,
                more_cores,
            ),
        ]
    }

    fn resource(&self, (name, unit, used, limit, modelled): Row) -> Resource {
        let utilisation = used / limit.max(1e-9);
        let rate = self.demand.records_per_second;
        // Memory and core logs do not grow with the rate.
        let grows = name != "memory";
        let full_at = if grows && utilisation > 0.0 { rate / utilisation } else { f64::INFINITY };
        let growth = self.demand.growth_per_year.ln();
        let years = if !grows || utilisation <= 0.0 {
            None
        } else if utilisation >= 1.0 {
            Some(0.0)
        } else if growth > 0.0 {
            Some((1.0 / utilisation).ln() / growth).filter(|years| *years <= YEARS_MAX)
        } else {
            None
        };
        Resource { name, unit, used, limit, utilisation, full_at, full_in_years: years, modelled }
    }

    fn fits(&self) -> bool {
        let fits = |resource: &Resource| resource.utilisation <= self.demand.headroom;
        // Sums first: what cores can do has to be played.
        self.sums().into_iter().all(|row| fits(&self.resource(row))) && fits(&self.resource(self.cpu()))
    }

    /// p50 and p99 at `factor` of the rate.
    fn latency(&self, factor: f64) -> (f64, f64) {
        let load = self.demand.of_core(self.nodes, self.hardware.cores, factor);
        let (p50, p99) = model::latency(self.calibration, &load, Clients::Apart, self.demand.consumers);
        // A copy has to be there and durable before an ack: the way there and back, and a flush at the same time.
        let away =
            if self.demand.replicas > 1 { self.calibration.network.round_trip.p50_us / 1e3 } else { 0.0 };
        (p50 + away, p99 + away)
    }

    fn expected(&self, goal: Goal) -> f64 {
        let (p50, p99) = self.latency(1.0);
        if goal.part < 0.9 { p50 } else { p99 }
    }
}

/// Plans a cluster of nodes like `hardware`.
pub fn plan(calibration: &Calibration, demand: &Demand, hardware: Hardware) -> Plan {
    let sized = |nodes: u32| Sized { calibration, demand, hardware, nodes };
    let least = demand.replicas.max(1);
    let fit = first_that(least, |nodes| sized(nodes).fits());
    let mut nodes = fit.unwrap_or(NODES_MAX.max(least));
    let mut goal = None;
    if let Some(asked) = demand.goal {
        let met = |nodes: u32| sized(nodes).expected(asked) <= asked.ms;
        if fit.is_some() && !met(nodes) {
            // More nodes help until each has so little to do that only the clients' waits are left.
            if let Some(more) = first_that(nodes, met) {
                nodes = more;
            }
        }
        let expected_ms = sized(nodes).expected(asked);
        let nearest = (expected_ms > asked.ms).then(|| nearest(calibration, demand, hardware, nodes, asked));
        goal = Some(Verdict {
            part: asked.part,
            goal_ms: asked.ms,
            expected_ms,
            met: expected_ms <= asked.ms && fit.is_some(),
            nearest,
        });
    }
    let chosen = sized(nodes);
    let resources = chosen.resources();
    let first = fullest(&resources);
    let by_cores = chosen.by_cores();
    let (p50_ms, p99_ms) = chosen.latency(1.0);
    Plan {
        nodes,
        enough: fit.is_some(),
        first: first.map_or("cpu", |resource| resource.name),
        saturation_records_per_second: first.map_or(by_cores, |resource| resource.full_at),
        p50_ms,
        p99_ms,
        goal,
        curve: curve(&chosen, &resources, by_cores),
        more: more(&chosen, &resources),
        modelled: modelled(calibration, demand, hardware, nodes),
        resources,
        demand: demand.clone(),
        hardware,
    }
}

/// The smallest number of nodes that passes, found by doubling and halving: what passes stays passed with more.
fn first_that(least: u32, passes: impl Fn(u32) -> bool) -> Option<u32> {
    let (mut below, mut at) = (least.saturating_sub(1), least);
    while !passes(at) {
        if at >= NODES_MAX {
            return None;
        }
        below = at;
        at = (at * 2).min(NODES_MAX);
    }
    while at - below > 1 {
        let middle = (at + below) / 2;
        if passes(middle) { at = middle } else { below = middle }
    }
    Some(at)
}

fn fullest(resources: &[Resource]) -> Option<&Resource> {
    resources.iter().filter(|r| r.full_at.is_finite()).min_by(|a, b| a.full_at.total_cmp(&b.full_at))
}

/// What can be had where the goal cannot: with these nodes, and with producers that do not wait.
fn nearest(
    calibration: &Calibration,
    demand: &Demand,
    hardware: Hardware,
    nodes: u32,
    asked: Goal,
) -> String {
    let name = if asked.part < 0.9 { "p50" } else { "p99" };
    let at = |demand: &Demand| Sized { calibration, demand, hardware, nodes }.expected(asked);
    let now = at(demand);
    let mut text = format!("the nearest that can be met with {nodes} nodes is {name}={now:.2}ms");
    if demand.linger_us > 0.0 {
        let hasty = Demand { linger_us: 0.0, ..demand.clone() };
        let without = at(&hasty);
        if without < now {
            text.push_str(&format!("; with --linger 0 it is {name}={without:.2}ms"));
        }
    }
    text
}

fn curve(chosen: &Sized<'_>, resources: &[Resource], by_cores: f64) -> Vec<CurvePoint> {
    let top = fullest(resources).map_or(by_cores, |resource| resource.full_at.min(by_cores));
    CURVE
        .iter()
        .map(|percent| {
            let rate = top * f64::from(*percent) / 100.0;
            let factor = rate / chosen.demand.records_per_second.max(1e-9);
            let (p50_ms, p99_ms) = chosen.latency(factor);
            let utilisation = resources
                .iter()
                .map(|r| if r.full_at.is_finite() { rate / r.full_at } else { r.utilisation })
                .collect();
            CurvePoint { percent: *percent, records_per_second: rate, p50_ms, p99_ms, utilisation }
        })
        .collect()
}

fn more(chosen: &Sized<'_>, resources: &[Resource]) -> Vec<More> {
    let full = |resources: &[Resource]| fullest(resources).map_or(0.0, |resource| resource.full_at);
    let from = full(resources);
    let with = |what: &str, nodes: u32, hardware: Hardware| {
        let other = Sized { calibration: chosen.calibration, demand: chosen.demand, hardware, nodes };
        let after = other.resources();
        let to = full(&after);
        let limit = fullest(&after).map_or("cpu", |resource| resource.name);
        let note = if to > from * 1.005 {
            format!("then {limit} is full first")
        } else {
            format!("{limit} is full first all the same")
        };
        More { what: what.to_string(), from, to, note }
    };
    let hardware = chosen.hardware;
    let disks = hardware.disks + 1;
    let mut all = vec![
        with("one node more", chosen.nodes + 1, hardware),
        with("one core more in each node", chosen.nodes, Hardware { cores: hardware.cores + 1, ..hardware }),
        with("one disk more in each node", chosen.nodes, Hardware { disks, ..hardware }),
        with(
            "twice the network",
            chosen.nodes,
            Hardware { network_bytes_per_second: hardware.network_bytes_per_second * 2.0, ..hardware },
        ),
    ];
    let per_node =
        chosen.demand.bytes_per_second() * f64::from(chosen.demand.replicas.max(1)) / f64::from(chosen.nodes);
    all.push(More {
        what: "one GiB of memory more in each node".into(),
        from,
        to: from,
        note: format!("{} more of the newest records read from memory", units::span(GIB / per_node.max(1.0))),
    });
    all
}

fn modelled(calibration: &Calibration, demand: &Demand, hardware: Hardware, nodes: u32) -> Vec<String> {
    let mut all = Vec::new();
    if demand.replicas > 1 {
        all.push(format!(
            "{} replicas: a copy is taken to cost what a produced record costs, and a round trip more",
            demand.replicas
        ));
    }
    if hardware.cores > 1 {
        all.push(format!(
            "{} cores a node: one was measured, others are taken to do as much; forwarding between them is left out",
            hardware.cores
        ));
    }
    if hardware.cores > calibration.stamp.cpus {
        all.push(format!("more cores than the {} of the calibrated machine", calibration.stamp.cpus));
    }
    if nodes > 1 {
        all.push(format!("{nodes} nodes: partitions are taken to be spread evenly"));
    }
    if calibration.network.to == "loopback" {
        all.push("the network: loopback was measured, give --network, or calibrate with --peer".into());
    }
    all.push("clients: each producer is taken to have a machine of its own".into());
    all
}

#[cfg(test)]
mod tests;
