//! ApiVersions 0–4, and versions nobody knows yet.

use crate::common::{answer, frame, header};
use kafka_wire::{ApiVersionsRequest as OracleRequest, ApiVersionsResponse};
use kafka_wire_core::StrBytes;
use proptest::prelude::*;
use ringmill_wire::api_versions::{
    ApiVersionsAnswers, ApiVersionsRequest, Features, FinalizedFeature, SupportedFeature,
};
use ringmill_wire::supported::SUPPORTED;
use ringmill_wire::{ApiKey, RequestHeader};

fn oracle_request(name: &str, software_version: &str) -> OracleRequest {
    let mut request = OracleRequest::default();
    request.client_software_name = StrBytes::from(name);
    request.client_software_version = StrBytes::from(software_version);
    request
}

fn features() -> Features {
    Features {
        supported: vec![
            SupportedFeature { name: "group.version".into(), min: 0, max: 1 },
            SupportedFeature { name: "metadata.version".into(), min: 7, max: 29 },
        ],
        epoch: 42,
        finalized: vec![FinalizedFeature { name: "metadata.version".into(), min_level: 7, max_level: 29 }],
    }
}

fn ask(features: &Features, version: i16, name: &str, software_version: &str) -> ApiVersionsResponse {
    let frame = frame(&oracle_request(name, software_version), version, 99);
    let mut out = b"before".to_vec();
    ApiVersionsAnswers::new(features).answer(&header(&frame), &frame, &mut out).unwrap();
    assert_eq!(&out[..6], b"before");
    answer::<OracleRequest, _>(&out[6..], version, 99)
}

#[test]
fn every_version_answers_with_the_table() {
    for version in 0..=4 {
        let answer = ask(&features(), version, "acme-client", "1.0.0");
        assert_eq!((answer.error_code, answer.throttle_time_ms), (0, 0));
        let rows: Vec<_> =
            answer.api_keys.iter().map(|r| (r.api_key, r.min_version, r.max_version)).collect();
        let ours: Vec<_> = SUPPORTED.iter().map(|r| (r.key.0, r.min, r.max)).collect();
        assert_eq!(rows, ours, "version {version}");
        let shown: Vec<_> = answer.supported_features.iter().map(|f| f.name.as_str().to_owned()).collect();
        match version {
            0..=2 => assert!(shown.is_empty()),
            3 => assert_eq!(shown, ["metadata.version"], "minimum 0 is hidden before version 4"),
            _ => assert_eq!(shown, ["group.version", "metadata.version"]),
        }
        if version >= 3 {
            assert_eq!(answer.finalized_features_epoch, 42);
            let finalized = &answer.finalized_features[0];
            assert_eq!(finalized.name.as_str(), "metadata.version");
            assert_eq!((finalized.min_version_level, finalized.max_version_level), (7, 29));
            let metadata = answer.supported_features.iter().find(|f| f.name.as_str() == "metadata.version");
            assert_eq!(metadata.map(|f| (f.min_version, f.max_version)), Some((7, 29)));
        }
    }
}

#[test]
fn no_features_means_no_tags() {
    let answer = ask(&Features::default(), 4, "a", "1");
    assert!(answer.supported_features.is_empty() && answer.finalized_features.is_empty());
    assert_eq!(answer.finalized_features_epoch, -1);
}

#[test]
fn software_names_outside_the_rules_are_refused_from_version_3_on() {
    for (name, software_version) in
        [("", "1"), ("a", ""), ("-a", "1"), ("a.", "1"), ("a b", "1"), ("a", "1/2")]
    {
        let answer = ask(&features(), 3, name, software_version);
        assert_eq!(answer.error_code, 42, "{name:?} {software_version:?}");
        assert!(answer.api_keys.is_empty());
    }
    assert_eq!(ask(&features(), 3, "apache-kafka-java", "4.3.1").error_code, 0);
    assert_eq!(ask(&features(), 2, "", "").error_code, 0);
}

#[test]
fn a_version_from_the_future_is_answered_in_version_0_form() {
    // Whatever follows the client id: a future version may put anything there.
    for (version, rest) in [(5i16, &b"\x00\x02a\x021\x00"[..]), (99, b""), (i16::MAX, b"\xff\xff"), (-1, b"")]
    {
        let mut frame = 18i16.to_be_bytes().to_vec();
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 5, 0xff, 0xff]);
        frame.extend(rest);
        let header = RequestHeader::parse(&frame).unwrap();
        let mut out = Vec::new();
        ApiVersionsAnswers::new(&features()).answer(&header, &frame, &mut out).unwrap();
        let answer: ApiVersionsResponse = answer::<OracleRequest, _>(&out, 0, 5);
        assert_eq!(answer.error_code, 35);
        let rows: Vec<_> =
            answer.api_keys.iter().map(|r| (r.api_key, r.min_version, r.max_version)).collect();
        assert_eq!(rows, [(ApiKey::API_VERSIONS.0, 0, 4)]);
    }
}

proptest! {
    #[test]
    fn request_names_are_read(name in "\\PC{0,20}", software_version in "\\PC{0,20}", version in 3i16..=4) {
        let frame = frame(&oracle_request(&name, &software_version), version, 1);
        let request = ApiVersionsRequest::parse(&header(&frame), &frame).unwrap();
        prop_assert_eq!(request.client_software_name, name);
        prop_assert_eq!(request.client_software_version, software_version);
    }
}
