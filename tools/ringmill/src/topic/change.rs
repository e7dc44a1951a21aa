//! `topic create`, `topic alter`, `topic delete`.

use crate::exit::{Code, Failed};
use crate::output::{Out, complain, counted};
use crate::server::Server;
use clap::Args;
use ringmill_client::admin::{ConfigChange, NewTopic};
use ringmill_client::client::Absent;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};

#[derive(Args)]
pub struct Create {
    name: String,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, short = 'p', value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A topic config such as retention.ms=86400000; may be repeated
    #[arg(long, short = 'c', value_name = "KEY=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,
    /// A topic that exists already is no error (its configs stay as they are)
    #[arg(long)]
    if_not_exists: bool,
    /// Only ask whether the broker would do it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
    /// What was done as JSON
    #[arg(long)]
    json: bool,
}

/// `KEY=VALUE`; the value may be empty and may hold further equals signs.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        Some(_) | None => Err("it takes the form KEY=VALUE".to_string()),
    }
}

#[derive(Serialize)]
struct CreatedRow<'a> {
    name: &'a str,
    created: bool,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
}

impl Create {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let new = NewTopic {
            name: self.name.clone(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            configs: self.config,
            validate_only: self.dry_run,
        };
        let existed = |error: &ringmill_client::ClientError| {
            error.code() == Some(ringmill_types::ErrorCode::TopicAlreadyExists)
        };
        let created = match client.create_topic(&new) {
            Ok(created) => Some(created),
            Err(error) if self.if_not_exists && existed(&error) => None,
            Err(error) => return Err(error.into()),
        };
        // Brokers before version 5 of the API do not say; what was asked for is what was made then.
        let partitions = created.map(|c| c.partitions).filter(|n| *n > 0).or(self.partitions);
        let mut out = Out::new();
        if self.json {
            let factor = created.map(|c| c.replication_factor).filter(|n| *n > 0).or(self.replication_factor);
            out.json(&CreatedRow {
                name: &self.name,
                created: created.is_some() && !self.dry_run,
                partitions,
                replication_factor: factor,
            })?;
        } else {
            let count =
                partitions.map_or(String::new(), |n| format!(" with {}", counted(n as u64, "partition")));
            out.line(match (created, self.dry_run) {
                (None, _) => format!("topic {} exists already", self.name),
                (Some(_), true) => format!("topic {} could be created{count}", self.name),
                (Some(_), false) => format!("created topic {}{count}", self.name),
            })?;
        }
        Ok(out.finish()?)
    }
}

#[derive(Args)]
#[group(id = "changes", required = true, multiple = true, args = ["partitions", "config", "delete_config"])]
pub struct Alter {
    name: String,
    /// Grow to so many partitions. Records stay where they are, so a key's new records may go elsewhere
    #[arg(long, short = 'p', value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a topic config; may be repeated
    #[arg(long, short = 'c', value_name = "KEY=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,
    /// Set a topic config back to its default; may be repeated
    #[arg(long, short = 'd', value_name = "KEY")]
    delete_config: Vec<String>,
    #[command(flatten)]
    server: Server,
    /// What was done as JSON, also where a part of it was refused
    #[arg(long)]
    json: bool,
}

/// What was done, and nothing that was not.
#[derive(Serialize)]
struct AlteredRow<'a> {
    name: &'a str,
    set: BTreeMap<&'a str, &'a str>,
    /// Configs that are the default again.
    deleted: Vec<&'a str>,
    /// How many there are now, where some were to be added.
    partitions: Option<i32>,
}

impl Alter {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let mut out = Out::new();
        let mut changes: Vec<ConfigChange> =
            self.config.into_iter().map(|(key, value)| ConfigChange::Set(key, value)).collect();
        changes.extend(self.delete_config.into_iter().map(ConfigChange::Delete));
        let mut row =
            AlteredRow { name: &self.name, set: BTreeMap::new(), deleted: Vec::new(), partitions: None };
        // Configs first: they are refused as a whole, before partitions were added that cannot be taken away again.
        if !changes.is_empty() {
            client.alter_configs(&self.name, &changes)?;
        }
        for change in &changes {
            let line = match change {
                ConfigChange::Set(key, value) => {
                    row.set.insert(key, value);
                    format!("topic {}: {key}={value}", self.name)
                }
                ConfigChange::Delete(key) => {
                    row.deleted.push(key);
                    format!("topic {}: {key} is the default again", self.name)
                }
            };
            if !self.json {
                out.line(line)?;
            }
        }
        let added = self.partitions.map_or(Ok(()), |count| client.create_partitions(&self.name, count));
        row.partitions = self.partitions.filter(|_| added.is_ok());
        if self.json && (added.is_ok() || !changes.is_empty()) {
            out.json(&row)?;
        } else if let Some(count) = row.partitions {
            out.line(format!("topic {}: {}", self.name, counted(count as u64, "partition")))?;
        }
        out.finish()?;
        Ok(added?)
    }
}

#[derive(Args)]
pub struct Delete {
    #[arg(required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    server: Server,
    /// What became of each topic, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct DeletedRow<'a> {
    name: &'a str,
    deleted: bool,
    /// Why not.
    error: Option<String>,
}

impl Delete {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        if !self.yes {
            // Names that do not exist are reported by the broker; they must not look like part of the question.
            let cluster = client.metadata(Some(&self.names), Absent::Leave)?;
            let found: Vec<String> = cluster
                .topics
                .iter()
                .filter(|topic| topic.code.is_ok())
                .map(|topic| {
                    format!("{} ({})", topic.name, counted(topic.partitions.len() as u64, "partition"))
                })
                .collect();
            if !found.is_empty() && !asked(&format!("Delete {} with all records?", found.join(", ")))? {
                return Err(Failed::new(Code::Refused, "nothing was deleted"));
            }
        }
        let mut out = Out::new();
        let mut rows = Vec::new();
        for (name, result) in self.names.iter().zip(client.delete_topics(&self.names)?) {
            let error = result.err().map(|error| error.to_string());
            match &error {
                None if self.json => {}
                None => out.line(format!("deleted topic {name}"))?,
                Some(error) => {
                    out.flush()?;
                    complain(error);
                }
            }
            rows.push(DeletedRow { name, deleted: error.is_none(), error });
        }
        if self.json {
            out.json_pretty(&rows)?;
        }
        out.finish()?;
        let refused = rows.iter().any(|row| !row.deleted);
        if refused { Err(Failed::said(Code::Refused)) } else { Ok(()) }
    }
}

/// Asks a person; anything but y or yes means no.
///
/// # Errors
/// Code 2 when there is no person to ask.
pub fn asked(question: &str) -> Result<bool, Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(Failed::new(Code::Usage, "there is no terminal to ask on; --yes says that it is meant"));
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Failed::local("the answer cannot be read", &e))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
