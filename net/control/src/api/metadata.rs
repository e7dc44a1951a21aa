//! Metadata and DescribeTopicPartitions.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::api::create;
use crate::control::Control;
use crate::groups::OFFSETS_TOPIC;
use kafka_wire::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_wire::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_wire::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, MetadataRequest, MetadataResponse,
};
use kafka_wire_core::Uuid;
use ringmill_metadata::Topic;
use ringmill_types::internal::is_internal;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::HashSet;

/// Bits of `AclOperation` that a topic and a cluster allow when nothing is forbidden.
const TOPIC_OPERATIONS: i32 = 3576;
const CLUSTER_OPERATIONS: i32 = 8096;
/// Kafka's `max.request.partition.size.limit`.
const PARTITIONS_PER_ANSWER_MAX: i32 = 2000;

pub(crate) fn metadata(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: MetadataRequest = call.decode()?;
    let version = call.version();
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { i32::MIN };
    let mut topics = Vec::new();
    let mut created = false;
    if all {
        topics.extend(control.image.topics().map(|t| described(control.options.node_id, t, operations)));
    }
    // As in Kafka each topic is described once, however often it is named.
    let mut seen = HashSet::new();
    for wanted in request.topics.iter().flatten().filter(|_| !all) {
        if !seen.insert((wanted.topic_id, wanted.name.as_ref())) {
            continue;
        }
        let id = TopicId(wanted.topic_id.to_bytes());
        let Some(name) = &wanted.name else {
            topics.push(match control.image.with_id(id) {
                Some(topic) => described(control.options.node_id, topic, operations),
                None => message!(MetadataResponseTopic {
                    error_code: code(ErrorCode::UnknownTopicId),
                    name: None,
                    topic_id: wanted.topic_id
                }),
            });
            continue;
        };
        if let Some(topic) = control.image.named(name) {
            topics.push(described(control.options.node_id, topic, operations));
            continue;
        }
        let may_create = control.options.auto_create && (version < 4 || request.allow_auto_topic_creation);
        let error = match create::check_name(&control.image, name) {
            Err(_) => ErrorCode::InvalidTopicException,
            Ok(()) => {
                if may_create {
                    created |= auto_create(control, call, name);
                }
                ErrorCode::UnknownTopicOrPartition
            }
        };
        topics.push(message!(MetadataResponseTopic {
            error_code: code(error),
            name: Some(name.clone()),
            topic_authorized_operations: i32::MIN
        }));
    }
    let mut response = message!(MetadataResponse {
        brokers: vec![message!(MetadataResponseBroker {
            node_id: control.options.node_id,
            host: text(control.options.host.as_str()),
            port: i32::from(control.options.port),
        })],
        cluster_id: Some(text(control.options.cluster_id.as_str())),
        controller_id: control.options.node_id,
        topics: topics,
    });
    if (8..=10).contains(&version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    let bytes = call.encode(&response)?;
    // The client asks again at once; by then every core knows the topic.
    Ok(if created { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
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

fn described(node_id: i32, topic: &Topic, operations: i32) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).map(|(p, index)| {
        message!(MetadataResponsePartition {
            partition_index: index,
            leader_id: node_id,
            leader_epoch: p.epoch.0,
            replica_nodes: vec![node_id],
            isr_nodes: vec![node_id],
        })
    });
    message!(MetadataResponseTopic {
        name: Some(text(&*topic.name)),
        topic_id: Uuid::from_bytes(topic.id.0),
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: operations,
    })
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
