//! ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848): from the wire to the coordinator and back.

use super::group_views::{Described, GROUP_OPERATIONS, each_once};
use super::groups::{fresh_id, host_of, owned, refusal};
use super::offsets::answer_or_log;
use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
};
use kafka_wire::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_wire::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};
use kafka_wire_core::Uuid;
use ringmill_groups::{
    Answer, ConsumerBeat, DescribedConsumer, DescribedConsumerGroup, Event, Groups, Partitions, Protocol,
};
use ringmill_metadata::Image;
use ringmill_types::{ErrorCode, TopicId};

pub(crate) fn heartbeat(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: ConsumerGroupHeartbeatRequest = call.decode()?;
    call.few(request.topic_partitions.iter().flatten().map(|t| t.partitions.len()))?;
    let (head, version) = (call.header.response_head(), call.version());
    control.ensure_offsets_topic();
    let names = |names: &Vec<kafka_wire_core::StrBytes>| names.iter().map(ToString::to_string).collect();
    let beat = ConsumerBeat {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        epoch: request.member_epoch,
        instance: owned(&request.instance_id),
        rack: owned(&request.rack_id),
        client_id: call.header.client_id_text().into_owned(),
        client_host: host_of(call.peer),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.subscribed_topic_names.as_ref().map(names),
        regex: owned(&request.subscribed_topic_regex),
        assignor: owned(&request.server_assignor),
        owned: request.topic_partitions.as_ref().map(|topics| {
            let mut owned = Partitions::new();
            for topic in topics {
                let id = TopicId(topic.topic_id.to_bytes());
                owned.entry(id).or_default().extend(&topic.partitions);
            }
            owned
        }),
        id_required: version >= 1,
        fresh: if request.member_id.is_empty() { fresh_id()? } else { String::new() },
    };
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::ConsumerBeat(ticket, beat)),
        Box::new(move |result| {
            let response = match result {
                Ok(Answer::ConsumerBeat(Ok(answer))) => message!(ConsumerGroupHeartbeatResponse {
                    member_id: Some(text(&*answer.member)),
                    member_epoch: answer.epoch,
                    heartbeat_interval_ms: answer.interval_ms,
                    assignment: answer.assignment.map(assignment),
                }),
                Ok(Answer::ConsumerBeat(Err(refused))) => message!(ConsumerGroupHeartbeatResponse {
                    error_code: code(refused.code),
                    error_message: Some(text(refused.reason)),
                }),
                other => message!(ConsumerGroupHeartbeatResponse { error_code: code(refusal(&other)) }),
            };
            answer_or_log(head, &response)
        }),
    ))
}

fn assignment(partitions: Partitions) -> Assignment {
    let topics = partitions.into_iter().map(|(topic, partitions)| {
        message!(TopicPartitions {
            topic_id: Uuid::from_bytes(topic.0),
            partitions: partitions.into_iter().collect(),
        })
    });
    message!(Assignment { topic_partitions: topics.collect() })
}

pub(crate) fn describe(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: ConsumerGroupDescribeRequest = call.decode()?;
    let version = call.version();
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { i32::MIN };
    let known = control.groups.groups();
    let mut so_far = Described::default();
    let groups = each_once(&request.group_ids, |name| name).map(|name| {
        let mut group = match &known {
            Err(error) => message!(DescribedGroup { error_code: code(*error) }),
            Ok(_) if so_far.is_full() => {
                message!(DescribedGroup { error_code: code(ErrorCode::CoordinatorLoadInProgress) })
            }
            Ok(groups) => match groups.describe_consumers(name) {
                Some(group) => described(group, &control.image, version),
                None => missing(groups, name),
            },
        };
        group.group_id = name.clone();
        group.authorized_operations = operations;
        so_far.add(name.len());
        group.members.iter().for_each(|m| so_far.add(bytes_of(m)));
        group
    });
    Ok(Outcome::Now(call.encode(&message!(ConsumerGroupDescribeResponse { groups: groups.collect() }))?))
}

/// About as much of the answer as a member takes.
fn bytes_of(member: &Member) -> usize {
    let given = member.assignment.topic_partitions.iter().chain(&member.target_assignment.topic_partitions);
    let given: usize = given.map(|t| t.topic_name.len() + 16 + 4 * t.partitions.len()).sum();
    let topics: usize = member.subscribed_topic_names.iter().map(|name| name.len()).sum();
    given + topics + member.client_id.len() + member.client_host.len() + member.member_id.len()
}

fn missing(groups: &Groups, name: &str) -> DescribedGroup {
    if name.is_empty() {
        return message!(DescribedGroup { error_code: code(ErrorCode::InvalidGroupId) });
    }
    let why = if groups.exists(name) { "is not a consumer group" } else { "not found" };
    message!(DescribedGroup {
        error_code: code(ErrorCode::GroupIdNotFound),
        error_message: Some(text(format!("Group {name} {why}."))),
    })
}

fn described(group: DescribedConsumerGroup, image: &Image, version: i16) -> DescribedGroup {
    message!(DescribedGroup {
        group_state: text(group.state),
        group_epoch: group.epoch,
        assignment_epoch: group.target_epoch,
        assignor_name: text(group.assignor),
        members: group.members.into_iter().map(|m| member(m, image, version)).collect(),
    })
}

/// Kafka's number for what a member speaks: a group that goes over has members of both.
fn member_type(protocol: Protocol) -> i8 {
    match protocol {
        Protocol::Classic => 0,
        Protocol::Consumer => 1,
    }
}

fn member(member: DescribedConsumer, image: &Image, version: i16) -> Member {
    let about = member.about;
    let mut shown = message!(Member {
        member_id: text(&*member.id),
        instance_id: member.instance.as_deref().map(text),
        rack_id: about.rack.map(text),
        member_epoch: member.epoch,
        client_id: text(about.client_id),
        client_host: text(about.client_host),
        subscribed_topic_names: about.topics.iter().map(|t| text(&**t)).collect(),
        subscribed_topic_regex: about.regex.map(text),
        assignment: named(member.assigned, image),
        target_assignment: named(member.target, image),
    });
    if version >= 1 {
        shown.member_type = member_type(member.protocol);
    }
    shown
}

/// With names; topics that are gone have none and are left out.
fn named(partitions: Partitions, image: &Image) -> DescribedAssignment {
    let topics = partitions.into_iter().filter_map(|(topic, partitions)| {
        let name = image.name_of(topic)?;
        Some(message!(DescribedPartitions {
            topic_id: Uuid::from_bytes(topic.0),
            topic_name: text(&**name),
            partitions: partitions.into_iter().collect(),
        }))
    });
    message!(DescribedAssignment { topic_partitions: topics.collect() })
}
