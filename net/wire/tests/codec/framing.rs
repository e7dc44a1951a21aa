//! Length prefix, request header, and the tables of APIs.

use kafka_wire::API_DESCRIPTORS;
use ringmill_wire::api::Encoding;
use ringmill_wire::supported::{SUPPORTED, find, is_served};
use ringmill_wire::{ApiKey, FrameError, FrameLength, RequestHeader, WireErrorKind};

#[test]
fn length_prefix_is_bounded() {
    assert_eq!(FrameLength::parse([0, 0, 0, 0], 10), Ok(0));
    assert_eq!(FrameLength::parse([0, 0, 0, 10], 10), Ok(10));
    assert_eq!(FrameLength::parse([0, 0, 0, 11], 10), Err(FrameError::TooLarge { bytes: 11, max: 10 }));
    assert_eq!(FrameLength::parse([0x80, 0, 0, 0], usize::MAX), Err(FrameError::Negative(i32::MIN)));
    let two_gib = FrameLength::parse([0x7f, 0xff, 0xff, 0xff], 100 << 20);
    assert_eq!(two_gib, Err(FrameError::TooLarge { bytes: i32::MAX as usize, max: 100 << 20 }));
}

#[test]
fn header_fields_and_where_the_body_begins() {
    // Metadata 1, classic: no tags. Metadata 9, flexible: one unknown tag (5) of two bytes.
    let classic = [0, 3, 0, 1, 0, 0, 0, 7, 0, 2, b'm', b'e', 0xaa];
    let header = RequestHeader::parse(&classic).unwrap();
    assert_eq!((header.api_key, header.api_version, header.correlation_id), (ApiKey::METADATA, 1, 7));
    assert_eq!(header.client_id, Some(&b"me"[..]));
    assert_eq!((header.encoding, header.body_at), (Encoding::Classic, 12));
    let flexible = [0, 3, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 5, 2, 9, 9, 0xaa];
    let header = RequestHeader::parse(&flexible).unwrap();
    assert_eq!((header.correlation_id, header.client_id), (-1, None));
    assert_eq!((header.encoding, header.body_at), (Encoding::Flexible, 15));
}

#[test]
fn client_id_need_not_be_text() {
    let frame = [0, 3, 0, 1, 0, 0, 0, 7, 0, 2, 0xff, b'e'];
    assert_eq!(RequestHeader::parse(&frame).unwrap().client_id_text(), "\u{fffd}e");
}

#[test]
fn unknown_api_is_an_error() {
    for key in [-1i16, 4, 7, 93, i16::MAX] {
        let mut frame = key.to_be_bytes().to_vec();
        frame.extend([0; 20]);
        assert_eq!(RequestHeader::parse(&frame).unwrap_err().kind, WireErrorKind::UnknownApi, "{key}");
    }
}

#[test]
fn every_api_is_flexible_where_the_oracle_says() {
    assert!(API_DESCRIPTORS.len() >= ApiKey::ALL.len());
    for key in ApiKey::ALL {
        let name = key.name().unwrap();
        let api = API_DESCRIPTORS.iter().find(|api| api.api_key.value() == key.0);
        let api = api.unwrap_or_else(|| panic!("the oracle has no {name}"));
        assert_eq!(api.request.name, format!("{name}Request"));
        for version in api.supported_versions.min().value()..=api.supported_versions.max().value() {
            let flexible = |range: Option<kafka_wire_core::VersionRange>| {
                range.is_some_and(|r| r.contains(kafka_wire_core::ApiVersion::new(version)))
            };
            let ours = key.encoding(version).unwrap() == Encoding::Flexible;
            assert_eq!(ours, flexible(api.request.flexible_versions), "{name} {version} request");
            assert_eq!(ours, flexible(api.response.flexible_versions), "{name} {version} response");
            let header = key.response_header_encoding(version).unwrap() == Encoding::Flexible;
            assert_eq!(header, ours && *key != ApiKey::API_VERSIONS, "{name} {version} response header");
        }
    }
}

#[test]
fn advertised_is_what_was_promised() {
    // Key, shown minimum, maximum: written down a second time, so that a change of the table is a decision.
    let promised = [
        (0, 0, 13),
        (1, 4, 18),
        (2, 1, 11),
        (3, 0, 13),
        (8, 2, 10),
        (9, 1, 10),
        (10, 0, 6),
        (11, 0, 9),
        (12, 0, 4),
        (13, 0, 5),
        (14, 0, 5),
        (15, 0, 6),
        (16, 0, 5),
        (18, 0, 4),
        (19, 2, 7),
        (20, 1, 6),
        (21, 0, 2),
        (22, 0, 5),
        (23, 2, 4),
        (32, 1, 4),
        (33, 0, 2),
        (34, 1, 2),
        (35, 1, 5),
        (37, 0, 3),
        (42, 0, 2),
        (43, 0, 2),
        (44, 0, 1),
        (46, 0, 0),
        (47, 0, 0),
        (48, 0, 1),
        (49, 0, 1),
        (50, 0, 0),
        (57, 0, 2),
        (60, 0, 2),
        (61, 0, 0),
        (68, 0, 1),
        (69, 0, 1),
        (74, 0, 1),
        (75, 0, 0),
    ];
    let shown: Vec<_> = SUPPORTED.iter().map(|row| (row.key.0, row.min, row.max)).collect();
    assert_eq!(shown, promised);
    for row in SUPPORTED {
        let oracle = API_DESCRIPTORS.iter().find(|api| api.api_key.value() == row.key.0).unwrap();
        assert!(row.served_min >= oracle.supported_versions.min().value(), "{}", row.key);
        assert!(row.max <= oracle.supported_versions.max().value(), "{}", row.key);
        assert!(is_served(row.key, row.served_min) && is_served(row.key, row.max));
        assert!(!is_served(row.key, row.max + 1) && !is_served(row.key, row.served_min - 1));
    }
    assert!(!is_served(ApiKey::PRODUCE, 2));
    assert_eq!(find(ApiKey::SASL_HANDSHAKE), None);
}
