//! Reads for control: what it keeps in topics of its own and takes back at start.

use crate::core::Core;
use crate::messages::{ControlMessage, CoreReply, ReadReply};
use ringmill_log::{ReadError, ReadOutcome, ReadRequest};
use ringmill_reactor::Backend;
use ringmill_types::{ErrorCode, Offset, PartitionId};

/// Marks the tickets of these reads; fetches have at most 56 bits.
const CONTROL_TICKET: u64 = 1 << 56;

/// A read that control asked for, kept while its blocks are on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlRead {
    pub id: u64,
    pub partition: PartitionId,
    pub offset: Offset,
    pub max_bytes: usize,
}

impl<B: Backend> Core<B> {
    pub(crate) fn read_for_control(&mut self, read: ControlRead) {
        let reply = match self.try_read(read) {
            Ok(Some(reply)) => Ok(reply),
            // Its block's arrival makes it look again.
            Ok(None) => {
                self.control_reads.insert(CONTROL_TICKET | read.id, read);
                return;
            }
            Err(error) => Err(error),
        };
        let core = self.settings.id;
        self.tell_control(ControlMessage::Reply { core, id: read.id, reply: CoreReply::Read(reply) });
    }

    /// A block is there. False when no read of control waits for it.
    pub(crate) fn control_block_ready(&mut self, ticket: u64) -> bool {
        let Some(read) = self.control_reads.remove(&ticket) else { return false };
        self.read_for_control(read);
        true
    }

    fn try_read(&mut self, read: ControlRead) -> Result<Option<ReadReply>, ErrorCode> {
        let slot = self.log.slot_of(read.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let view = self.log.view(slot).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let request = ReadRequest {
            slot,
            offset: read.offset.max(view.log_start),
            max_bytes: read.max_bytes,
            at_least_one: true,
            ticket: CONTROL_TICKET | read.id,
        };
        match self.log.read(&mut self.io, request) {
            Ok(ReadOutcome::Data { bufs, .. }) => {
                let batches = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
                Ok(Some(ReadReply { high_watermark: view.high_watermark, batches }))
            }
            Ok(ReadOutcome::Wait) => Ok(None),
            Err(ReadError::Unknown) => Err(ErrorCode::UnknownTopicOrPartition),
            Err(ReadError::OutOfRange) => Err(ErrorCode::OffsetOutOfRange),
            Err(ReadError::Offline) => Err(ErrorCode::KafkaStorageError),
        }
    }
}
