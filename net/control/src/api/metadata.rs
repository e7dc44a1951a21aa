//! DescribeTopicPartitions, and topics that Metadata makes by naming them.

use super::{Call, Outcome, Refusal, Reply, code, message, text};
use crate::api::create;
use crate::control::Control;
use crate::groups::OFFSETS_TOPIC;
use kafka_wire::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_wire::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use kafka_wire_core::Uuid;
use ringmill_metadata::Topic;
use ringmill_types::ErrorCode;
use ringmill_types::internal::is_internal;
use ringmill_wire::metadata::{MetadataRequest, TOPIC_OPERATIONS};

/// Kafka's `max.request.partition.size.limit`.
const PARTITIONS_PER_ANSWER_MAX: i32 = 2000;

/// What cores leave to control of a Metadata request: topics that come into being by being named. The core that took it has
/// the answer.
pub(crate) fn create_named(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request = MetadataRequest::parse(call.header, call.frame).map_err(|error| error.to_string())?;
    let mut is_there = false;
    for name in request.topics().filter_map(|topic| topic.name) {
        // One that is named twice is there by then, and so is what another client named meanwhile: the core that took this had not
        // heard of it.
        is_there |= match control.image.named(name) {
            Some(_) => true,
            None => create::check_name(&control.image, name).is_ok() && auto_create(control, call, name),
        };
    }
    // All that is said of a topic that was not there.
    let reply = Reply { bytes: Vec::new(), failed: true };
    // The client asks again at once; by then every core knows the topic.
    Ok(if is_there { Outcome::Applied(reply) } else { Outcome::Now(reply) })
}

fn auto_create(control: &mut Control, call: &Call<'_>, name: &str) -> bool {
    if name == OFFSETS_TOPIC {
        return control.ensure_offsets_topic();
    }
    let partitions = control.options.num_partitions;
    match create::plan(control, name, partitions, &Default::default()) {
        Ok(_) if !may_create(control, call, partitions) => false,
        Ok(record) => match control.decide(&[record]) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, topic = name, "a topic could not be created");
                false
            }
        },
        Err((_, reason)) => {
            tracing::warn!(topic = name, reason, "a topic was not created");
            false
        }
    }
}

/// Whether the client's account has room. Nobody has to pause who only asks: it finds the topic when it has.
fn may_create(control: &mut Control, call: &Call<'_>, partitions: i32) -> bool {
    let charged =
        control.charge_mutations(&call.on_account(control, 0), usize::try_from(partitions).unwrap_or(0));
    control.mutations.take_pause_ms();
    charged.is_ok()
}

pub(crate) fn describe_topic_partitions(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeTopicPartitionsRequest = call.decode()?;
    let Some(names) = names_from_cursor(control, &request) else {
        let refused = request.topics.iter().map(|topic| {
            message!(DescribeTopicPartitionsResponseTopic {
                error_code: code(ErrorCode::InvalidRequest),
                name: Some(topic.name.clone()),
                topic_authorized_operations: i32::MIN
            })
        });
        let response = message!(DescribeTopicPartitionsResponse { topics: refused.collect() });
        return Ok(Outcome::Now(call.encode(&response)?));
    };
    let cursor = request.cursor.as_ref();
    let mut left = request.response_partition_limit.clamp(1, PARTITIONS_PER_ANSWER_MAX) as usize;
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        let Some(topic) = control.image.named(&name) else {
            response.topics.push(undescribed(control, name));
            continue;
        };
        if left == 0 {
            response.next_cursor = Some(message!(Cursor { topic_name: text(name), partition_index: 0 }));
            break;
        }
        let first = cursor.filter(|c| c.topic_name.as_str() == name).map_or(0, |c| c.partition_index.max(0));
        let partitions = shown(control.options.node_id, topic, first as usize, left);
        left -= partitions.len();
        let next = first as usize + partitions.len();
        let unfinished = next < topic.partitions.len();
        response.topics.push(message!(DescribeTopicPartitionsResponseTopic {
            name: Some(text(name.as_str())),
            topic_id: Uuid::from_bytes(topic.id.0),
            is_internal: is_internal(&topic.name),
            partitions: partitions,
            topic_authorized_operations: TOPIC_OPERATIONS,
        }));
        if unfinished {
            response.next_cursor =
                Some(message!(Cursor { topic_name: text(name), partition_index: next as i32 }));
            break;
        }
    }
    Ok(Outcome::Now(call.encode(&response)?))
}

/// The names to describe, sorted, each once, from the cursor's on. `None` where the cursor is none that an answer gave.
fn names_from_cursor(control: &Control, request: &DescribeTopicPartitionsRequest) -> Option<Vec<String>> {
    let mut names: Vec<String> = if request.topics.is_empty() {
        control.image.topics().map(|t| t.name.to_string()).collect()
    } else {
        request.topics.iter().map(|t| t.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    if let Some(cursor) = &request.cursor {
        // Where a list is given, the cursor's topic has to be of it.
        let listed = request.topics.is_empty() || request.topics.iter().any(|t| t.name == cursor.topic_name);
        if !listed || cursor.partition_index < 0 {
            return None;
        }
        names.retain(|name| name.as_str() >= cursor.topic_name.as_str());
    }
    Some(names)
}

fn undescribed(control: &Control, name: String) -> DescribeTopicPartitionsResponseTopic {
    let error = match create::check_name(&control.image, &name) {
        Err(_) => ErrorCode::InvalidTopicException,
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
    };
    message!(DescribeTopicPartitionsResponseTopic {
        error_code: code(error),
        name: Some(text(name)),
        topic_authorized_operations: TOPIC_OPERATIONS
    })
}

/// At most `most` partitions from the one with the number `first` on.
fn shown(
    node: i32,
    topic: &Topic,
    first: usize,
    most: usize,
) -> Vec<DescribeTopicPartitionsResponsePartition> {
    let partitions = topic.partitions.iter().zip(0..).skip(first).take(most).map(|(p, index)| {
        message!(DescribeTopicPartitionsResponsePartition {
            partition_index: index,
            leader_id: node,
            leader_epoch: p.epoch.0,
            replica_nodes: vec![node],
            isr_nodes: vec![node],
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
        })
    });
    partitions.collect()
}
