//! From when to when a certificate holds (RFC 5280 4.1.2.5).
//!
//! Owns: reading the two dates, and no more, out of a certificate.
//! Never: trusts anything because of them; whoever checks a peer does that.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, where it is written.
const EXPLICIT_0: u8 = 0xa0;
const DAY_S: u64 = 24 * 60 * 60;

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last.
    pub not_after: SystemTime,
}

impl Validity {
    /// Reads a certificate (DER); `None` where its outline is not one's.
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let (whole, _) = element(certificate, SEQUENCE)?;
        let (mut rest, _) = element(whole, SEQUENCE)?;
        if let Some((_, after)) = element(rest, EXPLICIT_0) {
            rest = after;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            (_, _, rest) = any(rest)?;
        }
        let (validity, _) = element(rest, SEQUENCE)?;
        let (tag, from, rest) = any(validity)?;
        let not_before = moment(tag, from)?;
        let (tag, until, _) = any(rest)?;
        Some(Self { not_before, not_after: moment(tag, until)? })
    }

    /// Returns the seconds that are left; negative once it has expired.
    pub fn seconds_left(self, wall: SystemTime) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match self.not_after.duration_since(wall) {
            Ok(left) => seconds(left),
            Err(past) => seconds(past.duration()).saturating_neg(),
        }
    }

    /// Returns the days that are left, rounded down; negative once it has expired.
    pub fn days_left(self, wall: SystemTime) -> i64 {
        self.seconds_left(wall).div_euclid(DAY_S.cast_signed())
    }

    /// Returns the days until it begins to hold, rounded up; `None` once it does.
    pub fn days_until(self, wall: SystemTime) -> Option<u64> {
        let wait = self.not_before.duration_since(wall).ok().filter(|wait| !wait.is_zero())?;
        Some(wait.as_secs().div_ceil(DAY_S))
    }
}

/// Splits an element of any kind off: tag, contents, what follows.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        short @ 0..0x80 => (usize::from(*short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let join = |sum: usize, digit: &u8| {
                sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(*digit)))
            };
            (digits.iter().try_fold(0, join)?, rest)
        }
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((*tag, contents, rest))
}

/// The same for one kind.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, contents, rest) = any(bytes)?;
    (tag == wanted).then_some((contents, rest))
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn moment(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            // RFC 5280 4.1.2.5.1: from 1950 to 2049.
            (if year < 50 { year.checked_add(2000)? } else { year.checked_add(1900)? }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let mut parts = [0_u64; 5];
    let mut rest = rest;
    for part in &mut parts {
        let (digits, after) = rest.split_at_checked(2)?;
        *part = digits.parse().ok()?;
        rest = after;
    }
    let [month, day, hour, minute, second] = parts;
    let days = days_from_epoch(year, month, day)?;
    let clock =
        hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
    let since = days.checked_mul(DAY_S)?.checked_add(clock)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))
}

/// Returns the days from 1970-01-01 to a date of the Gregorian calendar; a date before it is it.
fn days_from_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = match month {
        1 | 2 => (year.checked_sub(1)?, month.checked_add(9)?),
        _ => (year, month.checked_sub(3)?),
    };
    let leap = (year / 4).checked_sub(year / 100)?.checked_add(year / 400)?;
    let before = month.checked_mul(153)?.checked_add(2)? / 5;
    let days = year.checked_mul(365)?.checked_add(leap)?.checked_add(before)?.checked_add(day)?;
    Some(days.checked_sub(1)?.saturating_sub(EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_both_forms() {
        for (tag, text, want) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "490101000000Z", Some(2_493_072_000)),
            (UTC_TIME, "500101000000Z", Some(0)),
            (UTC_TIME, "261121083000Z", Some(1_795_249_800)),
            (GENERALIZED_TIME, "20000229235959Z", Some(951_868_799)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "261321083000Z", None),
            (UTC_TIME, "2611210830Z", None),
            (UTC_TIME, "261121083000+0100", None),
            (SEQUENCE, "261121083000Z", None),
            (UTC_TIME, "", None),
        ] {
            let read = moment(tag, text.as_bytes());
            let want = want.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
            assert_eq!(read, want, "{text}");
        }
    }

    #[test]
    fn days_are_counted_from_both_sides() {
        let at = |days: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(days * 86_400.0);
        let validity = Validity { not_before: at(10.0), not_after: at(100.0) };
        let left = [50.0, 99.5, 100.0, 100.5, 101.5].map(|day| validity.days_left(at(day)));
        assert_eq!(left, [50, 0, 0, -1, -2]);
        let until = [8.5, 9.5, 10.0, 11.0].map(|day| validity.days_until(at(day)));
        assert_eq!(until, [Some(2), Some(1), None, None]);
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        for bytes in [&b""[..], b"\x30", b"\x30\x80", b"\x30\xff\xff", b"\x30\x03\x30\x01\x02"] {
            assert_eq!(Validity::read(bytes), None, "{bytes:?}");
        }
    }
}
