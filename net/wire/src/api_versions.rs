//! ApiVersions 0–4: the first request of nearly every connection, so its answers are encoded once.
//!
//! The response header is the classic one in every version, and a version that nobody knows yet is answered in the
//! form of version 0 with UNSUPPORTED_VERSION and the row of ApiVersions itself, so the client can ask again (KIP-511).

use crate::api::{ApiKey, Encoding};
use crate::error::WireError;
use crate::frame::{self, RequestHeader, ResponseHead};
use crate::reader::Reader;
use crate::supported::{self, SUPPORTED, Supported};
use crate::writer::Writer;
use ringmill_types::ErrorCode;

/// Highest version this codec speaks.
const VERSION_MAX: i16 = 4;

/// An ApiVersions request. The names are empty before version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersionsRequest<'a> {
    pub client_software_name: &'a str,
    pub client_software_version: &'a str,
}

impl<'a> ApiVersionsRequest<'a> {
    /// Reads the body of `frame`, whose header is `header`.
    ///
    /// # Errors
    /// [`WireError`] for a body that is not whole, or a version above 4: answer that with
    /// [`ApiVersionsAnswers::unsupported_version`] without reading it.
    pub fn parse(header: &RequestHeader<'_>, frame: &'a [u8]) -> Result<ApiVersionsRequest<'a>, WireError> {
        header.expect_version(ApiKey::API_VERSIONS, 0..=VERSION_MAX)?;
        let mut request = ApiVersionsRequest { client_software_name: "", client_software_version: "" };
        if header.api_version >= 3 {
            let mut reader = Reader::new(frame, header.body_at, header.encoding);
            request.client_software_name = reader.string("client software name")?;
            request.client_software_version = reader.string("client software version")?;
            reader.skip_tags("request tags")?;
        }
        Ok(request)
    }

    /// The names are as KIP-511 wants them: letters and digits, with dashes and dots between them. Kafka answers others
    /// with INVALID_REQUEST, from version 3 on.
    pub fn is_valid(&self, version: i16) -> bool {
        version < 3
            || (is_software_name(self.client_software_name) && is_software_name(self.client_software_version))
    }
}

fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'.')
}

/// A feature this broker could run (KIP-584).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    pub name: String,
    pub min: i16,
    pub max: i16,
}

/// A feature the cluster has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalizedFeature {
    pub name: String,
    pub min_level: i16,
    pub max_level: i16,
}

/// Features in answers from version 3 on. Empty by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    pub supported: Vec<SupportedFeature>,
    /// Epoch of the finalized features; -1 when nothing was finalized, and they are not sent then.
    pub epoch: i64,
    pub finalized: Vec<FinalizedFeature>,
}

impl Default for Features {
    fn default() -> Features {
        Features { supported: Vec::new(), epoch: -1, finalized: Vec::new() }
    }
}

/// All answers, encoded. Built at start and when the features change; a core keeps one.
#[derive(Clone, Debug)]
pub struct ApiVersionsAnswers {
    /// By version: the body of the good answer.
    bodies: [Vec<u8>; VERSION_MAX as usize + 1],
    /// By version: the body that says INVALID_REQUEST.
    invalid: [Vec<u8>; VERSION_MAX as usize + 1],
    unsupported: Vec<u8>,
}

impl ApiVersionsAnswers {
    pub fn new(features: &Features) -> ApiVersionsAnswers {
        let itself: Vec<Supported> = supported::find(ApiKey::API_VERSIONS).copied().into_iter().collect();
        let versions = [0, 1, 2, 3, 4];
        ApiVersionsAnswers {
            bodies: versions.map(|version| body(version, ErrorCode::None, SUPPORTED, features)),
            invalid: versions
                .map(|version| body(version, ErrorCode::InvalidRequest, &[], &Features::default())),
            unsupported: body(0, ErrorCode::UnsupportedVersion, &itself, &Features::default()),
        }
    }

    /// Appends the whole frame that answers the request in `frame`: the table, INVALID_REQUEST for software names
    /// outside the rules, UNSUPPORTED_VERSION for a version from the future.
    ///
    /// # Errors
    /// [`WireError`] when the body is not whole; nothing is appended then.
    pub fn answer(
        &self,
        header: &RequestHeader<'_>,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let head = header.response_head();
        if !(0..=VERSION_MAX).contains(&header.api_version) {
            self.unsupported_version(head, out);
            return Ok(());
        }
        let request = ApiVersionsRequest::parse(header, frame)?;
        let bodies = if request.is_valid(header.api_version) { &self.bodies } else { &self.invalid };
        let body = bodies.get(header.api_version as usize).expect("the version was checked above");
        append(head, body, out);
        Ok(())
    }

    /// Appends the answer to a version that is not known here.
    pub fn unsupported_version(&self, head: ResponseHead, out: &mut Vec<u8>) {
        append(head, &self.unsupported, out);
    }
}

fn append(head: ResponseHead, body: &[u8], out: &mut Vec<u8>) {
    let start = head.begin(out);
    out.extend_from_slice(body);
    frame::patch_length(out, start, 0).expect("the table has a few hundred bytes");
}

fn body(version: i16, error: ErrorCode, rows: &[Supported], features: &Features) -> Vec<u8> {
    let mut out = Vec::new();
    let encoding = ApiKey::API_VERSIONS.encoding(version).expect("a known API");
    let mut writer = Writer::new(&mut out, encoding);
    writer.i16(error.code());
    writer.array(rows.len());
    for row in rows {
        writer.i16(row.key.0);
        writer.i16(row.min);
        writer.i16(row.max);
        writer.no_tags();
    }
    if version >= 1 {
        writer.i32(0); // throttle time
    }
    if encoding == Encoding::Flexible {
        write_features(&mut writer, version, features);
    }
    out
}

/// Tags 0–2. Before version 4 a feature with minimum 0 must not be shown: Java clients fail on it (KAFKA-17011).
fn write_features(writer: &mut Writer<'_>, version: i16, features: &Features) {
    let shown: Vec<_> = features.supported.iter().filter(|f| version >= 4 || f.min > 0).collect();
    let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
    if !shown.is_empty() {
        tags.push((0, list(&shown, |f| (&f.name, f.min, f.max))));
    }
    if features.epoch >= 0 {
        tags.push((1, features.epoch.to_be_bytes().to_vec()));
        if !features.finalized.is_empty() {
            let finalized: Vec<_> = features.finalized.iter().collect();
            tags.push((2, list(&finalized, |f| (&f.name, f.max_level, f.min_level))));
        }
    }
    writer.tag_count(tags.len() as u32);
    for (tag, content) in &tags {
        writer.tag(*tag, content);
    }
}

/// An array of (name, two levels), in the order in which `parts` gives them.
fn list<T>(features: &[&T], parts: impl Fn(&T) -> (&str, i16, i16)) -> Vec<u8> {
    let mut content = Vec::new();
    let mut writer = Writer::new(&mut content, Encoding::Flexible);
    writer.array(features.len());
    for feature in features {
        let (name, first, second) = parts(feature);
        writer.string(name);
        writer.i16(first);
        writer.i16(second);
        writer.no_tags();
    }
    content
}
