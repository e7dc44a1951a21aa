//! `ringmill group`: consumer groups over the Kafka protocol, of either of its group protocols.

mod lag;
mod reset;

use crate::exit::{Code, Failed};
use crate::output::{Align, Out, Table, complain, counted, remark};
use crate::server::Server;
use crate::topic::asked;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use ringmill_client::groups::{Assignment, GroupMember};
use serde::Serialize;
use std::io::Write;

#[derive(Subcommand)]
pub enum Group {
    /// List groups with their states
    List(List),
    /// Show a group's members and what each is assigned
    Describe(Describe),
    /// Show how far a group is behind, partition by partition
    Lag(lag::Lag),
    /// Move a group's committed offsets; shows what it would do unless --execute is given
    Reset(reset::Reset),
    /// Delete groups with their committed offsets
    Delete(Delete),
}

impl Group {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Group::List(list) => list.run(),
            Group::Describe(describe) => describe.run(),
            Group::Lag(lag) => lag.run(),
            Group::Reset(reset) => reset.run(),
            Group::Delete(delete) => delete.run(),
        }
    }
}

/// Of groups of either protocol, as Kafka names them.
const STATES: [&str; 7] =
    ["Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling", "Dead"];

#[derive(Args)]
pub struct List {
    /// Only groups in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(STATES), ignore_case = true)]
    state: Option<String>,
    #[command(flatten)]
    server: Server,
    /// An array of objects instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    group: String,
    state: String,
    protocol: String,
    protocol_type: String,
}

impl List {
    fn run(self) -> Result<(), Failed> {
        let rows = self.server.connect()?.groups()?;
        let wanted =
            |state: &str| self.state.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(state));
        let rows: Vec<Listed> = rows
            .into_iter()
            .filter(|row| wanted(&row.state))
            .map(|row| Listed {
                group: row.id,
                state: row.state,
                protocol: row.kind.to_lowercase(),
                protocol_type: row.protocol_type,
            })
            .collect();
        let mut out = Out::new();
        if self.json {
            out.json_pretty(&rows)?;
        } else if rows.is_empty() {
            remark("no groups");
        } else {
            let mut table =
                Table::new(&[("GROUP", Align::Left), ("STATE", Align::Left), ("PROTOCOL", Align::Left)]);
            for row in rows {
                table.row(vec![row.group, row.state, row.protocol]);
            }
            out.table(&table)?;
        }
        Ok(out.finish()?)
    }
}

#[derive(Args)]
pub struct Describe {
    group: String,
    #[command(flatten)]
    server: Server,
    /// An object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Described<'a> {
    group: &'a str,
    state: String,
    protocol: String,
    assignor: String,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    assignment: Assignment,
}

impl Member {
    fn of(member: GroupMember) -> Member {
        Member {
            member: member.id,
            instance: member.instance,
            client: member.client_id,
            host: host(&member.host),
            assignment: member.assignment,
        }
    }
}

/// Brokers show addresses as Java prints them, with a slash before them.
fn host(shown: &str) -> String {
    shown.trim_start_matches('/').to_string()
}

impl Describe {
    fn run(self) -> Result<(), Failed> {
        let found = self.server.connect()?.group_members(&self.group)?;
        let described = Described {
            group: &self.group,
            state: found.state,
            protocol: found.kind.to_lowercase(),
            assignor: found.assignor,
            members: found.members.into_iter().map(Member::of).collect(),
        };
        let mut out = Out::new();
        if self.json {
            out.json_pretty(&described)?;
            return Ok(out.finish()?);
        }
        let members = counted(described.members.len() as u64, "member");
        let assignor = match described.assignor.as_str() {
            "" => String::new(),
            name => format!(", assignor {name}"),
        };
        out.line(format!(
            "group {}: {}, {} protocol{assignor}, {members}",
            self.group, described.state, described.protocol
        ))?;
        if !described.members.is_empty() {
            let columns = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "ASSIGNMENT"].map(|c| (c, Align::Left));
            let mut table = Table::new(&columns);
            for member in described.members {
                let instance = member.instance.unwrap_or_else(|| "-".to_string());
                let assignment = shown(&member.assignment);
                table.row(vec![member.member, instance, member.client, member.host, assignment]);
            }
            out.table(&table)?;
        }
        Ok(out.finish()?)
    }
}

/// `orders[0-3,7] users[1]`
fn shown(assignment: &Assignment) -> String {
    let topics = assignment.iter().filter(|(_, p)| !p.is_empty()).map(|(topic, partitions)| {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for partition in partitions {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *partition => *last = *partition,
                _ => runs.push((*partition, *partition)),
            }
        }
        let runs: Vec<String> = runs
            .into_iter()
            .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") })
            .collect();
        format!("{topic}[{}]", runs.join(","))
    });
    let topics: Vec<String> = topics.collect();
    if topics.is_empty() { "-".to_string() } else { topics.join(" ") }
}

#[derive(Args)]
pub struct Delete {
    #[arg(required = true)]
    groups: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

impl Delete {
    fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let question = format!("Delete {} with all committed offsets?", self.groups.join(", "));
        if !self.yes && !asked(&question)? {
            return Err(Failed::new(Code::Refused, "nothing was deleted"));
        }
        let mut out = Out::new();
        let mut refused = false;
        for group in &self.groups {
            match client.delete_group(group) {
                Ok(()) => out.line(format!("deleted group {group}"))?,
                Err(error) => {
                    out.flush()?;
                    complain(&error.to_string());
                    refused = true;
                }
            }
        }
        out.finish()?;
        if refused { Err(Failed::said(Code::Refused)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::shown;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn assignments_are_short() {
        assert_eq!(shown(&BTreeMap::new()), "-");
        let mut assignment = BTreeMap::from([("a".to_string(), BTreeSet::from([0, 1, 2, 5, 7, 8]))]);
        assignment.insert("b".to_string(), BTreeSet::from([3]));
        assert_eq!(shown(&assignment), "a[0-2,5,7-8] b[3]");
    }
}
