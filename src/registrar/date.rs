//! The Date header (RFC 3261 20.17): `Sat, 13 Nov 2010 23:29:00 GMT`.
//!
//! Owns: printing it. Never: reads the clock or one from a peer.

use crate::ids::push_number;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a date is until the year 9999.
const DATE_LEN: usize = 29;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Prints a time; one before 1970 prints as the start of 1970.
pub(super) fn date(wall: SystemTime) -> String {
    let seconds = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|i| names.get(i).copied()).unwrap_or_default()
    };
    let mut text = String::with_capacity(DATE_LEN);
    text.push_str(name(&WEEKDAYS, days % 7));
    push_two(&mut text, ", ", day);
    text.push(' ');
    text.push_str(name(&MONTHS, month - 1));
    text.push(' ');
    push_number(&mut text, year);
    push_two(&mut text, " ", second / 3600);
    push_two(&mut text, ":", second / 60 % 60);
    push_two(&mut text, ":", second % 60);
    text.push_str(" GMT");
    text
}

/// Appends a number below 100 with two digits.
fn push_two(text: &mut String, before: &str, number: u64) {
    text.push_str(before);
    if number < 10 {
        text.push('0');
    }
    push_number(text, number);
}

/// Returns year, month (1..=12) and day of a number of days since 1970, Gregorian. Years are counted
/// from March, so that the leap day is the last of one and months have a regular length.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn prints_as_the_rfc_does() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_289_690_940, "Sat, 13 Nov 2010 23:29:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
