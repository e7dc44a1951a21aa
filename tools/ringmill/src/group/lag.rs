//! `group lag`: committed offsets beside the ends of their partitions, once or again and again.

use super::host;
use crate::exit::Failed;
use crate::output::{Align, Out, Paint, Table, grouped};
use crate::server::Server;
use clap::Args;
use ringmill_client::Client;
use ringmill_client::admin::{EARLIEST, LATEST};
use ringmill_client::client::{Absent, Topic};
use ringmill_types::ErrorCode;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::Duration;

#[derive(Args)]
pub struct Lag {
    group: String,
    /// Look again every so many seconds, until Ctrl-C
    #[arg(long, short = 'w', value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    #[command(flatten)]
    server: Server,
    /// An object instead of a table; with --watch, one per line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    group: &'a str,
    state: String,
    lag: i64,
    partitions: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    /// `None` where the topic is gone.
    end: Option<i64>,
    lag: Option<i64>,
    member: Option<String>,
    client: Option<String>,
    host: Option<String>,
}

/// The beginning and end of partitions; what is gone is missing.
pub(super) struct Ends {
    pub earliest: BTreeMap<(String, i32), i64>,
    pub latest: BTreeMap<(String, i32), i64>,
}

/// These topics as metadata has them, without those that are gone.
pub(super) fn topics(client: &mut Client, names: &BTreeSet<String>) -> Result<Vec<Topic>, Failed> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = names.iter().cloned().collect();
    let cluster = client.metadata(Some(&names), Absent::Leave)?;
    Ok(cluster.topics.into_iter().filter(|t| t.code.is_ok()).collect())
}

pub(super) fn ends(client: &mut Client, topics: &[Topic]) -> Result<Ends, Failed> {
    let mut at = |timestamp| -> Result<BTreeMap<(String, i32), i64>, Failed> {
        let offsets = client.offsets(topics, timestamp)?;
        Ok(offsets.into_iter().filter_map(|(place, offset)| Some((place, offset.ok()?))).collect())
    };
    Ok(Ends { earliest: at(EARLIEST)?, latest: at(LATEST)? })
}

impl Lag {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let Some(seconds) = self.watch else {
            let report = self.look(&mut client)?;
            return self.show(&report, false);
        };
        loop {
            let report = self.look(&mut client)?;
            self.show(&report, true)?;
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }

    fn look(&self, client: &mut Client) -> Result<Report<'_>, Failed> {
        let committed = client.committed(&self.group)?;
        let found = client.group_members(&self.group)?;
        let mut owners = BTreeMap::new();
        for member in &found.members {
            for (topic, partitions) in &member.assignment {
                owners.extend(partitions.iter().map(|p| ((topic.clone(), *p), member)));
            }
        }
        let places: BTreeSet<(String, i32)> = committed.keys().chain(owners.keys()).cloned().collect();
        let names = places.iter().map(|(topic, _)| topic.clone()).collect();
        let topics = topics(client, &names)?;
        let ends = ends(client, &topics)?;
        let rows = places.into_iter().map(|place| {
            let owner = owners.get(&place);
            let (at, end) = (committed.get(&place).copied(), ends.latest.get(&place).copied());
            Row {
                committed: at,
                end,
                lag: at.zip(end).map(|(at, end)| end.saturating_sub(at).max(0)),
                member: owner.map(|m| m.id.clone()),
                client: owner.map(|m| m.client_id.clone()),
                host: owner.map(|m| host(&m.host)),
                topic: place.0,
                partition: place.1,
            }
        });
        let partitions: Vec<Row> = rows.collect();
        let lag = partitions.iter().filter_map(|row| row.lag).fold(0i64, i64::saturating_add);
        Ok(Report { group: &self.group, state: found.state, lag, partitions })
    }

    fn show(&self, report: &Report<'_>, again: bool) -> Result<(), Failed> {
        let mut out = Out::new();
        if self.json {
            if again {
                out.json(report)?;
            } else {
                out.json_pretty(report)?;
            }
            return Ok(out.finish()?);
        }
        if again && std::io::stdout().is_terminal() {
            // To the first line, and everything below it gone.
            write!(out, "\x1b[H\x1b[2J")?;
        }
        let paint = if report.lag == 0 { Paint::Good } else { Paint::Odd };
        let total = out.paint(paint, &grouped(report.lag.unsigned_abs()));
        out.line(format!("group {}: {}, lag {total}", report.group, report.state))?;
        let mut table = Table::new(&[
            ("TOPIC", Align::Left),
            ("PARTITION", Align::Right),
            ("COMMITTED", Align::Right),
            ("END", Align::Right),
            ("LAG", Align::Right),
            ("CLIENT", Align::Left),
            ("HOST", Align::Left),
            ("MEMBER", Align::Left),
        ]);
        let number = |n: Option<i64>| n.map_or("-".to_string(), |n| grouped(n.unsigned_abs()));
        let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".to_string());
        for row in &report.partitions {
            table.row(vec![
                row.topic.clone(),
                row.partition.to_string(),
                number(row.committed),
                number(row.end),
                number(row.lag),
                text(&row.client),
                text(&row.host),
                text(&row.member),
            ]);
        }
        if !report.partitions.is_empty() {
            out.table(&table)?;
        }
        Ok(out.finish()?)
    }
}

/// The group is not there; one that has only offsets is.
pub(super) fn is_missing(error: &ringmill_client::ClientError) -> bool {
    error.code() == Some(ErrorCode::GroupIdNotFound)
}
