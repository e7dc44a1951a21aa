//! The features this broker knows (KIP-584), and what ApiVersions says of them.
//!
//! `metadata.version` is Kafka 4.3's and never moves: this broker's journal has a format of its own, and tools only read
//! the level. `group.version` decides whether the consumer protocol of KIP-848 is served, so it is shown where that is.

use crate::api::ApiKey;
use crate::api_versions::{Features, FinalizedFeature, SupportedFeature};
use crate::supported;

/// Kafka's name of the metadata format's level.
pub const METADATA_VERSION: &str = "metadata.version";
/// Kafka's name of the group protocols' level.
pub const GROUP_VERSION: &str = "group.version";

/// One feature: its levels, and the one it has where nothing was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    pub default: i16,
}

static FEATURES: &[Feature] = &[
    Feature { name: GROUP_VERSION, min: 0, max: 1, default: 1 },
    Feature { name: METADATA_VERSION, min: 7, max: 30, default: 30 },
];

/// All that are shown, in order of their names.
pub fn all() -> impl Iterator<Item = &'static Feature> {
    let protocol = supported::find(ApiKey::CONSUMER_GROUP_HEARTBEAT).is_some();
    FEATURES.iter().filter(move |feature| feature.name != GROUP_VERSION || protocol)
}

/// The feature of this name, if it is known.
pub fn find(name: &str) -> Option<&'static Feature> {
    all().find(|feature| feature.name == name)
}

/// What ApiVersions says: `level` gives what was decided, `epoch` counts the decisions. A level of 0 is not shown.
pub fn shown(level: impl Fn(&str) -> Option<i16>, epoch: i64) -> Features {
    let supported = all().map(|feature| SupportedFeature {
        name: feature.name.into(),
        min: feature.min,
        max: feature.max,
    });
    let finalized = all().map(|feature| (feature, level(feature.name).unwrap_or(feature.default)));
    Features {
        supported: supported.collect(),
        epoch,
        finalized: finalized
            .filter(|(_, level)| *level > 0)
            .map(|(feature, level)| FinalizedFeature {
                name: feature.name.into(),
                min_level: level,
                max_level: level,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_within_their_range_and_zero_is_not_shown() {
        for feature in FEATURES {
            assert!((feature.min..=feature.max).contains(&feature.default), "{}", feature.name);
        }
        let names = |features: Features| features.finalized.into_iter().map(|f| f.name).collect::<Vec<_>>();
        let all_names: Vec<_> = all().map(|feature| feature.name.to_string()).collect();
        assert_eq!(names(shown(|_| None, 0)), all_names);
        assert!(names(shown(|_| Some(0), 1)).is_empty());
        assert_eq!(shown(|_| None, 7).epoch, 7);
    }
}
