//! The node's time zone.
//!
//! Owns: what a moment is called on the wall clock there, by the IANA database.
//! Never: reads a clock.

use crate::dialplan::{Date, LocalTime};
use chrono::{DateTime, Datelike, Timelike, Utc};
use chrono_tz::Tz;
use std::{fmt, time::SystemTime};

/// A time zone by its IANA name: `Europe/Amsterdam`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timezone(Tz);

impl Timezone {
    /// Coordinated Universal Time.
    pub const UTC: Self = Self(Tz::UTC);

    /// Reads a name, letter by letter as the database has it.
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok().map(Self)
    }

    /// Returns the name that is most like `name`, for those who mistyped it.
    pub fn nearest(name: &str) -> Option<&'static str> {
        super::near::nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name()))
    }

    /// Returns what the clock on the wall shows.
    pub fn local(self, at: SystemTime) -> LocalTime {
        let at = DateTime::<Utc>::from(at).with_timezone(&self.0);
        // `month` and `day` are at most 31, `hour` and `minute` below 60.
        LocalTime {
            date: Date { year: at.year(), month: at.month() as u8, day: at.day() as u8 },
            minute: (at.hour() * 60 + at.minute()) as u16,
        }
    }
}

impl fmt::Display for Timezone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn summer_is_an_hour_ahead() {
        let amsterdam = Timezone::parse("Europe/Amsterdam").unwrap();
        for (unix_s, want) in [
            (1_774_745_940, "sun 2026-03-29 01:59"),
            (1_774_746_000, "sun 2026-03-29 03:00"),
            (1_792_890_000, "sun 2026-10-25 02:00"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s);
            assert_eq!(amsterdam.local(at).to_string(), want);
        }
    }

    #[test]
    fn slips_are_recognised() {
        assert_eq!(Timezone::parse("Europe/Amsterdm"), None);
        assert_eq!(Timezone::nearest("Europe/Amsterdm"), Some("Europe/Amsterdam"));
        assert_eq!(Timezone::nearest("europe/amsterdam"), Some("Europe/Amsterdam"));
        assert_eq!(Timezone::nearest("here"), None);
    }
}
