//! Where a data set lies: `store=NAME/day=YYYY-MM-DD`, as Hive names partitions.
//!
//! Invariant: neither name has a byte that Hive escapes, or that leads out of its directory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The name of a store among many: usually its host's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreName(String);

/// The day that facts are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(jiff::civil::Date);

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose facts.
    pub store: StoreName,
    /// Of when.
    pub day: Day,
}

impl FromStr for StoreName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        // What Hive calls the partition without a value.
        let none = text == "__HIVE_DEFAULT_PARTITION__";
        match (1..=200).contains(&text.len()) && text.bytes().all(plain) && !none {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::StoreName(text.to_owned())),
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Day {
    /// Today, in UTC: the same moment is the same day on every host.
    pub fn today() -> Self {
        Self(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date())
    }
}

impl FromStr for Day {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::Day(text.to_owned());
        let day = Self(text.parse().map_err(|_| refused())?);
        // jiff reads more than one way to write a day.
        match day.to_string() == text {
            true => Ok(day),
            false => Err(refused()),
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Place {
    /// The directory of the store.
    pub(crate) fn of_store(&self) -> PathBuf {
        PathBuf::from(format!("store={}", self.store))
    }

    /// The directory of the files.
    pub(crate) fn path(&self) -> PathBuf {
        self.of_store().join(format!("day={}", self.day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hive_would_escape_are_refused() {
        let long = "x".repeat(201);
        for bad in ["", "a/b", "a=b", "a b", "é", "__HIVE_DEFAULT_PARTITION__", &long] {
            assert!(bad.parse::<StoreName>().is_err(), "{bad}");
        }
        for good in ["node-1.example.org", "..", &long[1..]] {
            assert_eq!(good.parse::<StoreName>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn a_day_is_written_one_way() {
        for bad in ["", "today", "2026-02-30", "20260131", "2026-01-31T10:00", "-000001-01-01 "] {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
        let place = Place { store: "..".parse().unwrap(), day: "2026-01-31".parse().unwrap() };
        assert_eq!(place.path().to_str(), Some("store=../day=2026-01-31"));
    }
}
