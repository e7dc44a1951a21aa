//! Primitive types of the protocol, appended to a buffer.

use crate::api::Encoding;
use ringmill_types::TopicId;

/// Appends to `out`, which may hold earlier answers of the same connection.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    encoding: Encoding,
}

impl<'b> Writer<'b> {
    pub fn new(out: &'b mut Vec<u8>, encoding: Encoding) -> Writer<'b> {
        Writer { out, encoding }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes in the buffer, earlier answers included.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    #[inline]
    pub fn i8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn uuid(&mut self, value: TopicId) {
        self.out.extend_from_slice(&value.0);
    }

    #[inline]
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// The count of an array.
    #[inline]
    pub fn array(&mut self, count: usize) {
        let count =
            i32::try_from(count).expect("answers hold what requests asked, and those are below 2 GiB");
        match self.encoding {
            Encoding::Flexible => self.uvarint(count as u32 + 1),
            Encoding::Classic => self.i32(count),
        }
    }

    /// A null array.
    #[inline]
    pub fn null_array(&mut self) {
        match self.encoding {
            Encoding::Flexible => self.uvarint(0),
            Encoding::Classic => self.i32(-1),
        }
    }

    /// The length of bytes that follow, or that the caller sends from elsewhere.
    #[inline]
    pub fn bytes_length(&mut self, length: u32) {
        match self.encoding {
            Encoding::Flexible => self.uvarint(length.saturating_add(1)),
            Encoding::Classic => self.i32(i32::try_from(length).unwrap_or(i32::MAX)),
        }
    }

    /// A string; longer than the protocol can say (32,767 bytes), it is cut at a character. Only messages for people
    /// can be that long, names were checked by whoever made them.
    #[inline]
    pub fn string(&mut self, text: &str) {
        let mut length = text.len().min(i16::MAX as usize);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        match self.encoding {
            Encoding::Flexible => self.uvarint(length as u32 + 1),
            Encoding::Classic => self.i16(length as i16),
        }
        self.out.extend_from_slice(text.as_bytes().get(..length).unwrap_or_default());
    }

    #[inline]
    pub fn nullable_string(&mut self, text: Option<&str>) {
        match (text, self.encoding) {
            (Some(text), _) => self.string(text),
            (None, Encoding::Flexible) => self.uvarint(0),
            (None, Encoding::Classic) => self.i16(-1),
        }
    }

    /// Ends a structure that has no tagged fields. Nothing in the classic encoding.
    #[inline]
    pub fn no_tags(&mut self) {
        self.tag_count(0);
    }

    /// Begins the tagged fields that end a structure. The caller writes them in rising order of tags.
    #[inline]
    pub fn tag_count(&mut self, count: u32) {
        if self.encoding == Encoding::Flexible {
            self.uvarint(count);
        }
    }

    /// A tagged field whose content is already encoded.
    #[inline]
    pub fn tag(&mut self, tag: u32, content: &[u8]) {
        self.uvarint(tag);
        self.uvarint(u32::try_from(content.len()).expect("tagged fields of answers are a few hundred bytes"));
        self.out.extend_from_slice(content);
    }
}
