//! InitProducerId: ids for idempotent producers, from journaled blocks. DescribeProducers: who used them where.

use super::offsets::answer_or_log;
use super::{Call, Finish, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_wire::{
    DescribeProducersRequest, DescribeProducersResponse, InitProducerIdRequest, InitProducerIdResponse,
};
use ringmill_core::{CoreQuery, CoreReply, ProducerView};
use ringmill_metadata::Record;
use ringmill_types::{CoreId, ErrorCode, PartitionId, topic_name};
use std::collections::BTreeMap;

/// Ids per journal record, as many as Kafka's controller gives out at once.
const BLOCK: i64 = 1000;

pub(crate) fn init_producer_id(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: InitProducerIdRequest = call.decode()?;
    let refused = |error| {
        message!(InitProducerIdResponse { error_code: code(error), producer_id: -1, producer_epoch: -1 })
    };
    let response = match request.transactional_id.as_deref() {
        Some("") => refused(ErrorCode::InvalidRequest),
        // There is no transaction coordinator yet. This is the one code that every client treats as final, so the
        // application hears of it at once instead of retrying for a minute (kernel-notes/decisions).
        Some(_) => refused(ErrorCode::TransactionalIdAuthorizationFailed),
        None => match next_id(control) {
            Ok(id) => message!(InitProducerIdResponse { producer_id: id, producer_epoch: 0 }),
            Err(error) => {
                tracing::error!(%error, "no producer id could be given out");
                refused(ErrorCode::CoordinatorNotAvailable)
            }
        },
    };
    Ok(Outcome::Now(call.encode(&response)?))
}

fn next_id(control: &mut Control) -> Result<i64, ringmill_metadata::JournalError> {
    if control.producer_next >= control.image.next_producer() {
        control.producer_next = control.image.next_producer();
        control.decide(&[Record::ProducerIds { next: control.producer_next + BLOCK }])?;
    }
    control.producer_next += 1;
    Ok(control.producer_next - 1)
}

/// Partitions of one core, and where its answers go: topic and partition by their places in the request.
type Asked = (Vec<PartitionId>, Vec<(usize, usize)>);

/// DescribeProducers: whom the partition's log remembers.
pub(crate) fn describe_producers(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeProducersRequest = call.decode()?;
    call.few(request.topics.iter().map(|t| t.partition_indexes.len()))?;
    let head = call.header.response_head();
    let mut asked: BTreeMap<CoreId, Asked> = BTreeMap::new();
    let mut topics = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let found = control.image.named(&topic.name);
        // A bad name is explained, and so is an unknown topic; an unknown partition of a topic is not.
        let refused = match (found, topic_name::check(&topic.name)) {
            (Some(_), _) => None,
            (None, Err(bad)) => Some((ErrorCode::InvalidTopicException, bad.to_string())),
            (None, Ok(())) => Some((
                ErrorCode::UnknownTopicOrPartition,
                "This server does not host this topic-partition.".to_string(),
            )),
        };
        let mut partitions = Vec::new();
        for (p, index) in topic.partition_indexes.iter().enumerate() {
            let place =
                usize::try_from(*index).ok().and_then(|at| found.and_then(|topic| topic.partitions.get(at)));
            let error = match (place, &refused) {
                (Some(place), _) => {
                    let (queries, places) = asked.entry(place.core).or_default();
                    queries.push(place.id);
                    places.push((t, p));
                    // A core that does not reply leaves this.
                    ErrorCode::RequestTimedOut
                }
                (None, Some((error, _))) => *error,
                (None, None) => ErrorCode::UnknownTopicOrPartition,
            };
            partitions.push(message!(PartitionResponse {
                partition_index: *index,
                error_code: code(error),
                error_message: refused.as_ref().map(|(_, reason)| text(reason.as_str())),
            }));
        }
        topics.push(message!(TopicResponse { name: topic.name.clone(), partitions: partitions }));
    }
    let (mut queries, mut places) = (Vec::new(), Vec::new());
    for (core, (list, at)) in asked {
        queries.push((core, CoreQuery::Producers(list)));
        places.push(at);
    }
    let finish: Finish = Box::new(move |mut replies| {
        for (ordinal, places) in (0..).zip(places) {
            let Some(CoreReply::Producers(list)) = replies.remove(&ordinal) else { continue };
            for ((t, p), reply) in places.into_iter().zip(list) {
                let place =
                    topics.get_mut(t).and_then(|topic: &mut TopicResponse| topic.partitions.get_mut(p));
                let Some(answer) = place else { continue };
                match reply {
                    Ok(mut producers) => {
                        producers.sort_unstable_by_key(|producer| producer.id);
                        answer.error_code = code(ErrorCode::None);
                        answer.active_producers = producers.into_iter().map(shown).collect();
                    }
                    Err(error) => answer.error_code = code(error),
                }
            }
        }
        answer_or_log(head, &message!(DescribeProducersResponse { topics: topics }))
    });
    Ok(Outcome::Ask(queries, finish))
}

/// Without transactions there is no coordinator and nothing begun.
fn shown(producer: ProducerView) -> ProducerState {
    message!(ProducerState {
        producer_id: producer.id.0,
        producer_epoch: i32::from(producer.epoch.0),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_ms,
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
    })
}
