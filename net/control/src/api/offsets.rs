//! ListOffsets and OffsetForLeaderEpoch: the owner of a partition answers, control collects.

use super::{Answered, Call, Finish, Outcome, Refusal, Reply, code, encode, message};
use crate::control::Control;
use kafka_wire::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_wire::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_wire::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use ringmill_core::{CoreQuery, CoreReply, OffsetQuery};
use ringmill_metadata::{Image, PartitionRecord};
use ringmill_types::{CoreId, ErrorCode, LeaderEpoch};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Timestamps below 0 ask for a place in the log instead, each from a version of ListOffsets on.
const PLACES_SINCE: [(i64, i16); 6] = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)];

fn is_known(timestamp: i64, version: i16) -> bool {
    timestamp >= 0 || PLACES_SINCE.iter().any(|(place, since)| *place == timestamp && version >= *since)
}

/// Queries to one core, and where their answers go: topic and partition by their places in the answer.
type Asked = (Vec<OffsetQuery>, Vec<(usize, usize)>);

fn find(image: &Image, topic: &str, index: i32) -> Option<PartitionRecord> {
    image.named(topic)?.partitions.get(usize::try_from(index).ok()?).copied()
}

pub(crate) fn list_offsets(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: ListOffsetsRequest = call.decode()?;
    let head = call.header.response_head();
    let mut topics = Vec::new();
    let mut asked: BTreeMap<CoreId, Asked> = BTreeMap::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let mut partitions = Vec::new();
        let mut times: HashMap<i32, usize> = HashMap::new();
        topic.partitions.iter().for_each(|p| *times.entry(p.partition_index).or_default() += 1);
        let mut refused = HashSet::new();
        for wanted in &topic.partitions {
            let repeated = times.get(&wanted.partition_index).is_some_and(|times| *times > 1);
            if repeated && !refused.insert(wanted.partition_index) {
                continue;
            }
            let mut answer = message!(ListOffsetsPartitionResponse {
                partition_index: wanted.partition_index,
                timestamp: -1,
                offset: -1,
                leader_epoch: -1
            });
            match find(&control.image, &topic.name, wanted.partition_index) {
                _ if repeated => answer.error_code = code(ErrorCode::InvalidRequest),
                _ if !is_known(wanted.timestamp, head.api_version) => {
                    answer.error_code = code(ErrorCode::UnsupportedVersion);
                }
                None => answer.error_code = code(ErrorCode::UnknownTopicOrPartition),
                Some(partition) => {
                    // Filled by the owner; a core that does not answer leaves this.
                    answer.error_code = code(ErrorCode::RequestTimedOut);
                    let (queries, places) = asked.entry(partition.core).or_default();
                    let current_epoch = LeaderEpoch(wanted.current_leader_epoch);
                    queries.push(OffsetQuery {
                        partition: partition.id,
                        current_epoch,
                        timestamp: wanted.timestamp,
                    });
                    places.push((t, partitions.len()));
                }
            }
            partitions.push(answer);
        }
        topics.push(message!(ListOffsetsTopicResponse { name: topic.name.clone(), partitions: partitions }));
    }
    let mut places = Vec::new();
    let mut queries = Vec::new();
    for (core, (list, at)) in asked {
        queries.push((core, CoreQuery::Offsets(list)));
        places.push(at);
    }
    let finish: Finish = Box::new(move |mut replies| {
        for (ordinal, places) in (0..).zip(places) {
            let Some(CoreReply::Offsets(list)) = replies.remove(&ordinal) else { continue };
            for ((t, p), reply) in places.into_iter().zip(list) {
                let Some(answer) = topics
                    .get_mut(t)
                    .and_then(|topic: &mut ListOffsetsTopicResponse| topic.partitions.get_mut(p))
                else {
                    continue;
                };
                answer.error_code = code(reply.error);
                answer.offset = reply.offset.0;
                answer.timestamp = reply.timestamp;
                // The field came with version 4.
                answer.leader_epoch = if head.api_version >= 4 { reply.epoch.0 } else { -1 };
            }
        }
        answer_or_log(head, &message!(ListOffsetsResponse { topics: topics }))
    });
    Ok(Outcome::Ask(queries, finish))
}

pub(crate) fn offset_for_leader_epoch(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: OffsetForLeaderEpochRequest = call.decode()?;
    call.few(request.topics.iter().map(|t| t.partitions.len()))?;
    let head = call.header.response_head();
    let mut topics = Vec::new();
    let mut queries = Vec::new();
    let mut places = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let mut partitions = Vec::new();
        for (p, wanted) in topic.partitions.iter().enumerate() {
            let mut answer =
                message!(EpochEndOffset { partition: wanted.partition, leader_epoch: -1, end_offset: -1 });
            match find(&control.image, &topic.topic, wanted.partition) {
                None => answer.error_code = code(ErrorCode::UnknownTopicOrPartition),
                Some(partition) => {
                    answer.error_code = code(ErrorCode::RequestTimedOut);
                    let query = CoreQuery::EpochEnd {
                        partition: partition.id,
                        current_epoch: LeaderEpoch(wanted.current_leader_epoch),
                        epoch: LeaderEpoch(wanted.leader_epoch),
                    };
                    queries.push((partition.core, query));
                    places.push((t, p));
                }
            }
            partitions.push(answer);
        }
        topics.push(message!(OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: partitions
        }));
    }
    let finish: Finish = Box::new(move |mut replies| {
        for (ordinal, (t, p)) in (0..).zip(places) {
            let Some(CoreReply::EpochEnd { error, epoch, end }) = replies.remove(&ordinal) else { continue };
            let Some(answer) = topics
                .get_mut(t)
                .and_then(|topic: &mut OffsetForLeaderTopicResult| topic.partitions.get_mut(p))
            else {
                continue;
            };
            answer.error_code = code(error);
            answer.leader_epoch = epoch.0;
            answer.end_offset = end.0;
        }
        answer_or_log(head, &message!(OffsetForLeaderEpochResponse { topics: topics }))
    });
    Ok(Outcome::Ask(queries, finish))
}

/// Encodes a collected answer. That cannot fail for what handlers build; if it does, the client sees an empty frame and
/// the log says why.
pub(crate) fn answer_or_log<T: kafka_wire_core::KafkaEncode + Answered>(
    head: ringmill_wire::ResponseHead,
    response: &T,
) -> Reply {
    encode(head, response).unwrap_or_else(|reason| {
        tracing::error!(reason, "an answer could not be encoded");
        Reply { bytes: head.correlation_id.to_be_bytes().to_vec(), failed: true }
    })
}
