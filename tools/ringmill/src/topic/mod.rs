//! `ringmill topic`: topics over the Kafka protocol, so that any broker will do.

mod change;
pub use change::{asked, assignment};
mod describe;

use crate::exit::Failed;
use crate::output::{Align, Out, Table};
use crate::server::Server;
use clap::{Args, Subcommand};
use ringmill_client::client::Absent;
use serde::Serialize;

#[derive(Subcommand)]
pub enum Topic {
    /// Create a topic
    Create(change::Create),
    /// List topics
    List(List),
    /// Show partitions, offsets, sizes and configs
    Describe(describe::Describe),
    /// Add partitions, set or delete configs
    Alter(change::Alter),
    /// Delete topics and all their records
    Delete(change::Delete),
}

impl Topic {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Topic::Create(create) => create.run(),
            Topic::List(list) => list.run(),
            Topic::Describe(describe) => describe.run(),
            Topic::Alter(alter) => alter.run(),
            Topic::Delete(delete) => delete.run(),
        }
    }
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    server: Server,
    /// An array of objects instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    id: String,
    partitions: usize,
    replicas: usize,
    internal: bool,
}

impl List {
    fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let cluster = client.metadata(None, Absent::Leave)?;
        let mut topics: Vec<Listed> = cluster
            .topics
            .into_iter()
            .map(|topic| Listed {
                partitions: topic.partitions.len(),
                replicas: topic.partitions.first().map_or(0, |p| p.replicas.len()),
                name: topic.name,
                id: topic.id,
                internal: topic.internal,
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let mut out = Out::new();
        if self.json {
            out.json_pretty(&topics)?;
            return Ok(out.finish()?);
        }
        if topics.is_empty() {
            crate::output::remark("no topics; `ringmill topic create NAME` makes one");
        } else {
            let columns = [("TOPIC", Align::Left), ("PARTITIONS", Align::Right), ("REPLICAS", Align::Right)];
            let mut table = Table::new(&columns);
            for topic in topics {
                table.row(vec![topic.name, topic.partitions.to_string(), topic.replicas.to_string()]);
            }
            out.table(&table)?;
        }
        Ok(out.finish()?)
    }
}
