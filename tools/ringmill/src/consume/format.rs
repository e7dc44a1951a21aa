//! `--format`: a printf-like pattern, parsed once; and the JSON form.

use ringmill_client::RecordView;
use serde::Serialize;
use std::io::{self, Write};

/// A record and where it was read.
pub struct Seen<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub record: &'a RecordView<'a>,
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Topic,
    Partition,
    Offset,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    Timestamp,
    Headers,
}

/// Understands what `--help` lists.
pub fn parse(text: &str) -> Result<Format, String> {
    let mut pieces = Vec::new();
    let mut plain = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => {
                let field = match letters.next() {
                    Some('%') => {
                        plain.push(b'%');
                        continue;
                    }
                    Some('t') => Field::Topic,
                    Some('p') => Field::Partition,
                    Some('o') => Field::Offset,
                    Some('k') => Field::Key,
                    Some('K') => Field::KeyBytes,
                    Some('s') => Field::Value,
                    Some('S') => Field::ValueBytes,
                    Some('T') => Field::Timestamp,
                    Some('h') => Field::Headers,
                    Some(other) => return Err(format!("%{other} stands for nothing; %% is a percent sign")),
                    None => return Err("a percent sign at the end; %% is a percent sign".to_string()),
                };
                if !plain.is_empty() {
                    pieces.push(Piece::Bytes(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Field(field));
            }
            '\\' => plain.push(escape(&mut letters)?),
            other => plain.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Bytes(plain));
    }
    Ok(Format(pieces))
}

fn escape(letters: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match letters.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('e') => Ok(0x1b),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = letters.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let byte = if is_hex { u8::from_str_radix(&digits, 16).ok() } else { None };
            byte.ok_or_else(|| format!("\\x{digits} lacks two hexadecimal digits"))
        }
        Some(other) => Err(format!("\\{other} stands for nothing; \\\\ is a backslash")),
        None => Err("a backslash at the end; \\\\ is a backslash".to_string()),
    }
}

impl Format {
    pub fn write(&self, seen: &Seen<'_>, out: &mut impl Write) -> io::Result<()> {
        let record = seen.record;
        for piece in &self.0 {
            let field = match piece {
                Piece::Bytes(bytes) => {
                    out.write_all(bytes)?;
                    continue;
                }
                Piece::Field(field) => field,
            };
            match field {
                Field::Topic => out.write_all(seen.topic.as_bytes())?,
                Field::Partition => write!(out, "{}", seen.partition)?,
                Field::Offset => write!(out, "{}", record.offset)?,
                Field::Key => out.write_all(record.key.unwrap_or_default())?,
                Field::KeyBytes => write!(out, "{}", length(record.key))?,
                Field::Value => out.write_all(record.value.unwrap_or_default())?,
                Field::ValueBytes => write!(out, "{}", length(record.value))?,
                Field::Timestamp => write!(out, "{}", record.timestamp_ms)?,
                Field::Headers => headers(record, out)?,
            }
        }
        Ok(())
    }
}

/// -1 for null, as in the protocol.
fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

/// `a=1,b=2`; a null value is written NULL, as kcat does.
fn headers(record: &RecordView<'_>, out: &mut impl Write) -> io::Result<()> {
    for (at, (key, value)) in record.headers.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{key}=")?;
        out.write_all(value.unwrap_or(b"NULL"))?;
    }
    Ok(())
}

/// A record as one JSON object.
#[derive(Debug, Serialize)]
pub struct JsonRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    timestamp_type: &'static str,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonHeader<'a> {
    key: &'a str,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> Seen<'a> {
    pub fn json(&self) -> JsonRecord<'a> {
        let record = self.record;
        let (key, key_base64) = text_or_base64(record.key);
        let (value, value_base64) = text_or_base64(record.value);
        let header = |(key, value): &(&'a str, Option<&'a [u8]>)| {
            let (text, value_base64) = text_or_base64(*value);
            JsonHeader { key, value: text, value_base64 }
        };
        JsonRecord {
            topic: self.topic,
            partition: self.partition,
            offset: record.offset,
            timestamp: record.timestamp_ms,
            timestamp_type: if record.log_append_time { "LogAppendTime" } else { "CreateTime" },
            key,
            key_base64,
            value,
            value_base64,
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

fn text_or_base64(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(bytes)) => (None, Some(base64(bytes))),
    }
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let six = (word >> (18 - 6 * at)) as usize & 63;
            let letter = LETTERS.get(six).copied().unwrap_or(b'=');
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(pattern: &str, record: &RecordView<'_>) -> String {
        let mut out = Vec::new();
        let seen = Seen { topic: "orders", partition: 3, record };
        parse(pattern).expect("parses").write(&seen, &mut out).expect("writes");
        String::from_utf8(out).expect("text")
    }

    fn record() -> RecordView<'static> {
        RecordView {
            offset: 17,
            timestamp_ms: 1234,
            log_append_time: false,
            key: None,
            value: Some(b"hello"),
            headers: vec![("a", Some(b"1")), ("b", None)],
        }
    }

    #[test]
    fn every_field_is_printed() {
        assert_eq!(
            printed("%t %p %o [%k] %K %s %S %T %h %%\\t\\x41\\n", &record()),
            "orders 3 17 [] -1 hello 5 1234 a=1,b=NULL %\tA\n"
        );
        assert_eq!(printed("é%s\\\\", &record()), "éhello\\");
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for wrong in ["%", "%z", "\\", "\\q", "\\x1", "\\xzz", "\\x+1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_keeps_every_byte() {
        let record = RecordView { key: Some(&[0xff, 0]), ..record() };
        let seen = Seen { topic: "t", partition: 0, record: &record };
        assert_eq!(
            serde_json::to_string(&seen.json()).expect("serializes"),
            r#"{"topic":"t","partition":0,"offset":17,"timestamp":1234,"timestamp_type":"CreateTime","key":null,"key_base64":"/wA=","value":"hello","headers":[{"key":"a","value":"1"},{"key":"b","value":null}]}"#
        );
        // RFC 4648, section 10.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
