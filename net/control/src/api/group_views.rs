//! ListGroups and DescribeGroups: what is, answered at once.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_wire::list_groups_response::ListedGroup;
use kafka_wire::{DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest, ListGroupsResponse};
use kafka_wire_core::StrBytes;
use ringmill_groups::Groups;
use ringmill_types::ErrorCode;
use std::collections::HashSet;

/// Bits of `AclOperation` that a group allows when nothing is forbidden.
pub(super) const GROUP_OPERATIONS: i32 = 3400;
/// The state of a group that is not there.
const DEAD: &str = "Dead";

pub(crate) fn list_groups(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: ListGroupsRequest = call.decode()?;
    let version = call.version();
    let groups = match control.groups.groups() {
        Ok(groups) => groups,
        Err(error) => {
            let response = message!(ListGroupsResponse { error_code: code(error) });
            return Ok(Outcome::Now(call.encode(&response)?));
        }
    };
    // A filter may have thousands of words, and there may be thousands of groups.
    let set = |filter: &[StrBytes]| filter.iter().map(|f| f.to_ascii_lowercase()).collect::<HashSet<_>>();
    let (states, types) = (set(&request.states_filter), set(&request.types_filter));
    let wanted = |filter: &HashSet<String>, name: &str| {
        filter.is_empty() || filter.contains(&name.to_ascii_lowercase())
    };
    let mut rows = Vec::new();
    for group in groups.list() {
        let (state, kind) = (group.state, group.protocol.name());
        if !wanted(&states, state) || !wanted(&types, kind) {
            continue;
        }
        let mut row =
            message!(ListedGroup { group_id: text(&*group.id), protocol_type: text(&*group.protocol_type) });
        if version >= 4 {
            row.group_state = text(state);
        }
        if version >= 5 {
            row.group_type = text(kind.to_ascii_lowercase());
        }
        rows.push(row);
    }
    Ok(Outcome::Now(call.encode(&message!(ListGroupsResponse { groups: rows }))?))
}

/// What described groups may take in one answer: with this much there are no more in it, and whoever asked comes again for
/// the rest, as to a coordinator that is not ready. Java's admin client does so by itself.
const DESCRIBED_BYTES_MAX: usize = 4 << 20;
/// A group or a member beside its texts.
const DESCRIBED_BYTES: usize = 64;

/// How much of an answer groups have taken.
#[derive(Default)]
pub(super) struct Described {
    bytes: usize,
}

impl Described {
    pub fn is_full(&self) -> bool {
        self.bytes >= DESCRIBED_BYTES_MAX
    }

    /// A group or a member with so many bytes of its own.
    pub fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(DESCRIBED_BYTES + bytes);
    }
}

/// What was asked, without what asks for the same name again: a group that is named again and again would make an answer
/// of any size.
pub(super) fn each_once<T>(asked: &[T], name: impl Fn(&T) -> &StrBytes) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::new();
    asked.iter().filter(move |one| seen.insert(name(one).as_str()))
}

pub(crate) fn describe_groups(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeGroupsRequest = call.decode()?;
    let version = call.version();
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { i32::MIN };
    let known = control.groups.groups();
    let mut so_far = Described::default();
    let groups = each_once(&request.groups, |name| name).map(|name| {
        let mut group = match &known {
            Err(error) => message!(DescribedGroup { error_code: code(*error) }),
            Ok(_) if so_far.is_full() => {
                message!(DescribedGroup { error_code: code(ErrorCode::CoordinatorLoadInProgress) })
            }
            Ok(groups) => described(groups, name, version),
        };
        so_far.add(name.len());
        for m in &group.members {
            let texts = m.member_id.len() + m.client_id.len() + m.client_host.len();
            so_far.add(texts + m.member_metadata.len() + m.member_assignment.len());
        }
        group.group_id = name.clone();
        if version >= 3 {
            group.authorized_operations = operations;
        }
        group
    });
    Ok(Outcome::Now(call.encode(&message!(DescribeGroupsResponse { groups: groups.collect() }))?))
}

fn described(groups: &Groups, name: &str, version: i16) -> DescribedGroup {
    let Some(group) = groups.describe(name) else {
        let mut missing = message!(DescribedGroup { group_state: text(DEAD) });
        // Before version 6 a group that is not there is one without members.
        if version >= 6 {
            missing.error_code = code(ErrorCode::GroupIdNotFound);
            let why = if groups.exists(name) { "is not a classic group" } else { "not found" };
            missing.error_message = Some(text(format!("Group {name} {why}.")));
        }
        return missing;
    };
    let members = group.members.into_iter().map(|m| {
        message!(DescribedGroupMember {
            member_id: text(&*m.id),
            group_instance_id: m.instance.as_deref().map(text).filter(|_| version >= 4),
            client_id: text(m.client_id),
            client_host: text(m.client_host),
            member_metadata: m.metadata,
            member_assignment: m.assignment,
        })
    });
    message!(DescribedGroup {
        group_state: text(group.state.name()),
        protocol_type: text(&*group.protocol_type),
        protocol_data: text(&*group.protocol),
        members: members.collect(),
    })
}
