//! Codecs as producers use them, with Kafka's levels where the codec has levels here.

use flate2::write::GzEncoder;
use ringmill_client::Codec;
use std::io::{self, Write};

/// A codec and how hard it tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compress {
    pub codec: Codec,
    /// Of gzip and zstd; `None` is Kafka's default.
    pub level: Option<i32>,
}

impl Compress {
    /// Kafka's default level of zstd.
    const ZSTD_LEVEL: i32 = 3;

    pub fn is_none(self) -> bool {
        self.codec == Codec::None
    }

    /// # Errors
    /// Only what the codecs report; they do not fail on memory.
    pub fn compress(self, payload: &[u8]) -> io::Result<Vec<u8>> {
        match self.codec {
            Codec::Gzip => {
                let level = self.level.map_or(flate2::Compression::default(), |level| {
                    flate2::Compression::new(level.clamp(0, 9) as u32)
                });
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(payload)?;
                encoder.finish()
            }
            Codec::Zstd => zstd::bulk::compress(payload, self.level.unwrap_or(Self::ZSTD_LEVEL)),
            Codec::None | Codec::Snappy | Codec::Lz4 => self.codec.compress(payload.to_vec()),
        }
    }
}
