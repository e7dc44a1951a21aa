//! What records are made of: keys, sizes, values.

use crate::stamp::{STAMP_BYTES, Stamp};
use ringmill_types::Random;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes that values are cut from.
const BLOCK_BYTES: usize = 256 << 10;
/// Largest value.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// A table of this many sums is what zipf keys take.
const KEYS_MAX: u32 = 10_000_000;
/// What a key is its number behind.
const KEY_FRONT: &[u8] = b"key-";

/// Why a text is no distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADistribution(String);

impl fmt::Display for NotADistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotADistribution {}

/// How keys are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Keys {
    None,
    /// Each of so many as often as any other.
    Uniform(u32),
    /// The n-th most frequent of so many in proportion to 1/n^exponent. The table is of sums of those.
    Zipf {
        exponent: f64,
        sums: Arc<[f64]>,
    },
}

impl FromStr for Keys {
    type Err = NotADistribution;

    fn from_str(text: &str) -> Result<Keys, NotADistribution> {
        let refuse = || {
            NotADistribution(format!(
                "{text}: keys are none, uniform:COUNT or zipf:COUNT[:EXPONENT], of at most {KEYS_MAX}"
            ))
        };
        let count = |part: &str| part.parse().ok().filter(|n| (1..=KEYS_MAX).contains(n)).ok_or_else(refuse);
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["none"] => Ok(Keys::None),
            ["uniform", n] => Ok(Keys::Uniform(count(n)?)),
            ["zipf", n] => Ok(Keys::zipf(count(n)?, 1.0)),
            ["zipf", n, exponent] => {
                let exponent = exponent.parse().ok().filter(|e| (0.0..=10.0).contains(e));
                Ok(Keys::zipf(count(n)?, exponent.ok_or_else(refuse)?))
            }
            _ => Err(refuse()),
        }
    }
}

impl Keys {
    fn zipf(count: u32, exponent: f64) -> Keys {
        let mut sum = 0.0;
        let sums = (1..=count).map(|n| {
            sum += f64::from(n).powf(-exponent);
            sum
        });
        Keys::Zipf { exponent, sums: sums.collect() }
    }

    fn next(&self, random: &mut Random) -> Option<u32> {
        match self {
            Keys::None => None,
            Keys::Uniform(count) => Some((random.next_u64() % u64::from(*count)) as u32),
            Keys::Zipf { sums, .. } => {
                let at = random.unit() * sums.last().copied().unwrap_or(0.0);
                Some(sums.partition_point(|sum| *sum <= at) as u32)
            }
        }
    }
}

/// How large values are.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    Fixed(u32),
    Uniform {
        min: u32,
        max: u32,
    },
    /// `median`, and the deviation of the logarithm.
    LogNormal {
        median: f64,
        sigma: f64,
    },
    /// Any of these, each as often as it stands there.
    Listed(Arc<[u32]>),
}

impl FromStr for Sizes {
    type Err = NotADistribution;

    fn from_str(text: &str) -> Result<Sizes, NotADistribution> {
        let refuse = || {
            NotADistribution(format!(
                "{text}: a size is BYTES, MIN:MAX, lognormal:MEDIAN:SIGMA or file:PATH, of 1 byte to 16 MiB"
            ))
        };
        let size = |part: &str| {
            part.parse().ok().filter(|n| (1..=RECORD_BYTES_MAX as u32).contains(n)).ok_or_else(refuse)
        };
        if let Some(path) = text.strip_prefix("file:") {
            let read = std::fs::read_to_string(path);
            let read = read.map_err(|error| NotADistribution(format!("{path}: {error}")))?;
            let sizes: Result<Vec<u32>, _> = read.split_whitespace().map(size).collect();
            let sizes =
                sizes.map_err(|_| NotADistribution(format!("{path}: not a list of sizes in bytes")))?;
            if sizes.is_empty() {
                return Err(NotADistribution(format!("{path}: there is no size in it")));
            }
            return Ok(Sizes::Listed(sizes.into()));
        }
        match text.split(':').collect::<Vec<_>>().as_slice() {
            [bytes] => Ok(Sizes::Fixed(size(bytes)?)),
            ["lognormal", median, sigma] => {
                let sigma = sigma.parse().ok().filter(|s| (0.0..=5.0).contains(s)).ok_or_else(refuse)?;
                Ok(Sizes::LogNormal { median: f64::from(size(median)?), sigma })
            }
            [min, max] => match (size(min)?, size(max)?) {
                (min, max) if min <= max => Ok(Sizes::Uniform { min, max }),
                _ => Err(refuse()),
            },
            _ => Err(refuse()),
        }
    }
}

impl Sizes {
    /// The smallest there can be.
    pub fn min(&self) -> u32 {
        match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Uniform { min, .. } => *min,
            Sizes::LogNormal { .. } => 1,
            Sizes::Listed(sizes) => sizes.iter().min().copied().unwrap_or(1),
        }
    }

    fn max(&self) -> usize {
        match self {
            Sizes::Fixed(bytes) => *bytes as usize,
            Sizes::Uniform { max, .. } => *max as usize,
            Sizes::LogNormal { .. } => RECORD_BYTES_MAX,
            Sizes::Listed(sizes) => sizes.iter().max().copied().unwrap_or(1) as usize,
        }
    }

    fn next(&self, random: &mut Random) -> usize {
        match self {
            Sizes::Fixed(bytes) => *bytes as usize,
            Sizes::Uniform { min, max } => {
                *min as usize + (random.next_u64() % u64::from(max - min + 1)) as usize
            }
            Sizes::LogNormal { median, sigma } => {
                let (radius, angle) = (1.0 - random.unit(), random.unit());
                let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
                ((median * (sigma * normal).exp()) as usize).clamp(1, RECORD_BYTES_MAX)
            }
            Sizes::Listed(sizes) => {
                let at = (random.next_u64() % sizes.len().max(1) as u64) as usize;
                sizes.get(at).copied().unwrap_or(1) as usize
            }
        }
    }
}

/// What values are.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Letters A to Z by chance, as Kafka's tool has them.
    Letters(Sizes),
    /// One of these.
    Lines(Arc<[Vec<u8>]>),
    /// 0, 1, 2 and so on, in digits.
    Counting,
}

/// A record that was decided on. Its bytes are made when its batch leaves: what waits in a producer's memory would be
/// out of the CPU's caches by then, and making it costs less than fetching it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where in the block of letters, which line, or the number itself.
    at: u64,
    /// Of the value.
    bytes: u32,
    /// Number of the key, and 1.
    key: Option<NonZeroU32>,
}

impl Draft {
    pub fn value_bytes(self) -> usize {
        self.bytes as usize
    }

    pub fn key_bytes(self) -> Option<usize> {
        self.key_number().map(|number| KEY_FRONT.len() + digits(number))
    }

    fn key_number(self) -> Option<u64> {
        self.key.map(|above| u64::from(above.get() - 1))
    }
}

/// Decides on records, one after the other, and writes them.
#[derive(Debug)]
pub struct Maker {
    keys: Keys,
    payload: Payload,
    stamp: Option<Stamp>,
    block: Vec<u8>,
    random: Random,
    count: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    stamped: Vec<u8>,
}

impl Maker {
    pub fn new(keys: Keys, payload: Payload, stamp: Option<Stamp>, seed: u64) -> Maker {
        let mut random = Random::new(seed);
        let block = match &payload {
            Payload::Letters(sizes) => {
                (0..BLOCK_BYTES + sizes.max()).map(|_| b'A' + (random.next_u64() % 26) as u8).collect()
            }
            Payload::Lines(_) | Payload::Counting => Vec::new(),
        };
        let (key, value, stamped) = (Vec::new(), Vec::new(), Vec::new());
        Maker { keys, payload, stamp, block, random, count: 0, key, value, stamped }
    }

    /// The next record.
    pub fn draft(&mut self) -> Draft {
        let key = self.keys.next(&mut self.random).and_then(|key| NonZeroU32::new(key + 1));
        let (at, bytes) = match &self.payload {
            Payload::Letters(sizes) => {
                let bytes = sizes.next(&mut self.random);
                (self.random.next_u64() % BLOCK_BYTES as u64, bytes)
            }
            Payload::Lines(lines) => {
                let at = self.random.next_u64() % lines.len().max(1) as u64;
                (at, lines.get(at as usize).map_or(0, Vec::len))
            }
            Payload::Counting => (self.count, digits(self.count)),
        };
        self.count += 1;
        Draft { at, bytes: bytes as u32, key }
    }

    /// The bytes of a record's key.
    pub fn key(&mut self, draft: Draft) -> Option<&[u8]> {
        let number = draft.key_number()?;
        self.key.clear();
        self.key.extend_from_slice(KEY_FRONT);
        put_digits(&mut self.key, number);
        Some(&self.key)
    }

    /// The bytes of a record: key and value.
    pub fn write(&mut self, draft: Draft, intended_ns: u64, counts: bool) -> (Option<&[u8]>, &[u8]) {
        let has_key = self.key(draft).is_some();
        let value: &[u8] = match &self.payload {
            Payload::Letters(_) => {
                let at = draft.at as usize;
                self.block.get(at..at + draft.value_bytes()).unwrap_or_default()
            }
            Payload::Lines(lines) => lines.get(draft.at as usize).map_or(&[], Vec::as_slice),
            Payload::Counting => {
                self.value.clear();
                put_digits(&mut self.value, draft.at);
                &self.value
            }
        };
        let value = match self.stamp {
            None => value,
            Some(stamp) => {
                self.stamped.clear();
                self.stamped.extend_from_slice(&stamp.write(intended_ns, counts));
                self.stamped.extend_from_slice(value.get(STAMP_BYTES..).unwrap_or_default());
                &self.stamped
            }
        };
        (has_key.then_some(self.key.as_slice()), value)
    }
}

/// How many digits a number has.
fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn put_digits(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str, count: usize) -> Vec<usize> {
        let sizes: Sizes = text.parse().expect("a distribution");
        let mut random = Random::new(5);
        (0..count).map(|_| sizes.next(&mut random)).collect()
    }

    #[test]
    fn sizes_follow_their_distribution() {
        assert_eq!(sizes("100", 3), [100; 3]);
        let uniform = sizes("10:20", 10_000);
        assert!(uniform.iter().all(|s| (10..=20).contains(s)));
        assert!(uniform.contains(&10) && uniform.contains(&20));
        let mut lognormal = sizes("lognormal:1000:0.5", 20_001);
        lognormal.sort_unstable();
        let median = lognormal[10_000] as f64;
        assert!((median / 1000.0 - 1.0).abs() < 0.05, "{median}");
        // One deviation above the median is e^0.5 times it.
        let above = lognormal[(20_001.0 * 0.8413) as usize] as f64;
        assert!((above / 1648.7 - 1.0).abs() < 0.05, "{above}");
    }

    #[test]
    fn keys_follow_their_distribution() {
        let mut random = Random::new(3);
        let zipf: Keys = "zipf:1000:1.2".parse().expect("keys");
        let mut seen = vec![0u32; 1000];
        for _ in 0..200_000 {
            seen[zipf.next(&mut random).expect("a key") as usize] += 1;
        }
        let ratio = f64::from(seen[0]) / f64::from(seen[1]);
        assert!((ratio / 2f64.powf(1.2) - 1.0).abs() < 0.05, "{ratio}");
        assert!(seen[999] > 0);
        let uniform: Keys = "uniform:3".parse().expect("keys");
        assert!((0..100).all(|_| uniform.next(&mut random).expect("a key") < 3));
        assert_eq!(Keys::None.next(&mut random), None);
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for text in ["", "0", "20:10", "lognormal:5", "lognormal:5:9", "99999999", "file:/no/such", "a:b"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
        for text in ["", "uniform", "uniform:0", "zipf:5:-1", "zipf:5:1:1", "zipf:99999999"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_count_or_carry_a_stamp() {
        let mut maker = Maker::new(Keys::Uniform(1), Payload::Counting, None, 1);
        for expected in ["0", "1", "2"] {
            let draft = maker.draft();
            assert_eq!((draft.key_bytes(), draft.value_bytes()), (Some(5), 1));
            assert_eq!(maker.write(draft, 0, true), (Some(&b"key-0"[..]), expected.as_bytes()));
        }
        let stamp = Stamp { run: 3 };
        let mut maker = Maker::new(Keys::None, Payload::Letters(Sizes::Fixed(30)), Some(stamp), 1);
        let draft = maker.draft();
        let (key, value) = maker.write(draft, 77, true);
        assert_eq!((key, value.len()), (None, 30));
        assert_eq!(stamp.read(value).map(|read| read.intended_ns), Some(77));
    }
}
