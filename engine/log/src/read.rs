//! Reads: the newest data from the tail ring, older data from cache blocks. Always whole batches, never past the high
//! watermark.

use crate::log::{Log, Slot};
use ringmill_reactor::{Backend, Buf};
use ringmill_types::Offset;

/// One partition's part of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub slot: Slot,
    pub offset: Offset,
    pub max_bytes: usize,
    /// Return the first batch even when it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// Comes back in [`crate::LogEvent::Block`] when a cold read should be tried again.
    pub ticket: u64,
}

/// What a read gives.
pub enum ReadOutcome {
    /// Whole batches in offset order; empty at the end of the log. The first may begin before the asked offset. `more`:
    /// others follow that the limits of this read left out.
    Data { bufs: Vec<Buf>, bytes: usize, more: bool },
    /// Blocks are on their way; [`crate::LogEvent::Block`] with the ticket follows.
    Wait,
}

impl ReadOutcome {
    /// There is nothing for the reader yet.
    pub(crate) const NOTHING: ReadOutcome = ReadOutcome::Data { bufs: Vec::new(), bytes: 0, more: false };
}

/// Why a read gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    Unknown,
    /// Below the log start or above the log end.
    OutOfRange,
    /// The partition's disk failed.
    Offline,
}

impl Log {
    /// Reads from `offset` up to the high watermark.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read<B: Backend>(&mut self, io: &mut B, request: ReadRequest) -> Result<ReadOutcome, ReadError> {
        let part = self.parts.get_mut(request.slot.0).filter(|p| !p.deleted).ok_or(ReadError::Unknown)?;
        if request.offset < part.log_start || request.offset > part.log_end {
            return Err(ReadError::OutOfRange);
        }
        let nothing_wanted = request.max_bytes == 0 && !request.at_least_one;
        if request.offset >= part.high_watermark || nothing_wanted {
            return Ok(ReadOutcome::NOTHING);
        }
        if request.offset < part.tail_start() {
            if part.offline.is_some() {
                return Err(ReadError::Offline);
            }
            let outcome = self.read_cold(io, request)?;
            if let (ReadOutcome::Data { bytes, .. }, Some(part)) =
                (&outcome, self.parts.get_mut(request.slot.0))
            {
                part.bytes_out += *bytes as u64;
            }
            return Ok(outcome);
        }
        let mut bufs = Vec::new();
        let (mut bytes, mut more) = (0, false);
        for entry in
            part.tail.iter().skip(part.tail_at(request.offset)).take_while(|e| e.last < part.high_watermark)
        {
            if bytes + entry.buf.len() > request.max_bytes && !(bytes == 0 && request.at_least_one) {
                more = true;
                break;
            }
            bytes += entry.buf.len();
            bufs.push(entry.buf.clone());
        }
        part.bytes_out += bytes as u64;
        Ok(ReadOutcome::Data { bufs, bytes, more })
    }
}
