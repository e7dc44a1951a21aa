//! The client's side of the protocol: Produce 7 and Fetch 4 by name, Produce 13 and Fetch 13 (with sessions) by topic id.

/// Cuts length-prefixed frames out of a stream.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn next(&mut self) -> Option<Vec<u8>> {
        let prefix: [u8; 4] = self.bytes.get(..4)?.try_into().ok()?;
        let end = 4 + u32::from_be_bytes(prefix) as usize;
        let frame = self.bytes.get(4..end)?.to_vec();
        self.bytes.drain(..end);
        Some(frame)
    }
}

/// How a partition is named on the wire.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    pub name: &'a str,
    pub id: [u8; 16],
    pub index: i32,
}

/// Version of the request that names topics by id, or the one that names them by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Name,
    Id,
}

fn request(api: i16, version: i16, correlation: i32, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 18);
    out.extend(((13 + usize::from(flexible) + body.len()) as u32).to_be_bytes());
    out.extend(api.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(correlation.to_be_bytes());
    out.extend(3i16.to_be_bytes());
    out.extend(b"sim");
    if flexible {
        out.push(0);
    }
    out.extend(body);
    out
}

/// A compact length: one more than the length, as a varint.
fn compact(out: &mut Vec<u8>, len: usize) {
    let mut value = len as u64 + 1;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn topic_by_name(out: &mut Vec<u8>, name: &str, partitions: usize) {
    out.extend(1i32.to_be_bytes());
    out.extend((name.len() as i16).to_be_bytes());
    out.extend(name.as_bytes());
    out.extend((partitions as i32).to_be_bytes());
}

/// One batch for each of some partitions of one topic.
pub(crate) fn produce(naming: Naming, correlation: i32, acks: i16, items: &[(Named<'_>, &[u8])]) -> Vec<u8> {
    let Some((first, _)) = items.first() else { return Vec::new() };
    let mut body = Vec::new();
    if naming == Naming::Name {
        body.extend((-1i16).to_be_bytes());
        body.extend(acks.to_be_bytes());
        body.extend(30_000i32.to_be_bytes());
        topic_by_name(&mut body, first.name, items.len());
        for (place, batch) in items {
            body.extend(place.index.to_be_bytes());
            body.extend((batch.len() as i32).to_be_bytes());
            body.extend(*batch);
        }
        return request(0, 7, correlation, false, &body);
    }
    body.push(0);
    body.extend(acks.to_be_bytes());
    body.extend(30_000i32.to_be_bytes());
    compact(&mut body, 1);
    body.extend(first.id);
    compact(&mut body, items.len());
    for (place, batch) in items {
        body.extend(place.index.to_be_bytes());
        compact(&mut body, batch.len());
        body.extend(*batch);
        body.push(0);
    }
    body.extend([0, 0]);
    request(0, 13, correlation, true, &body)
}

/// What is asked of one partition.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub place: Named<'a>,
    pub offset: i64,
    pub max_bytes: i32,
}

/// Fetch 4 of one partition.
pub(crate) fn fetch_by_name(wait_ms: i32, ask: &Ask<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend((-1i32).to_be_bytes());
    body.extend(wait_ms.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend((8i32 << 20).to_be_bytes());
    body.push(0);
    topic_by_name(&mut body, ask.place.name, 1);
    body.extend(ask.place.index.to_be_bytes());
    body.extend(ask.offset.to_be_bytes());
    body.extend(ask.max_bytes.to_be_bytes());
    request(1, 4, 7, false, &body)
}

/// Fetch 13 of some partitions, in a session: `(id, epoch)`.
pub(crate) fn fetch_by_id(wait_ms: i32, max_bytes: i32, session: (i32, i32), asks: &[Ask<'_>]) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    body.extend((-1i32).to_be_bytes());
    body.extend(wait_ms.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend(max_bytes.to_be_bytes());
    body.push(0);
    body.extend(session.0.to_be_bytes());
    body.extend(session.1.to_be_bytes());
    compact(&mut body, asks.len());
    for ask in asks {
        body.extend(ask.place.id);
        compact(&mut body, 1);
        body.extend(ask.place.index.to_be_bytes());
        body.extend((-1i32).to_be_bytes());
        body.extend(ask.offset.to_be_bytes());
        body.extend((-1i32).to_be_bytes());
        body.extend((-1i64).to_be_bytes());
        body.extend(ask.max_bytes.to_be_bytes());
        body.extend([0, 0]);
    }
    // Nothing forgotten, no rack, no tags.
    compact(&mut body, 0);
    compact(&mut body, 0);
    body.push(0);
    request(1, 13, 7, true, &body)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?.first().copied()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A compact length; null counts as nothing.
    fn compact(&mut self) -> Option<usize> {
        Some(self.varint()?.saturating_sub(1) as usize)
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let len = self.varint()? as usize;
            self.take(len)?;
        }
        Some(())
    }

    /// Skips the one topic's name; how many partitions follow.
    fn topic_by_name(&mut self) -> Option<usize> {
        (self.i32()? == 1).then_some(())?;
        let name = self.i16()?;
        self.take(usize::try_from(name).ok()?)?;
        usize::try_from(self.i32()?).ok()
    }
}

/// One partition of an answer to Produce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Produced {
    pub index: i32,
    pub error: i16,
    pub base_offset: i64,
    pub log_append_ms: i64,
}

/// The correlation id, and what is said of each partition.
pub(crate) fn read_produced(naming: Naming, frame: &[u8]) -> Option<(i32, Vec<Produced>)> {
    let mut reader = Reader(frame);
    let correlation = reader.i32()?;
    let mut out = Vec::new();
    let one = |reader: &mut Reader<'_>| {
        let (index, error) = (reader.i32()?, reader.i16()?);
        let (base_offset, log_append_ms) = (reader.i64()?, reader.i64()?);
        reader.i64()?;
        Some(Produced { index, error, base_offset, log_append_ms })
    };
    match naming {
        Naming::Name => {
            for _ in 0..reader.topic_by_name()? {
                out.push(one(&mut reader)?);
            }
        }
        Naming::Id => {
            reader.tags()?;
            for _ in 0..reader.compact()? {
                reader.take(16)?;
                for _ in 0..reader.compact()? {
                    out.push(one(&mut reader)?);
                    for _ in 0..reader.compact()? {
                        reader.i32()?;
                        let len = reader.compact()?;
                        reader.take(len)?;
                        reader.tags()?;
                    }
                    let len = reader.compact()?;
                    reader.take(len)?;
                    reader.tags()?;
                }
                reader.tags()?;
            }
        }
    }
    Some((correlation, out))
}

/// One partition of an answer to Fetch.
pub(crate) struct Fetched<'a> {
    /// `None` by name: only one was asked.
    pub topic: Option<[u8; 16]>,
    pub index: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub log_start: Option<i64>,
    pub records: &'a [u8],
}

/// A whole answer to Fetch.
pub(crate) struct FetchAnswer<'a> {
    pub error: i16,
    pub session_id: i32,
    pub parts: Vec<Fetched<'a>>,
}

pub(crate) fn read_fetched(naming: Naming, frame: &[u8]) -> Option<FetchAnswer<'_>> {
    let mut reader = Reader(frame);
    reader.i32()?;
    if naming == Naming::Name {
        reader.i32()?;
        (reader.topic_by_name()? == 1).then_some(())?;
        let index = reader.i32()?;
        let (error, high_watermark) = (reader.i16()?, reader.i64()?);
        reader.i64()?;
        let aborted = reader.i32()?.max(0);
        reader.take(aborted as usize * 16)?;
        let len = reader.i32()?.max(0);
        let records = reader.take(len as usize)?;
        let part = Fetched { topic: None, index, error, high_watermark, log_start: None, records };
        return Some(FetchAnswer { error: 0, session_id: 0, parts: vec![part] });
    }
    reader.tags()?;
    reader.i32()?;
    let (error, session_id) = (reader.i16()?, reader.i32()?);
    let mut parts = Vec::new();
    for _ in 0..reader.compact()? {
        let topic: [u8; 16] = reader.take(16)?.try_into().ok()?;
        for _ in 0..reader.compact()? {
            let index = reader.i32()?;
            let (error, high_watermark) = (reader.i16()?, reader.i64()?);
            reader.i64()?;
            let log_start = reader.i64()?;
            for _ in 0..reader.compact()? {
                reader.take(16)?;
                reader.tags()?;
            }
            reader.i32()?;
            let len = reader.compact()?;
            let records = reader.take(len)?;
            reader.tags()?;
            let log_start = (log_start >= 0).then_some(log_start);
            parts.push(Fetched { topic: Some(topic), index, error, high_watermark, log_start, records });
        }
        reader.tags()?;
    }
    Some(FetchAnswer { error, session_id, parts })
}
