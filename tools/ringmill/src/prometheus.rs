//! Reading the text of `/metrics`: samples by family and label, histograms, and quantiles of what was added between two.
//!
//! Tolerant: a line that is no sample is left out, so a newer broker's metrics never stop an older tool.

use std::collections::HashMap;

/// One line of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, wanted: &[(&str, &str)]) -> bool {
        wanted.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    families: HashMap<String, Vec<Sample>>,
}

impl Metrics {
    pub fn parse(text: &str) -> Metrics {
        let mut families: HashMap<String, Vec<Sample>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, sample)) = sample_of(line) else { continue };
            match families.get_mut(name) {
                Some(known) => known.push(sample),
                None => drop(families.insert(name.to_string(), vec![sample])),
            }
        }
        Metrics { families }
    }

    pub fn samples(&self, name: &str) -> &[Sample] {
        self.families.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum of the samples with these labels; `None` where there is none.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let values = self.samples(name).iter().filter(|sample| sample.has(wanted)).map(|sample| sample.value);
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// The histograms with these labels, added up.
    pub fn histogram(&self, name: &str, wanted: &[(&str, &str)]) -> Histogram {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.samples(&format!("{name}_bucket")).iter().filter(|sample| sample.has(wanted)) {
            let bound = sample.label("le").and_then(|bound| bound.parse::<f64>().ok());
            let Some(bound) = bound.filter(|bound| !bound.is_nan()) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = |suffix: &str| self.sum(&format!("{name}_{suffix}"), wanted).unwrap_or(0.0);
        Histogram { buckets, count: total("count"), sum: total("sum") }
    }
}

/// `name{label="value",…} number`.
fn sample_of(line: &str) -> Option<(&str, Sample)> {
    let (head, value) = line.rsplit_once(' ')?;
    let value: f64 = value.parse().ok()?;
    let Some((name, labels)) = head.split_once('{') else {
        return Some((head, Sample { labels: Vec::new(), value }));
    };
    let mut rest = labels.strip_suffix('}')?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    plain => plain,
                }),
                (at, '"') => break at + 1,
                (_, plain) => text.push(plain),
            }
        };
        found.push((label.to_string(), text));
        rest = after.get(end..)?;
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some((name, Sample { labels: found, value }))
}

/// Counts at or below each bound, in the order of the bounds; the last bound is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: Vec<(f64, f64)>,
    pub count: f64,
    pub sum: f64,
}

impl Histogram {
    /// Bounds, rising, and how many values lie at or below each; the last bound is infinite.
    pub fn buckets(&self) -> &[(f64, f64)] {
        &self.buckets
    }

    /// What was added since; everything where `before` has other bounds.
    pub fn since(&self, before: &Histogram) -> Histogram {
        if self.buckets.len() != before.buckets.len() {
            return self.clone();
        }
        let pairs = self.buckets.iter().zip(&before.buckets);
        Histogram {
            buckets: pairs.map(|((bound, now), (_, then))| (*bound, now - then)).collect(),
            count: self.count - before.count,
            sum: self.sum - before.sum,
        }
    }

    /// Both together; the one with values where the other has none.
    pub fn plus(&self, other: &Histogram) -> Histogram {
        if self.buckets.is_empty() {
            return other.clone();
        }
        if self.buckets.len() != other.buckets.len() {
            return self.clone();
        }
        let pairs = self.buckets.iter().zip(&other.buckets);
        Histogram {
            buckets: pairs.map(|((bound, a), (_, b))| (*bound, a + b)).collect(),
            count: self.count + other.count,
            sum: self.sum + other.sum,
        }
    }

    /// Within a bucket the values are taken as spread evenly; the buckets are powers of two. `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let wanted = total * q;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= wanted && *count > below {
                let share = ((wanted - below) / (count - below)).clamp(0.0, 1.0);
                return Some(if bound.is_finite() { lower + (bound - lower) * share } else { lower });
            }
            (lower, below) = (if bound.is_finite() { *bound } else { lower }, *count);
        }
        None
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a text\n# TYPE a counter\na 1.5\n\
        b{core=\"0\",api=\"Produce\"} 2\nb{core=\"1\",api=\"Produce\"} 3\nb{core=\"1\",api=\"Fetch\"} 4\n\
        t{topic=\"a\\\"b\\\\,c\\n\"} 7\nnonsense\nbroken{x=\"1 5\n\
        h_bucket{core=\"0\",le=\"1\"} 10\nh_bucket{core=\"0\",le=\"3\"} 90\nh_bucket{core=\"0\",le=\"+Inf\"} 100\n\
        h_sum{core=\"0\"} 150\nh_count{core=\"0\"} 100\n";

    #[test]
    fn the_text_is_read_and_what_is_none_of_it_is_left_out() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a", &[]), Some(1.5));
        assert_eq!(metrics.sum("b", &[("api", "Produce")]), Some(5.0));
        assert_eq!(metrics.sum("b", &[("api", "Produce"), ("core", "1")]), Some(3.0));
        assert_eq!(metrics.sum("b", &[("api", "Other")]), None);
        assert_eq!(metrics.samples("t").first().and_then(|s| s.label("topic")), Some("a\"b\\,c\n"));
        assert_eq!(metrics.samples("broken"), []);
        assert_eq!(Metrics::parse("").sum("a", &[]), None);
    }

    #[test]
    fn quantiles_of_what_was_added() {
        let now = Metrics::parse(TEXT).histogram("h", &[]);
        assert_eq!(now.quantile(0.05), Some(0.5));
        assert_eq!(now.quantile(0.5), Some(2.0));
        assert_eq!(now.quantile(0.99), Some(3.0), "beyond the last bound there is only that bound to tell");
        assert_eq!(now.mean(), Some(1.5));
        let none = now.since(&now);
        assert_eq!((none.quantile(0.5), none.mean()), (None, None));
        assert_eq!(now.since(&Histogram::default()), now);
        assert_eq!(Metrics::parse(TEXT).histogram("h", &[("core", "9")]).quantile(0.5), None);
    }
}
