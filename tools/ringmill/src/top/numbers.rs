//! Numbers in few columns.

/// `0`, `999`, `1.23k`, `12.3k`, `123k`, `1.23M`: at most five characters below 10¹⁵.
pub fn compact(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return if value < 0.0 { format!("-{}", compact(-value)) } else { "-".to_string() };
    }
    if value < 99.95 && value.fract() >= 0.05 {
        return format!("{value:.1}");
    }
    if value < 999.5 {
        return format!("{value:.0}");
    }
    let mut scaled = value;
    for unit in ["k", "M", "G", "T", "P"] {
        scaled /= 1000.0;
        if scaled < 9.995 {
            return format!("{scaled:.2}{unit}");
        } else if scaled < 99.95 {
            return format!("{scaled:.1}{unit}");
        } else if scaled < 999.5 {
            return format!("{scaled:.0}{unit}");
        }
    }
    format!("{scaled:.0}P")
}

/// `81.2 MB/s`.
pub fn bytes_rate(value: f64) -> String {
    let text = compact(value);
    match text.char_indices().last().filter(|(_, unit)| unit.is_ascii_alphabetic()) {
        Some((at, unit)) => format!("{} {unit}B/s", text.get(..at).unwrap_or_default()),
        None => format!("{text} B/s"),
    }
}

/// A time in milliseconds: `45us`, `0.31ms`, `12ms`, `1.2s`.
pub fn millis(ms: Option<f64>) -> String {
    let Some(ms) = ms else { return "-".to_string() };
    if ms < 0.0995 {
        format!("{:.0}us", ms * 1e3)
    } else if ms < 9.995 {
        format!("{ms:.2}ms")
    } else if ms < 999.5 {
        format!("{ms:.0}ms")
    } else {
        format!("{:.1}s", ms / 1e3)
    }
}

/// A time since: `now`, `45s`, `12m`, `3h`, `2d`.
pub fn ago(ms: u64) -> String {
    match ms / 1000 {
        0 => "now".to_string(),
        seconds @ 1..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// One character for each value, from 0 to the largest; what was not measured is a gap.
pub fn curve(values: &[Option<f64>], ascii: bool) -> String {
    let levels: &[char] = if ascii {
        &['_', '.', '-', '=', '+', '*', '#', '@']
    } else {
        &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    };
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let level = |value: f64| {
        let at = if most > 0.0 { (value / most * levels.len() as f64).ceil() as usize } else { 0 };
        levels.get(at.clamp(1, levels.len()) - 1).copied().unwrap_or(' ')
    };
    values.iter().map(|value| value.map_or(' ', level)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_narrow_and_exact_enough() {
        let shown: Vec<String> =
            [0.0, 0.04, 1.5, 42.0, 999.4, 999.6, 12_345.0, 99_960.0, 1_234_567.0, 9.9e9, 1e15, -2048.0]
                .map(compact)
                .into();
        let wanted =
            ["0", "0", "1.5", "42", "999", "1.00k", "12.3k", "100k", "1.23M", "9.90G", "1.00P", "-2.05k"];
        assert_eq!(shown, wanted);
        assert_eq!(compact(f64::NAN), "-");
        assert_eq!((bytes_rate(0.0).as_str(), bytes_rate(81_234_567.0).as_str()), ("0 B/s", "81.2 MB/s"));
    }

    #[test]
    fn times_stay_narrow() {
        let shown = [0.01, 0.31, 9.99, 9.996, 250.0, 1500.0].map(|ms| millis(Some(ms)));
        assert_eq!(shown, ["10us", "0.31ms", "9.99ms", "10ms", "250ms", "1.5s"]);
        assert_eq!(millis(None), "-");
        assert_eq!(
            [0, 1000, 119_999, 120_000, 7_200_000, 400_000_000].map(ago),
            ["now", "1s", "119s", "2m", "2h", "4d"]
        );
    }

    #[test]
    fn curves_have_gaps_where_nothing_was_measured() {
        assert_eq!(curve(&[Some(0.0), None, Some(4.0), Some(8.0)], false), "▁ ▄█");
        assert_eq!(curve(&[Some(0.0), Some(0.0)], true), "__");
        assert_eq!(curve(&[], true), "");
    }
}
