//! Times as Java's `SimpleDateFormat` writes them, as far as Kafka's tools are asked for it. In UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// A pattern whose letters were understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(char),
    /// A letter and how often it stands there.
    Field(char, usize),
}

/// Reads a pattern.
///
/// # Errors
/// A sentence, for a letter that is not offered.
pub fn pattern(text: &str) -> Result<Pattern, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut quoted = false;
    for letter in text.chars() {
        match (letter, pieces.last_mut()) {
            ('\'', _) => quoted = !quoted,
            (_, _) if quoted || !letter.is_ascii_alphabetic() => pieces.push(Piece::Text(letter)),
            (_, Some(Piece::Field(last, count))) if *last == letter => *count += 1,
            ('y' | 'M' | 'd' | 'H' | 'm' | 's' | 'S', _) => pieces.push(Piece::Field(letter, 1)),
            (_, _) => return Err(format!("{letter}: a date format here has y, M, d, H, m, s and S")),
        }
    }
    Ok(Pattern(pieces))
}

impl Pattern {
    /// `ms` since 1970.
    pub fn format(&self, ms: i64) -> String {
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        let (year, month, day) = date(days);
        let mut out = String::new();
        for piece in &self.0 {
            let (letter, width) = match piece {
                Piece::Text(letter) => {
                    out.push(*letter);
                    continue;
                }
                Piece::Field(letter, width) => (*letter, *width),
            };
            let value = match letter {
                'y' if width == 2 => year.rem_euclid(100),
                'y' => year,
                'M' => month,
                'd' => day,
                'H' => of_day / 3_600_000,
                'm' => of_day / 60_000 % 60,
                's' => of_day / 1000 % 60,
                _ => of_day % 1000,
            };
            out.push_str(&format!("{value:0width$}"));
        }
        out
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as i64)
}

/// Year, month and day of a number of days since 1970-01-01, by counting in cycles of 400 years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_CYCLE: i64 = 146_097;
    const TO_MARCH_OF_YEAR_0: i64 = 719_468;
    let since = days + TO_MARCH_OF_YEAR_0;
    let (cycle, day) = (since.div_euclid(DAYS_OF_CYCLE), since.rem_euclid(DAYS_OF_CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + cycle * 400 + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kafkas_tools_do() {
        let default = pattern("yyyy-MM-dd HH:mm:ss:SSS").expect("Kafka's own default");
        assert_eq!(default.format(1_795_240_800_007), "2026-11-21 06:00:00:007");
        assert_eq!(default.format(1_709_164_800_500), "2024-02-29 00:00:00:500");
        assert_eq!(default.format(0), "1970-01-01 00:00:00:000");
        assert_eq!(pattern("yy'y'd").expect("known letters").format(1_709_164_800_500), "24y29");
        assert!(pattern("yyyy G").is_err());
    }
}
