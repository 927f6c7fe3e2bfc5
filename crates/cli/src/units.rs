//! Sizes and ages in docker's words.
//!
//! Invariant: decimal units (1 kB = 1000 B), as `docker images` prints them.

use jiff::Timestamp;

/// `77.8MB`: three significant digits, as in `docker images`.
pub(crate) fn size(bytes: u64) -> String {
    of_digits(bytes, 3)
}

/// `77.81MB`: four significant digits, as in `docker system df`.
pub(crate) fn fine_size(bytes: u64) -> String {
    of_digits(bytes, 4)
}

fn of_digits(bytes: u64, significant: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    // Where rounding makes one more before the point, there is one less behind it.
    let whole = match value {
        v if v >= 100.0 - 50.0 / 10f64.powi(significant as i32) => 3,
        v if v >= 10.0 - 5.0 / 10f64.powi(significant as i32) => 2,
        _ => 1,
    };
    let digits = significant - whole;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    format!("{text}{}", UNITS[unit])
}

/// `1 layer`, `2 layers`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `16.7%`: one digit, and never nothing for something.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    if part > 0 && percent < 0.05 { "<0.1%".to_owned() } else { format!("{percent:.1}%") }
}

/// `3 weeks ago`, as go-units' HumanDuration puts it.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.duration_since(since).as_secs()))
}

/// `About an hour`, `3 weeks`.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (77_812_345, "77.8MB"),
            (999_949_999, "1000MB"),
            (1_170_000_000, "1.17GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (bytes, text) in [
            (1, "1B"),
            (999, "999B"),
            (1234, "1.234kB"),
            (999_999, "1000kB"),
            (99_994, "99.99kB"),
            (99_996, "100kB"),
            (77_812_345, "77.81MB"),
        ] {
            assert_eq!(fine_size(bytes), text);
        }
    }

    #[test]
    fn a_small_part_is_not_nothing() {
        let all = [(0, 0), (0, 9), (1, 9_999), (444, 2660), (9, 9)];
        let all = all.map(|(part, whole)| percent(part, whole));
        assert_eq!(all, ["0.0%", "0.0%", "<0.1%", "16.7%", "100.0%"]);
    }

    #[test]
    fn ages_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (21 * 86400, "3 weeks"),
            (400 * 86400, "13 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
