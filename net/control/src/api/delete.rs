//! DeleteTopics, by name and by id.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::delete_topics_response::DeletableTopicResult;
use kafka_wire::{DeleteTopicsRequest, DeleteTopicsResponse};
use kafka_wire_core::{StrBytes, Uuid};
use ringmill_metadata::Record;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::HashSet;

/// From this version on a client understands `THROTTLING_QUOTA_EXCEEDED`.
const STRICT_SINCE: i16 = 5;

pub(crate) fn delete_topics(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DeleteTopicsRequest = call.decode()?;
    let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::ZERO));
    let either = request.topics.iter().map(|t| (t.name.clone(), t.topic_id));
    let wanted: Vec<(Option<StrBytes>, Uuid)> = by_name.chain(either).collect();
    let mut results = Vec::new();
    let (mut records, mut gone) = (Vec::new(), HashSet::new());
    let mut seen = HashSet::new();
    let on = call.on_account(control, STRICT_SINCE);
    for (name, id) in &wanted {
        let repeated = !seen.insert((name, id.to_bytes()));
        let found = match name {
            Some(name) => control.image.named(name),
            None => control.image.with_id(TopicId(id.to_bytes())),
        }
        .map(|t| (t.id, t.name.clone(), t.partitions.len()));
        let (error, reason) = if repeated {
            (ErrorCode::InvalidRequest, Some("Duplicate topic name."))
        } else if name.is_some() && !id.is_zero() {
            (ErrorCode::InvalidRequest, Some("You may not specify both topic name and topic id."))
        } else if !control.options.delete_topics {
            (ErrorCode::TopicDeletionDisabled, Some("Topic deletion is disabled."))
        } else {
            match &found {
                None if name.is_some() => (
                    ErrorCode::UnknownTopicOrPartition,
                    Some("This server does not host this topic-partition."),
                ),
                None => (ErrorCode::UnknownTopicId, Some("This server does not host this topic ID.")),
                // A topic may be named by its id too.
                Some((id, ..)) if gone.contains(id) => (
                    ErrorCode::UnknownTopicOrPartition,
                    Some("This server does not host this topic-partition."),
                ),
                Some((id, _, partitions)) => match control.charge_mutations(&on, *partitions) {
                    Ok(()) => {
                        gone.insert(*id);
                        records.push(Record::TopicDeleted { id: *id });
                        (ErrorCode::None, None)
                    }
                    Err(error) => (error, None),
                },
            }
        };
        let (shown_id, shown_name) = match &found {
            Some((found, name, _)) if error == ErrorCode::None => {
                (Uuid::from_bytes(found.0), Some(text(&**name)))
            }
            Some(_) | None => (*id, name.clone()),
        };
        results.push(message!(DeletableTopicResult {
            name: shown_name,
            topic_id: shown_id,
            error_code: code(error),
            error_message: reason.map(text)
        }));
    }
    // All in one: each decision costs a sync of the journal.
    if !records.is_empty()
        && let Err(error) = control.decide(&records)
    {
        tracing::error!(%error, "topics could not be deleted");
        for result in results.iter_mut().filter(|r: &&mut DeletableTopicResult| r.error_code == 0) {
            result.error_code = code(ErrorCode::KafkaStorageError);
            result.error_message = Some(text("the metadata journal could not be written"));
        }
        records.clear();
    }
    let bytes = call.encode(&message!(DeleteTopicsResponse { responses: results }))?;
    Ok(if !records.is_empty() { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}
