//! Primitive types of the protocol, read from a borrowed frame.
//!
//! Every method checks before it takes, names the field it was after when it fails, and allocates nothing.

use crate::api::Encoding;
use crate::error::{WireError, WireErrorKind};
use ringmill_types::TopicId;

type Result<T> = std::result::Result<T, WireError>;

/// A position in a frame. Cloning gives a second, independent position.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Position in the frame at which `rest` ends.
    end: usize,
    encoding: Encoding,
}

impl<'a> Reader<'a> {
    /// Reads from byte `at` of `frame`; positions in errors count from the start of `frame`.
    pub fn new(frame: &'a [u8], at: usize, encoding: Encoding) -> Reader<'a> {
        Reader { rest: frame.get(at..).unwrap_or_default(), end: frame.len(), encoding }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes from the start of the frame.
    pub fn position(&self) -> usize {
        self.end - self.rest.len()
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[cold]
    pub(crate) fn error(&self, field: &'static str, kind: WireErrorKind) -> WireError {
        WireError { field, at: self.position(), kind }
    }

    #[inline]
    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(bytes) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.error(field, WireErrorKind::Truncated)),
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.error(field, WireErrorKind::Truncated)),
        }
    }

    #[inline]
    pub fn i8(&mut self, field: &'static str) -> Result<i8> {
        self.fixed(field).map(i8::from_be_bytes)
    }

    /// Whatever is not 0 is true, as in Kafka.
    #[inline]
    pub fn bool(&mut self, field: &'static str) -> Result<bool> {
        Ok(self.i8(field)? != 0)
    }

    #[inline]
    pub fn i16(&mut self, field: &'static str) -> Result<i16> {
        self.fixed(field).map(i16::from_be_bytes)
    }

    #[inline]
    pub fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.fixed(field).map(i32::from_be_bytes)
    }

    #[inline]
    pub fn i64(&mut self, field: &'static str) -> Result<i64> {
        self.fixed(field).map(i64::from_be_bytes)
    }

    #[inline]
    pub fn uuid(&mut self, field: &'static str) -> Result<TopicId> {
        self.fixed(field).map(TopicId)
    }

    /// Unsigned varint of at most five bytes.
    #[inline]
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let Some((byte, rest)) = self.rest.split_first() else {
                return Err(self.error(field, WireErrorKind::Truncated));
            };
            // The fifth byte has room for four bits only, and ends the integer.
            if shift == 28 && *byte > 0x0f {
                break;
            }
            self.rest = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(field, WireErrorKind::Varint))
    }

    /// A compact length: `None` is null, otherwise one less than what is written.
    #[inline]
    fn compact_length(&mut self, field: &'static str) -> Result<Option<usize>> {
        Ok(self.uvarint(field)?.checked_sub(1).map(|length| length as usize))
    }

    #[inline]
    fn classic_length(&self, length: i64, field: &'static str) -> Result<Option<usize>> {
        match length {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(self.error(field, WireErrorKind::NegativeLength(length))),
            },
        }
    }

    /// A 16-bit length and that many bytes, whatever the encoding: the client id in request headers.
    pub fn classic_string_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>> {
        let length = self.i16(field)?;
        match self.classic_length(i64::from(length), field)? {
            Some(length) => self.take(length, field).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    pub fn nullable_string(&mut self, field: &'static str) -> Result<Option<&'a str>> {
        let length = match self.encoding {
            Encoding::Flexible => self.compact_length(field)?,
            Encoding::Classic => {
                let length = self.i16(field)?;
                self.classic_length(i64::from(length), field)?
            }
        };
        let Some(length) = length else { return Ok(None) };
        let bytes = self.take(length, field)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.error(field, WireErrorKind::Utf8)),
        }
    }

    #[inline]
    pub fn string(&mut self, field: &'static str) -> Result<&'a str> {
        self.nullable_string(field)?.ok_or_else(|| self.error(field, WireErrorKind::Null))
    }

    /// Bytes with a 32-bit or compact length: record batches among them.
    #[inline]
    pub fn nullable_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>> {
        let length = match self.encoding {
            Encoding::Flexible => self.compact_length(field)?,
            Encoding::Classic => {
                let length = self.i32(field)?;
                self.classic_length(i64::from(length), field)?
            }
        };
        match length {
            Some(length) => self.take(length, field).map(Some),
            None => Ok(None),
        }
    }

    /// The count of an array that may not be null. `element_bytes_min` is the least one element takes, so a count
    /// that the rest of the frame cannot hold is refused before anything is done with it.
    #[inline]
    pub fn array(&mut self, field: &'static str, element_bytes_min: usize) -> Result<usize> {
        let count = self.nullable_array(field, element_bytes_min)?;
        count.ok_or_else(|| self.error(field, WireErrorKind::Null))
    }

    /// The same of an array that may be null.
    #[inline]
    pub fn nullable_array(&mut self, field: &'static str, element_bytes_min: usize) -> Result<Option<usize>> {
        let count = match self.encoding {
            Encoding::Flexible => self.compact_length(field)?,
            Encoding::Classic => {
                let count = self.i32(field)?;
                self.classic_length(i64::from(count), field)?
            }
        };
        let room = self.rest.len() / element_bytes_min.max(1);
        match count.filter(|count| *count > room) {
            Some(count) => Err(self.error(field, WireErrorKind::Count { count: count as u64, room })),
            None => Ok(count),
        }
    }

    /// Passes over the tagged fields that end a structure. Nothing in the classic encoding.
    #[inline]
    pub fn skip_tags(&mut self, field: &'static str) -> Result<()> {
        self.tags(field, |_, _| Ok(false))
    }

    /// Reads the tagged fields that end a structure. `known` gets each tag with a reader of its content alone, and
    /// says whether it read it; content it did not read is passed over.
    #[inline]
    pub fn tags(
        &mut self,
        field: &'static str,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<bool>,
    ) -> Result<()> {
        if self.encoding == Encoding::Classic {
            return Ok(());
        }
        let count = self.uvarint(field)?;
        for _ in 0..count {
            let tag = self.uvarint(field)?;
            let length = self.uvarint(field)? as usize;
            let start = self.position();
            let content = self.take(length, field)?;
            let mut inner = Reader { rest: content, end: start + length, encoding: self.encoding };
            if known(tag, &mut inner)? && inner.remaining() > 0 {
                return Err(inner.error(field, WireErrorKind::TagRest(inner.remaining())));
            }
        }
        Ok(())
    }
}
