//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DeleteGroups: from the wire to the coordinator and back.

use super::offsets::answer_or_log;
use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::delete_groups_response::DeletableGroupResult;
use kafka_wire::join_group_response::JoinGroupResponseMember;
use kafka_wire::leave_group_response::MemberResponse;
use kafka_wire::{
    DeleteGroupsRequest, DeleteGroupsResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_wire_core::{Bytes, StrBytes};
use ringmill_groups::{Answer, Event, Heartbeat, Identity, Join, JoinAnswer, Leave, Sync, SyncAnswer, Text};
use ringmill_types::ErrorCode;
use ringmill_wire::ResponseHead;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};

/// Members have bytes of their own in the coordinator: a request's buffer is not kept for a name in it.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(super) fn owned(value: &Option<StrBytes>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

fn shown(value: &Option<Text>) -> Option<StrBytes> {
    value.as_deref().map(text)
}

/// As Java prints an address; tools show it.
pub(super) fn host_of(peer: SocketAddr) -> String {
    match peer.ip() {
        IpAddr::V4(ip) => format!("/{ip}"),
        IpAddr::V6(ip) => {
            let parts: Vec<String> = ip.segments().iter().map(|part| format!("{part:x}")).collect();
            format!("/{}", parts.join(":"))
        }
    }
}

/// The random end of a member's id, in the form of a UUID of version 4.
pub(super) fn fresh_id() -> Result<String, Refusal> {
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| format!("no random bytes for a member id: {error}"))?;
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{number:032x}");
    let mut parts = Vec::new();
    let mut rest = hex.as_str();
    for length in [8, 4, 4, 4, 12] {
        let (part, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        parts.push(part);
        rest = after;
    }
    Ok(parts.join("-"))
}

pub(crate) fn join(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: JoinGroupRequest = call.decode()?;
    let (head, version) = (call.header.response_head(), call.version());
    control.ensure_offsets_topic();
    let join = Join {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: owned(&request.group_instance_id),
        client_id: call.header.client_id_text().into_owned(),
        client_host: host_of(call.peer),
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 had one timeout for both.
        rebalance_timeout_ms: if version == 0 {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.iter().map(|p| (p.name.to_string(), own(&p.metadata))).collect(),
        member_id_required: version >= 4,
        can_skip_assignment: version >= 9,
        fresh: fresh_id()?,
    };
    let member = request.member_id.clone();
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::Join(ticket, join)),
        Box::new(move |result| match result {
            Ok(Answer::Join(answer)) => answer_or_log(head, &joined(head, answer)),
            other => {
                let mut refused = message!(JoinGroupResponse {
                    error_code: code(refusal(&other)),
                    generation_id: -1,
                    member_id: member,
                });
                if version < 7 {
                    refused.protocol_name = Some(text(""));
                }
                answer_or_log(head, &refused)
            }
        }),
    ))
}

/// Why there is no answer of the right kind: the coordinator's error. It never answers with another kind.
pub(super) fn refusal(result: &Result<Answer, ErrorCode>) -> ErrorCode {
    result.as_ref().err().copied().unwrap_or(ErrorCode::UnknownServerError)
}

fn joined(head: ResponseHead, answer: JoinAnswer) -> JoinGroupResponse {
    let version = head.api_version;
    let members = answer.members.into_iter().map(|m| {
        message!(JoinGroupResponseMember {
            member_id: text(&*m.member),
            group_instance_id: shown(&m.instance).filter(|_| version >= 5),
            metadata: m.metadata,
        })
    });
    let mut response = message!(JoinGroupResponse {
        error_code: code(answer.error),
        generation_id: answer.generation,
        protocol_name: shown(&answer.protocol),
        leader: text(&*answer.leader),
        member_id: text(&*answer.member),
        members: members.collect(),
    });
    if version >= 7 {
        response.protocol_type = shown(&answer.protocol_type);
    } else if response.protocol_name.is_none() {
        response.protocol_name = Some(text(""));
    }
    if version >= 9 {
        response.skip_assignment = answer.skip_assignment;
    }
    response
}

pub(crate) fn sync(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: SyncGroupRequest = call.decode()?;
    let (head, version) = (call.header.response_head(), call.version());
    if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        let refused = message!(SyncGroupResponse { error_code: code(ErrorCode::InconsistentGroupProtocol) });
        return Ok(Outcome::Now(call.encode(&refused)?));
    }
    let sync = Sync {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id,
        protocol_type: owned(&request.protocol_type),
        protocol: owned(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|a| (a.member_id.to_string(), own(&a.assignment)))
            .collect(),
    };
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::Sync(ticket, sync)),
        Box::new(move |result| {
            let response = match result {
                Ok(Answer::Sync(SyncAnswer { error, protocol_type, protocol, assignment })) => {
                    let mut response =
                        message!(SyncGroupResponse { error_code: code(error), assignment: assignment });
                    if version >= 5 {
                        response.protocol_type = shown(&protocol_type);
                        response.protocol_name = shown(&protocol);
                    }
                    response
                }
                other => message!(SyncGroupResponse { error_code: code(refusal(&other)) }),
            };
            answer_or_log(head, &response)
        }),
    ))
}

pub(crate) fn heartbeat(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: HeartbeatRequest = call.decode()?;
    let head = call.header.response_head();
    let beat = Heartbeat {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id,
    };
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::Heartbeat(ticket, beat)),
        Box::new(move |result| {
            let error = match result {
                Ok(Answer::Heartbeat(error)) => error,
                // While groups are being read nobody is late: the member goes on.
                Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
                other => refusal(&other),
            };
            answer_or_log(head, &message!(HeartbeatResponse { error_code: code(error) }))
        }),
    ))
}

pub(crate) fn leave(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: LeaveGroupRequest = call.decode()?;
    let (head, version) = (call.header.response_head(), call.version());
    let members = if version < 3 {
        vec![Identity { member: request.member_id.to_string(), instance: None }]
    } else {
        let members = request.members.iter();
        members
            .map(|m| Identity { member: m.member_id.to_string(), instance: owned(&m.group_instance_id) })
            .collect()
    };
    let leave = Leave { group: request.group_id.to_string(), members };
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::Leave(ticket, leave)),
        Box::new(move |result| {
            let response = match result {
                Ok(Answer::Leave(ErrorCode::None, results)) if version < 3 => {
                    let only = results.first().map_or(ErrorCode::None, |(_, error)| *error);
                    message!(LeaveGroupResponse { error_code: code(only) })
                }
                Ok(Answer::Leave(error, results)) => {
                    let members = results.into_iter().map(|(who, error)| {
                        message!(MemberResponse {
                            member_id: text(who.member),
                            group_instance_id: who.instance.map(text),
                            error_code: code(error),
                        })
                    });
                    message!(LeaveGroupResponse { error_code: code(error), members: members.collect() })
                }
                other => message!(LeaveGroupResponse { error_code: code(refusal(&other)) }),
            };
            answer_or_log(head, &response)
        }),
    ))
}

pub(crate) fn delete_groups(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DeleteGroupsRequest = call.decode()?;
    let head = call.header.response_head();
    let mut names: Vec<String> = request.groups_names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    let asked = names.clone();
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::DeleteGroups(ticket, names)),
        Box::new(move |result| {
            let results = match result {
                Ok(Answer::DeleteGroups(results)) => results,
                other => asked.into_iter().map(|name| (name, refusal(&other))).collect(),
            };
            let results = results.into_iter().map(|(name, error)| {
                message!(DeletableGroupResult { group_id: text(name), error_code: code(error) })
            });
            answer_or_log(head, &message!(DeleteGroupsResponse { results: results.collect() }))
        }),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{fresh_id, host_of};

    #[test]
    fn member_ids_end_in_a_uuid_and_hosts_look_like_javas() {
        let id = fresh_id().unwrap();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes().get(14), Some(&b'4'));
        assert_ne!(id, fresh_id().unwrap());
        assert_eq!(host_of("127.0.0.1:9".parse().unwrap()), "/127.0.0.1");
        assert_eq!(host_of("[::1]:9".parse().unwrap()), "/0:0:0:0:0:0:0:1");
    }
}
