//! What happened between two readings: rates, quantiles, and who caused them. What `--json` prints and the screen draws.

use super::reading::{Connection, CoreReading, GroupReading, Reading, TopicReading};
use crate::prometheus::Histogram;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Rates are of the interval, everything else is of its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    pub version: String,
    pub ready: bool,
    pub interval_seconds: f64,
    pub totals: Totals,
    pub produce: Latency,
    pub flush: Latency,
    pub disk: Disk,
    pub cores: Vec<Core>,
    pub topics: Vec<Topic>,
    pub clients: Vec<Client>,
    /// Missing where the broker does not tell of groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    pub records_in_per_second: f64,
    pub received_bytes_per_second: f64,
    pub sent_bytes_per_second: f64,
    pub requests_per_second: f64,
    pub request_errors_per_second: f64,
    /// 100 is one CPU.
    pub cpu_percent: f64,
    pub resident_bytes: u64,
    pub connections: u64,
    pub partitions: u64,
    pub partitions_offline: u64,
}

/// Of what ended in the interval; `null` where nothing did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
}

impl Latency {
    fn of(seconds: &Histogram) -> Latency {
        let ms = |q| seconds.quantile(q).map(|s| s * 1e3);
        Latency { p50_ms: ms(0.5), p99_ms: ms(0.99), p999_ms: ms(0.999) }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Disk {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    pub log_write_bytes_per_second: f64,
    pub destage_bytes_per_second: f64,
    pub cold_read_bytes_per_second: f64,
    pub scrub_bytes_per_second: f64,
    pub destage_lag_bytes: u64,
    pub storage_full: bool,
    pub segments_damaged: u64,
    pub scrub_in_round: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Core {
    pub core: String,
    pub answered: bool,
    pub cpu_percent: f64,
    pub connections: u64,
    pub partitions: u64,
    pub records_in_per_second: f64,
    pub received_bytes_per_second: f64,
    pub sent_bytes_per_second: f64,
    pub groups_per_second: f64,
    /// Bytes of the mean group.
    pub group_bytes: Option<f64>,
    pub flush: Latency,
    pub turn_p99_ms: Option<f64>,
    pub log_used_percent: f64,
    pub tail_used_percent: f64,
    pub produce_waiting: u64,
    pub muted: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Topic {
    pub topic: String,
    pub partitions: u64,
    pub offline: u64,
    pub relaxed: bool,
    pub size_bytes: u64,
    pub unflushed_records: u64,
    pub records_in_per_second: f64,
    pub in_bytes_per_second: f64,
    pub out_bytes_per_second: f64,
}

/// Connections that call themselves the same and come from the same address.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Client {
    pub client_id: String,
    pub software: String,
    pub host: String,
    pub connections: u64,
    pub requests_per_second: f64,
    pub in_bytes_per_second: f64,
    pub out_bytes_per_second: f64,
    pub waiting: u64,
    pub muted: u64,
    /// Of the one used last.
    pub idle_ms: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    pub group: String,
    /// With a committed offset.
    pub partitions: u64,
    pub lag: u64,
    /// Of the partition furthest behind.
    pub lag_most: u64,
    pub lag_per_second: f64,
}

/// What a counter gained each second. One that fell was begun anew.
fn rate(now: f64, before: f64, seconds: f64) -> f64 {
    (if now >= before { now - before } else { now }) / seconds
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part * 100.0 / whole } else { 0.0 }
}

impl Snapshot {
    pub fn between(before: &Reading, now: &Reading) -> Snapshot {
        // Two readings in the same instant give rates of nothing, not of infinity.
        let seconds = (now.at_seconds - before.at_seconds).max(0.001);
        let old: HashMap<&str, &CoreReading> =
            before.cores.iter().filter(|core| core.answered).map(|core| (core.core.as_str(), core)).collect();
        let pairs: Vec<(&CoreReading, Option<&CoreReading>)> =
            now.cores.iter().map(|core| (core, old.get(core.core.as_str()).copied())).collect();
        // A core that was silent at one end has no rate, in the sums too.
        let both =
            || pairs.iter().filter(|(now, _)| now.answered).filter_map(|(now, old)| Some((*now, (*old)?)));
        let summed = |of: fn(&CoreReading) -> f64| -> f64 {
            both().map(|(now, old)| rate(of(now), of(old), seconds)).sum()
        };
        let gauge = |of: fn(&CoreReading) -> f64| -> u64 { now.cores.iter().map(of).sum::<f64>() as u64 };
        let totals = Totals {
            records_in_per_second: summed(|core| core.records_in),
            received_bytes_per_second: summed(|core| core.received_bytes),
            sent_bytes_per_second: summed(|core| core.sent_bytes),
            requests_per_second: summed(|core| {
                core.produce_requests + core.fetch_requests + core.other_requests
            }),
            request_errors_per_second: summed(|core| core.request_errors),
            cpu_percent: rate(now.cpu_seconds, before.cpu_seconds, seconds) * 100.0,
            resident_bytes: now.resident_bytes as u64,
            connections: now.connections,
            partitions: gauge(|core| core.partitions),
            partitions_offline: gauge(|core| core.partitions_offline),
        };
        let disk = Disk {
            capacity_bytes: now.capacity_bytes.map(|bytes| bytes as u64),
            free_bytes: now.free_bytes.map(|bytes| bytes as u64),
            log_write_bytes_per_second: summed(|core| core.group_bytes.sum),
            destage_bytes_per_second: summed(|core| core.destage_bytes),
            cold_read_bytes_per_second: summed(|core| core.cold_read_bytes),
            scrub_bytes_per_second: rate(now.scrub_read_bytes, before.scrub_read_bytes, seconds),
            destage_lag_bytes: gauge(|core| core.destage_lag_bytes),
            storage_full: now.cores.iter().any(|core| core.storage_full),
            segments_damaged: now.scrub_damaged as u64,
            scrub_in_round: now.scrub_in_round,
        };
        Snapshot {
            version: now.version.clone(),
            ready: now.ready,
            interval_seconds: seconds,
            totals,
            produce: Latency::of(&merged(both().map(|(now, old)| now.produce.since(&old.produce)))),
            flush: Latency::of(&merged(both().map(|(now, old)| now.flush.since(&old.flush)))),
            disk,
            cores: pairs.iter().map(|(now, old)| core(now, *old, seconds)).collect(),
            topics: topics(&before.topics, &now.topics, seconds),
            clients: clients(&before.clients, &now.clients, seconds),
            groups: now.groups.as_ref().map(|groups| lags(before.groups.as_ref(), groups, seconds)),
        }
    }
}

fn merged(parts: impl Iterator<Item = Histogram>) -> Histogram {
    parts.fold(Histogram::default(), |all, part| all.plus(&part))
}

fn core(now: &CoreReading, old: Option<&CoreReading>, seconds: f64) -> Core {
    let rated = |of: fn(&CoreReading) -> f64| match old {
        Some(old) if now.answered => rate(of(now), of(old), seconds),
        Some(_) | None => 0.0,
    };
    let added = |of: fn(&CoreReading) -> &Histogram| match old {
        Some(old) if now.answered => of(now).since(of(old)),
        Some(_) | None => Histogram::default(),
    };
    Core {
        core: now.core.clone(),
        answered: now.answered,
        cpu_percent: rated(|core| core.cpu_seconds) * 100.0,
        connections: now.connections as u64,
        partitions: now.partitions as u64,
        records_in_per_second: rated(|core| core.records_in),
        received_bytes_per_second: rated(|core| core.received_bytes),
        sent_bytes_per_second: rated(|core| core.sent_bytes),
        groups_per_second: rated(|core| core.groups),
        group_bytes: added(|core| &core.group_bytes).mean(),
        flush: Latency::of(&added(|core| &core.flush)),
        turn_p99_ms: added(|core| &core.turn).quantile(0.99).map(|s| s * 1e3),
        log_used_percent: percent(now.log_used_bytes, now.log_capacity_bytes),
        tail_used_percent: percent(now.tail_bytes, now.tail_limit_bytes),
        produce_waiting: now.produce_waiting as u64,
        muted: now.muted as u64,
    }
}

fn topics(
    before: &BTreeMap<String, TopicReading>,
    now: &BTreeMap<String, TopicReading>,
    seconds: f64,
) -> Vec<Topic> {
    let each = now.iter().map(|(name, topic)| {
        let created = TopicReading::default();
        let old = before.get(name).unwrap_or(&created);
        Topic {
            topic: name.clone(),
            partitions: topic.partitions as u64,
            offline: topic.offline as u64,
            relaxed: topic.relaxed,
            size_bytes: topic.size_bytes as u64,
            unflushed_records: topic.unflushed_records as u64,
            records_in_per_second: rate(topic.records_in, old.records_in, seconds),
            in_bytes_per_second: rate(topic.in_bytes, old.in_bytes, seconds),
            out_bytes_per_second: rate(topic.out_bytes, old.out_bytes, seconds),
        }
    });
    each.collect()
}

fn clients(before: &[Connection], now: &[Connection], seconds: f64) -> Vec<Client> {
    let old: HashMap<&str, &Connection> = before.iter().map(|c| (c.peer.as_str(), c)).collect();
    let mut clients: BTreeMap<(&str, &str, &str), Client> = BTreeMap::new();
    for connection in now {
        let host = connection.peer.rsplit_once(':').map_or(connection.peer.as_str(), |(host, _)| host);
        let entry = clients.entry((&connection.client_id, &connection.software, host));
        let client = entry.or_insert_with(|| Client {
            client_id: connection.client_id.clone(),
            software: [connection.software.as_str(), connection.software_version.as_str()].join(" "),
            host: host.to_string(),
            idle_ms: u64::MAX,
            ..Client::default()
        });
        client.connections += 1;
        client.waiting += connection.waiting;
        client.muted += u64::from(connection.muted);
        client.idle_ms = client.idle_ms.min(connection.idle_ms);
        // One that is older than the interval and was not shown before has moved nobody knows how much of it lately.
        let is_new = connection.age_ms as f64 <= seconds * 1e3;
        let old = old.get(connection.peer.as_str()).filter(|old| old.age_ms <= connection.age_ms);
        let rated = |of: fn(&Connection) -> u64| match old {
            Some(old) => rate(of(connection) as f64, of(old) as f64, seconds),
            None if is_new => of(connection) as f64 / seconds,
            None => 0.0,
        };
        client.requests_per_second += rated(|c| c.requests);
        client.in_bytes_per_second += rated(|c| c.received_bytes);
        client.out_bytes_per_second += rated(|c| c.sent_bytes);
    }
    let mut clients: Vec<Client> = clients.into_values().collect();
    for client in &mut clients {
        client.software = client.software.trim().to_string();
    }
    clients
}

fn lags(
    before: Option<&BTreeMap<String, GroupReading>>,
    now: &BTreeMap<String, GroupReading>,
    seconds: f64,
) -> Vec<Group> {
    let each = now.iter().map(|(name, group)| {
        let old = before.and_then(|before| before.get(name));
        Group {
            group: name.clone(),
            partitions: group.partitions,
            lag: group.lag as u64,
            lag_most: group.lag_most as u64,
            lag_per_second: old.map_or(0.0, |old| (group.lag - old.lag) / seconds),
        }
    });
    each.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::top::reading::Connections;

    fn reading(at: f64, records: u64, connections: &str) -> Reading {
        let text = format!(
            "ringmill_build_info{{version=\"1.2.3\"}} 1\nringmill_ready 1\nprocess_cpu_seconds_total {at}\n\
             ringmill_core_answered{{core=\"0\"}} 1\nringmill_core_answered{{core=\"1\"}} 0\n\
             ringmill_core_cpu_seconds_total{{core=\"0\"}} {at}\nringmill_records_in_total{{core=\"0\"}} {records}\n\
             ringmill_topic_partitions{{topic=\"a\"}} 3\nringmill_topic_in_bytes_total{{topic=\"a\"}} {records}\n\
             ringmill_core_log_used_bytes{{core=\"0\"}} 25\nringmill_core_log_capacity_bytes{{core=\"0\"}} 100\n"
        );
        let connections: Connections = serde_json::from_str(connections).unwrap();
        Reading::of(at, &text, Some(connections)).unwrap()
    }

    fn connection(port: u16, age_ms: u64, received: u64) -> String {
        format!(
            "{{\"peer\":\"10.0.0.1:{port}\",\"core\":0,\"client_id\":\"app\",\"software\":\"librdkafka\",\
             \"software_version\":\"2.12\",\"age_ms\":{age_ms},\"idle_ms\":{port},\"requests\":1,\
             \"received_bytes\":{received},\"sent_bytes\":0,\"waiting\":1,\"muted\":false}}"
        )
    }

    fn of(connections: &[String]) -> String {
        format!("{{\"connections\":{},\"shown\":[{}]}}", connections.len(), connections.join(","))
    }

    #[test]
    fn rates_are_of_what_was_added() {
        let before = reading(10.0, 1000, &of(&[connection(1, 5_000, 100), connection(2, 60_000, 50)]));
        let shown = of(&[
            connection(1, 7_000, 300),
            // Its port was used by another connection before; it is as new as 3.
            connection(2, 1_000, 40),
            connection(3, 1_500, 20),
            // Old, but not shown before.
            connection(4, 90_000, 1 << 40),
        ]);
        let snapshot = Snapshot::between(&before, &reading(12.0, 1500, &shown));
        assert_eq!(snapshot.totals.records_in_per_second, 250.0);
        assert_eq!(snapshot.totals.cpu_percent, 100.0);
        assert_eq!((snapshot.totals.connections, snapshot.interval_seconds), (4, 2.0));
        let [client] = snapshot.clients.as_slice() else { panic!("{:?}", snapshot.clients) };
        assert_eq!((client.connections, client.waiting, client.idle_ms), (4, 4, 1));
        assert_eq!(client.in_bytes_per_second, (200.0 + 40.0 + 20.0) / 2.0);
        assert_eq!((client.software.as_str(), client.host.as_str()), ("librdkafka 2.12", "10.0.0.1"));
        let answered: Vec<bool> = snapshot.cores.iter().map(|core| core.answered).collect();
        assert_eq!(answered, [true, false]);
        assert_eq!(snapshot.cores.first().map(|core| core.log_used_percent), Some(25.0));
        assert_eq!(snapshot.topics.first().map(|topic| topic.in_bytes_per_second), Some(250.0));
        assert!(snapshot.groups.is_none());
    }

    #[test]
    fn a_broker_that_began_anew_is_noticed_and_has_no_absurd_rates() {
        let (before, now) = (reading(100.0, 1000, &of(&[])), reading(102.0, 10, &of(&[])));
        assert!(!now.is_anew(&before));
        assert_eq!(Snapshot::between(&before, &now).totals.records_in_per_second, 5.0);
        assert!(before.is_anew(&now), "CPU time never falls");
        // One that was killed while it idled has used more by the time it serves again.
        let began = |at: f64, now: &Reading| Reading { started_seconds: Some(at), ..now.clone() };
        assert!(began(7.0, &now).is_anew(&began(5.0, &before)));
        assert!(!began(5.0, &now).is_anew(&began(5.0, &before)));
    }

    #[test]
    fn what_is_no_ringmill_is_said() {
        let answer = Reading::of(0.0, "go_goroutines 5\n", None).unwrap_err();
        assert!(answer.contains("ringmill"), "{answer}");
    }
}
