//! OffsetFetch: committed offsets, as far as they are durable. Answered at once.

use super::group_views::each_once;
use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_wire::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_wire::{OffsetFetchRequest, OffsetFetchResponse};
use kafka_wire_core::Uuid;
use ringmill_groups::{Groups, OffsetEntry};
use ringmill_metadata::Image;
use ringmill_types::limits::REQUEST_ITEMS_MAX;
use ringmill_types::{ErrorCode, TopicId};

/// From this version on a request names several groups.
const GROUPS_FROM: i16 = 8;
/// From this version on a member of the consumer protocol says who it is.
const MEMBERS_FROM: i16 = 9;
/// From this version on topics have ids instead of names.
const IDS_FROM: i16 = 10;

pub(crate) fn offset_fetch(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: OffsetFetchRequest = call.decode()?;
    let version = call.version();
    let groups = request.groups.iter().flat_map(|group| group.topics.iter().flatten());
    call.few(groups.map(|t| t.partition_indexes.len()))?;
    call.few(request.topics.iter().flatten().map(|t| t.partition_indexes.len()))?;
    let response = if version >= GROUPS_FROM {
        let mut offsets = 0;
        let groups = each_once(&request.groups, |group| &group.group_id).map(|group| {
            // Enough for one answer: who asked comes again for the rest, as to a coordinator that is not ready.
            if offsets >= REQUEST_ITEMS_MAX {
                return failed_group(group, ErrorCode::CoordinatorLoadInProgress);
            }
            let fetched = fetched(control, group, version);
            offsets += 1 + fetched.topics.iter().map(|t| t.partitions.len()).sum::<usize>();
            fetched
        });
        message!(OffsetFetchResponse { groups: groups.collect() })
    } else {
        let topics = request.topics.as_ref().map(|topics| {
            let topics = topics.iter().map(|t| {
                message!(OffsetFetchRequestTopics {
                    name: t.name.clone(),
                    partition_indexes: t.partition_indexes.clone(),
                })
            });
            topics.collect()
        });
        let group = message!(OffsetFetchRequestGroup { group_id: request.group_id.clone(), topics: topics });
        let mut fetched = fetched(control, &group, version);
        if version < 2
            && fetched.error_code != 0
            && let Some(topics) = &group.topics
        {
            // The oldest version has no place for an error but the partitions.
            fetched.topics = topics.iter().map(|t| failed(t, fetched.error_code)).collect();
        }
        let mut response =
            message!(OffsetFetchResponse { topics: fetched.topics.into_iter().map(old_form).collect() });
        if version >= 2 {
            response.error_code = fetched.error_code;
        }
        response
    };
    Ok(Outcome::Now(call.encode(&response)?))
}

fn failed_group(group: &OffsetFetchRequestGroup, error: ErrorCode) -> OffsetFetchResponseGroup {
    message!(OffsetFetchResponseGroup { group_id: group.group_id.clone(), error_code: code(error) })
}

fn fetched(control: &Control, group: &OffsetFetchRequestGroup, version: i16) -> OffsetFetchResponseGroup {
    let groups = match control.groups.groups() {
        Ok(groups) => groups,
        Err(error) => return failed_group(group, error),
    };
    if version >= MEMBERS_FROM
        && let Err(error) =
            groups.check_fetch(&group.group_id, group.member_id.as_deref(), group.member_epoch)
    {
        return failed_group(group, error);
    }
    let topics = match &group.topics {
        Some(topics) => {
            topics.iter().map(|t| wanted(groups, &control.image, &group.group_id, t, version)).collect()
        }
        None => all(groups, &control.image, &group.group_id, version),
    };
    message!(OffsetFetchResponseGroup { group_id: group.group_id.clone(), topics: topics })
}

fn wanted(
    groups: &Groups,
    image: &Image,
    group: &str,
    topic: &OffsetFetchRequestTopics,
    version: i16,
) -> OffsetFetchResponseTopics {
    let mut name = topic.name.to_string();
    if version >= IDS_FROM {
        let Some(known) = image.with_id(TopicId(topic.topic_id.to_bytes())) else {
            let mut answer = failed(topic, code(ErrorCode::UnknownTopicId));
            answer.topic_id = topic.topic_id;
            return answer;
        };
        name = known.name.to_string();
    }
    let partitions = topic.partition_indexes.iter();
    let partitions = partitions.map(|index| shown(*index, groups.offset(group, &name, *index), version));
    let mut answer = message!(OffsetFetchResponseTopics { partitions: partitions.collect() });
    if version >= IDS_FROM {
        answer.topic_id = topic.topic_id;
    } else {
        answer.name = topic.name.clone();
    }
    answer
}

/// Everything the group has committed. Offsets of topics that are gone have no id to be shown under.
fn all(groups: &Groups, image: &Image, group: &str, version: i16) -> Vec<OffsetFetchResponseTopics> {
    let mut topics = Vec::new();
    for (name, partitions) in groups.offsets(group).into_iter().flatten() {
        let partitions = partitions.iter().map(|(index, entry)| shown(*index, Some(entry), version));
        let mut answer = message!(OffsetFetchResponseTopics { partitions: partitions.collect() });
        if version >= IDS_FROM {
            let Some(topic) = image.named(name) else { continue };
            answer.topic_id = Uuid::from_bytes(topic.id.0);
        } else {
            answer.name = text(&**name);
        }
        topics.push(answer);
    }
    topics
}

/// Nothing committed is -1 and no error.
fn shown(index: i32, entry: Option<&OffsetEntry>, version: i16) -> OffsetFetchResponsePartitions {
    let mut answer = message!(OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: entry.map_or(-1, |e| e.offset),
        metadata: Some(text(entry.map_or("", |e| e.metadata.as_str()))),
    });
    // The field came with version 5.
    answer.committed_leader_epoch = if version >= 5 { entry.map_or(-1, |e| e.leader_epoch) } else { -1 };
    answer
}

fn failed(topic: &OffsetFetchRequestTopics, error_code: i16) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|index| {
        message!(OffsetFetchResponsePartitions {
            partition_index: *index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(text("")),
            error_code: error_code,
        })
    });
    message!(OffsetFetchResponseTopics { name: topic.name.clone(), partitions: partitions.collect() })
}

fn old_form(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|p| {
        message!(OffsetFetchResponsePartition {
            partition_index: p.partition_index,
            committed_offset: p.committed_offset,
            committed_leader_epoch: p.committed_leader_epoch,
            metadata: p.metadata,
            error_code: p.error_code,
        })
    });
    message!(OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() })
}
