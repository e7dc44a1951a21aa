//! `group reset`: where a group goes on from. Never touches a group that has members.

use super::lag::{Ends, ends, is_missing, topics};
use crate::consume::{ago, now_ms, timestamp};
use crate::exit::{Code, Failed};
use crate::output::{Align, Out, Table, complain, remark};
use crate::server::Server;
use clap::Args;
use ringmill_client::Client;
use ringmill_client::client::Topic;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

type Offsets = BTreeMap<(String, i32), i64>;

#[derive(Args)]
#[group(id = "where", required = true, multiple = false, args = ["to_earliest", "to_latest", "to_current", "to_offset", "shift_by", "to_datetime", "by_duration", "from_file"])]
pub struct Reset {
    group: String,
    /// To the beginning of each partition
    #[arg(long)]
    to_earliest: bool,
    /// To the end of each partition
    #[arg(long)]
    to_latest: bool,
    /// To where it is, or the end where it has committed nothing
    #[arg(long)]
    to_current: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// So many records on, or back with a minus
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record at or after this time: 2026-11-21T06:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    to_datetime: Option<i64>,
    /// To the first record of this last time, such as 30s, 5m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = ago)]
    by_duration: Option<i64>,
    /// To what a file says in lines of TOPIC,PARTITION,OFFSET, as --export prints them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topic", "all_topics"])]
    from_file: Option<PathBuf>,
    /// Topic, or topic with partitions as in orders:0,2; may be repeated
    #[arg(long, short = 't', value_name = "TOPIC[:N,…]", value_parser = place)]
    topic: Vec<Place>,
    /// Every topic that the group has committed offsets of
    #[arg(long, conflicts_with = "topic")]
    all_topics: bool,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Lines of TOPIC,PARTITION,OFFSET instead of a table
    #[arg(long, conflicts_with = "json")]
    export: bool,
    #[command(flatten)]
    server: Server,
    /// An array of objects instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    topic: String,
    /// Empty: all.
    partitions: BTreeSet<i32>,
}

fn place(text: &str) -> Result<Place, String> {
    let (topic, partitions) = text.split_once(':').map_or((text, None), |(t, p)| (t, Some(p)));
    if topic.is_empty() {
        return Err("it takes the form TOPIC or TOPIC:0,2".to_string());
    }
    let number = |text: &str| {
        text.parse().ok().filter(|n| *n >= 0).ok_or_else(|| format!("{text} is not a partition"))
    };
    let partitions = partitions.map(|p| p.split(',').map(number).collect()).transpose()?;
    Ok(Place { topic: topic.to_string(), partitions: partitions.unwrap_or_default() })
}

/// Lines of TOPIC,PARTITION,OFFSET; empty ones and those that begin with # are left out.
fn lines(text: &str) -> Result<Offsets, String> {
    let mut offsets = Offsets::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.rsplitn(3, ',').map(|field| field.trim().trim_matches('"'));
        let offset = fields.next().and_then(|f| f.parse().ok()).filter(|o: &i64| *o >= 0);
        let partition = fields.next().and_then(|f| f.parse().ok()).filter(|p: &i32| *p >= 0);
        let topic = fields.next().filter(|t| !t.is_empty());
        let (Some(topic), Some(partition), Some(offset)) = (topic, partition, offset) else {
            return Err(format!("line {}: {line} is not TOPIC,PARTITION,OFFSET", at + 1));
        };
        offsets.insert((topic.to_string(), partition), offset);
    }
    Ok(offsets)
}

#[derive(Serialize)]
struct Row {
    topic: String,
    partition: i32,
    from: Option<i64>,
    to: i64,
}

impl Reset {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        self.check_idle(&mut client)?;
        let committed = client.committed(&self.group)?;
        let given = match &self.from_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Failed::local(path.display(), &e))?;
                Some(lines(&text).map_err(|e| Failed::new(Code::Usage, format!("{}: {e}", path.display())))?)
            }
            None => None,
        };
        let target = self.target(&mut client, &committed, given)?;
        if self.execute {
            let codes = client.commit(&self.group, &target)?;
            let failed: Vec<_> = codes.into_iter().filter(|(_, code)| !code.is_ok()).collect();
            if !failed.is_empty() {
                for ((topic, partition), code) in failed {
                    complain(&format!("{topic}-{partition}: {code}"));
                }
                return Err(Failed::said(Code::Refused));
            }
        }
        self.show(&committed, target)
    }

    /// Offsets under the feet of members would be overwritten by their next commit.
    fn check_idle(&self, client: &mut Client) -> Result<(), Failed> {
        let found = match client.group_members(&self.group) {
            Err(error) if is_missing(&error) => return Ok(()),
            found => found?,
        };
        if found.state == "Empty" {
            return Ok(());
        }
        let sentence = format!(
            "group {} is {}: offsets can only be moved while it has no members; stop them first",
            self.group, found.state
        );
        Err(Failed::new(Code::Refused, sentence))
    }

    fn target(
        &self,
        client: &mut Client,
        committed: &Offsets,
        given: Option<Offsets>,
    ) -> Result<Offsets, Failed> {
        let names: BTreeSet<String> = match &given {
            Some(given) => given.keys().map(|(topic, _)| topic.clone()).collect(),
            None if self.all_topics => committed.keys().map(|(topic, _)| topic.clone()).collect(),
            None => self.topic.iter().map(|place| place.topic.clone()).collect(),
        };
        if names.is_empty() {
            let sentence = if self.all_topics {
                "the group has no committed offsets"
            } else {
                "say which topics: --topic or --all-topics"
            };
            return Err(Failed::new(Code::Usage, sentence));
        }
        let topics = topics(client, &names)?;
        if let Some(missing) = names.iter().find(|name| !topics.iter().any(|t| t.name == **name))
            && !self.all_topics
        {
            return Err(Failed::new(Code::Refused, format!("there is no topic {missing}")));
        }
        let places = self.places(&topics, committed, given.as_ref())?;
        let ends = ends(client, &topics)?;
        let since = match (self.to_datetime, self.by_duration) {
            (Some(ms), _) => Some(ms),
            (None, Some(span)) => Some(now_ms().saturating_sub(span)),
            (None, None) => None,
        };
        let dated = match since {
            Some(ms) => client.offsets(&topics, ms)?,
            None => BTreeMap::new(),
        };
        let mut target = Offsets::new();
        for place in places {
            let latest = ends.latest.get(&place).copied().unwrap_or(0);
            let at = dated.get(&place).and_then(|o| o.as_ref().ok()).copied();
            let wanted = match (&given, since) {
                (Some(given), _) => given.get(&place).copied().unwrap_or(latest),
                // No record is that new: the end.
                (None, Some(_)) => at.filter(|o| *o >= 0).unwrap_or(latest),
                (None, None) => self.wanted(&place, committed, &ends),
            };
            let earliest = ends.earliest.get(&place).copied().unwrap_or(0);
            let within = wanted.clamp(earliest, latest.max(earliest));
            if within != wanted {
                let (topic, partition) = &place;
                remark(&format!("{topic}-{partition}: {wanted} is outside of {earliest} to {latest}"));
            }
            target.insert(place, within);
        }
        Ok(target)
    }

    fn wanted(&self, place: &(String, i32), committed: &Offsets, ends: &Ends) -> i64 {
        let latest = ends.latest.get(place).copied().unwrap_or(0);
        let earliest = ends.earliest.get(place).copied().unwrap_or(0);
        let current = committed.get(place).copied();
        match (self.to_offset, self.shift_by) {
            (Some(offset), _) => offset,
            (None, Some(by)) => current.unwrap_or(latest).saturating_add(by),
            (None, None) if self.to_earliest => earliest,
            (None, None) if self.to_current => current.unwrap_or(latest),
            (None, None) => latest,
        }
    }

    fn places(
        &self,
        topics: &[Topic],
        committed: &Offsets,
        given: Option<&Offsets>,
    ) -> Result<BTreeSet<(String, i32)>, Failed> {
        let mut places = BTreeSet::new();
        for topic in topics {
            let there = topic.partitions.iter().map(|p| (topic.name.clone(), p.index));
            if let Some(wanted) = self.topic.iter().find(|p| p.topic == topic.name)
                && !wanted.partitions.is_empty()
            {
                places.extend(wanted.partitions.iter().map(|p| (topic.name.clone(), *p)));
            } else if self.all_topics {
                places.extend(there.filter(|place| committed.contains_key(place)));
            } else if let Some(given) = given {
                places.extend(given.keys().filter(|(name, _)| *name == topic.name).cloned());
            } else {
                places.extend(there);
            }
        }
        let exists = |(name, index): &(String, i32)| {
            topics.iter().any(|t| t.name == *name && t.partitions.iter().any(|p| p.index == *index))
        };
        match places.iter().find(|place| !exists(place)) {
            Some((topic, partition)) => {
                Err(Failed::new(Code::Refused, format!("topic {topic} has no partition {partition}")))
            }
            None => Ok(places),
        }
    }

    fn show(&self, committed: &Offsets, target: Offsets) -> Result<(), Failed> {
        let mut out = Out::new();
        let rows = target.into_iter().map(|(place, to)| Row {
            from: committed.get(&place).copied(),
            topic: place.0,
            partition: place.1,
            to,
        });
        let rows: Vec<Row> = rows.collect();
        if self.json {
            out.json_pretty(&rows)?;
        } else if self.export {
            for row in &rows {
                out.line(format!("{},{},{}", row.topic, row.partition, row.to))?;
            }
        } else {
            let mut table = Table::new(&[
                ("TOPIC", Align::Left),
                ("PARTITION", Align::Right),
                ("FROM", Align::Right),
                ("TO", Align::Right),
            ]);
            for row in &rows {
                let from = row.from.map_or("-".to_string(), |n| n.to_string());
                table.row(vec![row.topic.clone(), row.partition.to_string(), from, row.to.to_string()]);
            }
            out.table(&table)?;
        }
        out.finish()?;
        if !self.execute {
            remark("nothing was changed; --execute does it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Place, lines, place};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn topics_may_name_partitions() {
        let of = |partitions: &[i32]| Place {
            topic: "t".to_string(),
            partitions: partitions.iter().copied().collect::<BTreeSet<_>>(),
        };
        assert_eq!(place("t"), Ok(of(&[])));
        assert_eq!(place("t:2,0"), Ok(of(&[0, 2])));
        for wrong in ["", ":1", "t:", "t:x", "t:-1"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_are_read_to_the_line() {
        let read = lines("# a plan\n\nt,0,5\n\"u\", 1, 7\n").unwrap();
        assert_eq!(read, BTreeMap::from([(("t".to_string(), 0), 5), (("u".to_string(), 1), 7)]));
        assert_eq!(lines("t,0,5\nt,0").unwrap_err(), "line 2: t,0 is not TOPIC,PARTITION,OFFSET");
        assert!(lines("t,0,-5").is_err());
    }
}
