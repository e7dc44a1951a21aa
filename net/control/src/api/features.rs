//! UpdateFeatures (KIP-584): what Kafka's FeatureControlManager checks, in its order and words.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::update_features_response::UpdatableFeatureResult;
use kafka_wire::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use ringmill_metadata::Record;
use ringmill_types::ErrorCode;
use ringmill_wire::features::{self, METADATA_VERSION};
use std::collections::BTreeMap;

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// A feature's wanted level, and how it may be reached.
#[derive(Clone, Copy)]
struct Wanted {
    level: i16,
    upgrade_type: i8,
}

pub(crate) fn update_features(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: UpdateFeaturesRequest = call.decode()?;
    let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
    for update in &request.feature_updates {
        let upgrade_type = match call.version() {
            0 if update.allow_downgrade => SAFE_DOWNGRADE,
            0 => UPGRADE,
            _ => update.upgrade_type,
        };
        wanted.insert(&update.feature, Wanted { level: update.max_version_level, upgrade_type });
    }
    let refused = wanted.iter().find_map(|(name, wanted)| {
        let reason = check(control, name, *wanted).err()?;
        Some(format!("Invalid update version {} for feature {name}. {reason}", wanted.level))
    });
    let mut response = message!(UpdateFeaturesResponse { error_message: None });
    if let Some(reason) = refused.or_else(|| metadata_version(&wanted)) {
        response.error_code = code(ErrorCode::InvalidUpdateVersion);
        let all = "The update failed for all features since the following feature had an error";
        response.error_message = Some(text(format!("{all}: {reason}")));
        return Ok(Outcome::Now(call.encode(&response)?));
    }
    let changed = if request.validate_only { Ok(false) } else { decide(control, &wanted) };
    if let Err(reason) = &changed {
        response.error_code = code(ErrorCode::KafkaStorageError);
        response.error_message = Some(text(reason.as_str()));
    } else if call.version() <= 1 {
        let results = wanted.keys().map(|name| {
            message!(UpdatableFeatureResult { feature: text(*name), error_message: Some(text("NONE")) })
        });
        response.results = results.collect();
    }
    let bytes = call.encode(&response)?;
    Ok(if changed == Ok(true) { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}

fn check(control: &Control, name: &str, wanted: Wanted) -> Result<(), String> {
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&wanted.upgrade_type) {
        return Err("The controller does not support the given upgrade type.".into());
    }
    if wanted.level < 0 {
        return Err("A feature version cannot be less than 0.".into());
    }
    let node = control.options.node_id;
    let Some(feature) = features::find(name) else {
        return Err(format!("Local controller {node} does not support this feature."));
    };
    if !(feature.min..=feature.max).contains(&wanted.level) {
        let (min, max) = (feature.min, feature.max);
        return Err(format!("Local controller {node} only supports versions {min}-{max}"));
    }
    let current = control.image.feature(name).unwrap_or(feature.default);
    if wanted.level < current && wanted.upgrade_type == UPGRADE {
        let how = "either safe or unsafe downgrade";
        return Err(format!(
            "Can't downgrade the version of this feature without setting the upgrade type to {how}."
        ));
    }
    if wanted.level > current && wanted.upgrade_type != UPGRADE {
        return Err("Can't downgrade to a newer version.".into());
    }
    Ok(())
}

/// The level of the metadata stays where it is: every older one lacks something of the newest.
fn metadata_version(wanted: &BTreeMap<&str, Wanted>) -> Option<String> {
    let current = features::find(METADATA_VERSION)?.max;
    let wanted = wanted.get(METADATA_VERSION).filter(|wanted| wanted.level < current)?;
    let reason = if wanted.upgrade_type == UNSAFE_DOWNGRADE {
        "Unsafe metadata downgrade is not supported in this version."
    } else {
        "Refusing to perform the requested downgrade because it might delete metadata information."
    };
    let level = wanted.level;
    Some(format!("Unsupported metadata.version downgrade from {current} to {level}. {reason}"))
}

/// Whether anything changed.
fn decide(control: &mut Control, wanted: &BTreeMap<&str, Wanted>) -> Result<bool, String> {
    let epoch = control.image.features_epoch() + 1;
    let moved = wanted.iter().filter(|(name, wanted)| {
        let current = control.image.feature(name).or(features::find(name).map(|feature| feature.default));
        current != Some(wanted.level)
    });
    let records: Vec<Record> = moved
        .map(|(name, wanted)| Record::Feature { name: name.to_string(), level: wanted.level, epoch })
        .collect();
    if records.is_empty() {
        return Ok(false);
    }
    control.decide(&records).map_err(|error| error.to_string())?;
    Ok(true)
}
