//! InitProducerId: ids for idempotent producers, from journaled blocks.

use super::{Call, Outcome, Refusal, code, message};
use crate::control::Control;
use kafka_wire::{InitProducerIdRequest, InitProducerIdResponse};
use ringmill_metadata::Record;
use ringmill_types::ErrorCode;

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
