//! The client's side of the protocol: Produce 7 and Fetch 4 requests, and their answers.

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

fn request(api: i16, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 17);
    out.extend(((13 + body.len()) as u32).to_be_bytes());
    out.extend(api.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(correlation.to_be_bytes());
    out.extend(3i16.to_be_bytes());
    out.extend(b"sim");
    out.extend(body);
    out
}

fn topic(out: &mut Vec<u8>, name: &str, partition: i32) {
    out.extend(1i32.to_be_bytes());
    out.extend((name.len() as i16).to_be_bytes());
    out.extend(name.as_bytes());
    out.extend(1i32.to_be_bytes());
    out.extend(partition.to_be_bytes());
}

pub(crate) fn produce(correlation: i32, acks: i16, name: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.len() + 64);
    body.extend((-1i16).to_be_bytes());
    body.extend(acks.to_be_bytes());
    body.extend(30_000i32.to_be_bytes());
    topic(&mut body, name, partition);
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    request(0, 7, correlation, &body)
}

pub(crate) fn fetch(
    correlation: i32,
    wait_ms: i32,
    name: &str,
    partition: i32,
    offset: i64,
    max: i32,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend((-1i32).to_be_bytes());
    body.extend(wait_ms.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend((8i32 << 20).to_be_bytes());
    body.push(0);
    topic(&mut body, name, partition);
    body.extend(offset.to_be_bytes());
    body.extend(max.to_be_bytes());
    request(1, 4, correlation, &body)
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

    /// Skips the one topic's name; true when one topic with one partition follows.
    fn topic(&mut self) -> Option<()> {
        (self.i32()? == 1).then_some(())?;
        let name = self.i16()?;
        self.take(usize::try_from(name).ok()?)?;
        (self.i32()? == 1).then_some(())
    }
}

pub(crate) struct Produced {
    pub correlation: i32,
    pub error: i16,
    pub base_offset: i64,
}

pub(crate) fn read_produced(frame: &[u8]) -> Option<Produced> {
    let mut reader = Reader(frame);
    let correlation = reader.i32()?;
    reader.topic()?;
    reader.i32()?;
    Some(Produced { correlation, error: reader.i16()?, base_offset: reader.i64()? })
}

pub(crate) struct Fetched<'a> {
    pub error: i16,
    pub high_watermark: i64,
    pub records: &'a [u8],
}

pub(crate) fn read_fetched(frame: &[u8]) -> Option<Fetched<'_>> {
    let mut reader = Reader(frame);
    reader.i32()?;
    reader.i32()?;
    reader.topic()?;
    reader.i32()?;
    let (error, high_watermark) = (reader.i16()?, reader.i64()?);
    reader.i64()?;
    let aborted = reader.i32()?.max(0);
    reader.take(aborted as usize * 16)?;
    let len = reader.i32()?.max(0);
    Some(Fetched { error, high_watermark, records: reader.take(len as usize)? })
}
