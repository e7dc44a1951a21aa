//! OffsetCommit and OffsetDelete. Topics and partitions that do not exist are answered here, the rest by the coordinator.

use super::offsets::answer_or_log;
use super::{Call, Outcome, Refusal, code, message};
use crate::control::Control;
use kafka_wire::offset_commit_request::OffsetCommitRequestPartition;
use kafka_wire::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_wire::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_wire::{OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse};
use ringmill_groups::{Answer, Commit, CommitOffset, DeleteOffsets, Event};
use ringmill_metadata::Topic;
use ringmill_types::{ErrorCode, TopicId};

/// The last version that names topics.
const NAMES_UNTIL: i16 = 9;

fn has(topic: Option<&Topic>, partition: i32) -> bool {
    topic.is_some_and(|t| usize::try_from(partition).is_ok_and(|at| at < t.partitions.len()))
}

pub(crate) fn offset_commit(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: OffsetCommitRequest = call.decode()?;
    call.few(request.topics.iter().map(|t| t.partitions.len()))?;
    let (head, version) = (call.header.response_head(), call.version());
    control.ensure_offsets_topic();
    let mut commit = Commit {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(ToString::to_string),
        generation: request.generation_id_or_member_epoch,
        knows_epochs: version >= 9,
        retention_ms: (version <= 4 && request.retention_time_ms >= 0).then_some(request.retention_time_ms),
        offsets: Vec::new(),
        says_group_not_found: version >= 9,
    };
    let mut topics = Vec::new();
    // Where the coordinator's results go, in the order of its offsets.
    let mut places = Vec::new();
    for (t, wanted) in request.topics.iter().enumerate() {
        let by_name = version <= NAMES_UNTIL;
        let topic = if by_name {
            control.image.named(&wanted.name)
        } else {
            control.image.with_id(TopicId(wanted.topic_id.to_bytes()))
        };
        let mut partitions = Vec::new();
        for (p, one) in wanted.partitions.iter().enumerate() {
            let mut answer = message!(OffsetCommitResponsePartition { partition_index: one.partition_index });
            match topic {
                Some(topic) if has(Some(topic), one.partition_index) => {
                    places.push((t, p));
                    commit.offsets.push(to_commit(topic, one));
                }
                None if !by_name => answer.error_code = code(ErrorCode::UnknownTopicId),
                _ => answer.error_code = code(ErrorCode::UnknownTopicOrPartition),
            }
            partitions.push(answer);
        }
        let mut answer = message!(OffsetCommitResponseTopic { partitions: partitions });
        if by_name {
            answer.name = wanted.name.clone();
        } else {
            answer.topic_id = wanted.topic_id;
        }
        topics.push(answer);
    }
    let mut response = message!(OffsetCommitResponse { topics: topics });
    if commit.offsets.is_empty() {
        return Ok(Outcome::Now(call.encode(&response)?));
    }
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::Commit(ticket, commit)),
        Box::new(move |result| {
            for ((t, p), error) in places.iter().zip(codes_of(result, places.len())) {
                if let Some(answer) = response.topics.get_mut(*t).and_then(|t| t.partitions.get_mut(*p)) {
                    answer.error_code = code(error);
                }
            }
            answer_or_log(head, &response)
        }),
    ))
}

fn to_commit(topic: &Topic, asked: &OffsetCommitRequestPartition) -> CommitOffset {
    let metadata = asked.committed_metadata.as_ref();
    CommitOffset {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition: asked.partition_index,
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: metadata.map(ToString::to_string).unwrap_or_default(),
    }
}

/// What each of `count` offsets is answered with, in the order they were given to the coordinator.
fn codes_of(result: Result<Answer, ErrorCode>, count: usize) -> Vec<ErrorCode> {
    match result {
        Ok(Answer::Commit(results)) => results.into_iter().map(|(_, _, error)| as_commit(error)).collect(),
        Err(error) => vec![error; count],
        Ok(_) => vec![ErrorCode::UnknownServerError; count],
    }
}

/// Records that no batch can take are the client's fault here: it sent them.
fn as_commit(error: ErrorCode) -> ErrorCode {
    if error == ErrorCode::UnknownServerError { ErrorCode::InvalidCommitOffsetSize } else { error }
}

pub(crate) fn offset_delete(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: OffsetDeleteRequest = call.decode()?;
    call.few(request.topics.iter().map(|t| t.partitions.len()))?;
    let head = call.header.response_head();
    let mut delete = DeleteOffsets { group: request.group_id.to_string(), partitions: Vec::new() };
    let mut topics = Vec::new();
    let mut places = Vec::new();
    for (t, wanted) in request.topics.iter().enumerate() {
        let topic = control.image.named(&wanted.name);
        let mut partitions = Vec::new();
        for (p, one) in wanted.partitions.iter().enumerate() {
            let mut answer = message!(OffsetDeleteResponsePartition { partition_index: one.partition_index });
            match topic {
                Some(topic) if has(Some(topic), one.partition_index) => {
                    places.push((t, p));
                    delete.partitions.push((topic.name.clone(), one.partition_index));
                }
                Some(_) | None => answer.error_code = code(ErrorCode::UnknownTopicOrPartition),
            }
            partitions.push(answer);
        }
        topics
            .push(message!(OffsetDeleteResponseTopic { name: wanted.name.clone(), partitions: partitions }));
    }
    let mut response = message!(OffsetDeleteResponse { topics: topics });
    Ok(Outcome::Coordinate(
        Box::new(|ticket| Event::DeleteOffsets(ticket, delete)),
        Box::new(move |result| {
            let error = match &result {
                Ok(Answer::DeleteOffsets(error, _)) => *error,
                Err(error) => *error,
                Ok(_) => ErrorCode::UnknownServerError,
            };
            if let Ok(Answer::DeleteOffsets(ErrorCode::None, results)) = result {
                for ((t, p), (_, _, error)) in places.into_iter().zip(results) {
                    if let Some(answer) = response.topics.get_mut(t).and_then(|t| t.partitions.get_mut(p)) {
                        answer.error_code = code(error);
                    }
                }
            } else {
                response = message!(OffsetDeleteResponse { error_code: code(error) });
            }
            answer_or_log(head, &response)
        }),
    ))
}
