//! Telephone numbers: what counts as one, and what a dialled string means in a country.
//!
//! Owns: the E.164 form, a country's dialling rules (by Google's metadata), masking on `Display`.
//! Never: decides where a number goes.

use super::destination::Kind;
use crate::observe::mask;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType, Region};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{cmp::Ordering, fmt};

/// Fewer digits than this after the country code is a short or emergency number (`112`, `116117`),
/// which means something only where it was dialled.
const NATIONAL_DIGITS_MIN: usize = 4;
/// Up to here a number is complete only if it lies in a known range: `116117` is a service of many
/// countries whose plans also allow six digits.
const SHORT_DIGITS_MAX: usize = 7;

/// A telephone number in E.164 form. `Display` and `Debug` mask it: `+1415****234`.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct E164(Box<str>);

impl E164 {
    /// Reads `+` and 7 to 15 digits; 15 is ITU-T E.164's limit, 7 ours.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        let ok = (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        ok.then(|| Self(text.into()))
    }

    /// Returns the number in full, for the wire and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&mask::Number(&self.0), f)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A country, as the one whose dialling rules apply. Prints as ISO 3166's two letters: `US`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Country(Region);

impl Country {
    /// The United States: the default of a node that says nothing.
    pub const US: Self = Self(Region::US);

    /// Reads two letters, in any case, of a country whose numbering is known.
    pub fn parse(code: &str) -> Option<Self> {
        Self::of_region(Region::from_code(&code.to_ascii_uppercase()).ok()?)
    }

    fn of_region(region: Region) -> Option<Self> {
        PHONE_NUMBER_UTIL.get_country_code_for_region(region).map(|_| Self(region))
    }

    /// Returns the country in which a number was given out; `None` for satellite phones and the like.
    pub fn of(number: &E164) -> Option<Self> {
        Self::of_parsed(&read(number)?)
    }

    fn of_parsed(parsed: &PhoneNumber) -> Option<Self> {
        parsed
            .get_region_code()
            .or_else(|| PHONE_NUMBER_UTIL.get_region_for_country_code(parsed.country_code))
            .and_then(Self::of_region)
    }

    /// Returns whether these are its two letters.
    pub fn is(self, letters: &str) -> bool {
        self.0.as_region_str().as_str() == letters
    }

    /// Returns whether its numbers begin with +1, as those of some twenty-five countries do.
    pub fn is_north_american(self) -> bool {
        PHONE_NUMBER_UTIL.get_country_code_for_region(self.0) == Some(1)
    }

    /// Returns the E.164 form of what somebody in this country dialled: `(415) 555-0199`,
    /// `020 765 43 21`, `0031 20 ...`, `+31...`; `None` where it has none.
    ///
    /// Short and emergency numbers, feature codes (`*97`), extensions and names have none: the
    /// library would read `112` as a number of every country, so what is too short, or contains
    /// anything but digits, a leading `+` and separators, never gets to it.
    pub fn normalise(self, dialled: &str) -> Option<E164> {
        if is_north_american_e164(dialled) {
            return E164::parse(dialled);
        }
        self.by_the_plans(dialled)
    }

    fn by_the_plans(self, dialled: &str) -> Option<E164> {
        if !is_dialable(dialled) {
            return None;
        }
        let number = PHONE_NUMBER_UTIL.parse(dialled, Some(self.0)).ok()?;
        if is_complete(&number, dialled.trim_start().starts_with('+')) {
            E164::parse(&number.format_as(PhoneNumberFormat::E164))
        } else {
            None
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_region_str().as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = <Box<str>>::deserialize(deserializer)?;
        Self::parse(&code).ok_or_else(|| D::Error::custom("no such country"))
    }
}

impl Ord for Country {
    /// By the letters.
    fn cmp(&self, other: &Self) -> Ordering {
        let letters = |country: &Self| country.0.as_region_str();
        letters(self).as_str().cmp(letters(other).as_str())
    }
}

impl PartialOrd for Country {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Returns what Google's metadata says that a number is for.
pub(super) fn kind_of(number: &E164) -> Kind {
    read(number).map_or(Kind::Unknown, |parsed| kind_of_parsed(&parsed))
}

/// Reads a number. Those of country code 1 need no plan for that, which costs as much as what is then looked up.
fn read(number: &E164) -> Option<PhoneNumber> {
    match number.expose().strip_prefix("+1") {
        Some(national) if is_north_american_e164(number.expose()) => {
            let (country_code, national_number) = (1, national.parse().ok()?);
            Some(PhoneNumber { country_code, national_number, ..PhoneNumber::default() })
        }
        Some(_) | None => PHONE_NUMBER_UTIL.parse(number.expose(), None).ok(),
    }
}

/// Returns both that [`Country::of`] and [`Kind::of`] say, reading the number once.
pub fn place(number: &E164) -> (Option<Country>, Kind) {
    let parsed = read(number);
    let known = Kind::of_range(number);
    let kind = known.or_else(|| parsed.as_ref().map(kind_of_parsed)).unwrap_or(Kind::Unknown);
    (parsed.as_ref().and_then(Country::of_parsed), kind)
}

fn kind_of_parsed(parsed: &PhoneNumber) -> Kind {
    match parsed.get_type() {
        PhoneNumberType::FixedLine | PhoneNumberType::FixedLineOrMobile => Kind::Fixed,
        PhoneNumberType::Mobile => Kind::Mobile,
        PhoneNumberType::TollFree => Kind::TollFree,
        PhoneNumberType::PremiumRate => Kind::Premium,
        PhoneNumberType::SharedCost => Kind::SharedCost,
        PhoneNumberType::VoIP => Kind::Voip,
        PhoneNumberType::PersonalNumber => Kind::Personal,
        PhoneNumberType::Pager => Kind::Pager,
        PhoneNumberType::UAN => Kind::Uan,
        PhoneNumberType::VoiceMail | PhoneNumberType::Unknown => Kind::Unknown,
    }
}

/// Returns whether `dialled` is a number of country code 1 in full. All of these have ten digits, so that to
/// read it by the plans, which costs a fifth of a call's routing, changes nothing.
fn is_north_american_e164(dialled: &str) -> bool {
    let [b'+', b'1', national @ ..] = dialled.as_bytes() else { return false };
    national.len() == 10
        && matches!(national, [b'2'..=b'9', ..])
        && national.iter().all(u8::is_ascii_digit)
}

/// Loads the numbering of the world (some 10 ms), so that the first call need not wait for it.
pub fn warm() {
    let _ = Country::US.normalise("(415) 555-0199");
}

/// Returns whether `dialled` can be a telephone number at all.
fn is_dialable(dialled: &str) -> bool {
    let body = dialled.trim();
    let body = body.strip_prefix('+').unwrap_or(body);
    let digits = body.bytes().filter(u8::is_ascii_digit).count();
    let others = body.chars().all(|c| c.is_ascii_digit() || " -.()/".contains(c));
    others && digits >= NATIONAL_DIGITS_MIN
}

/// Returns whether the number can be called from everywhere.
///
/// Who dials a country code knows what is behind it: a fitting length is enough, since ranges are
/// given out faster than any copy of the plans changes. Digits without one must lie in a known range,
/// or a number meant for another country would be sent to a stranger in ours.
fn is_complete(number: &PhoneNumber, has_country_code: bool) -> bool {
    use rlibphonenumber::NumberLengthType::{IsPossible, IsPossibleLocalOnly};
    let fits = match number.is_possible_with_reason() {
        Ok(IsPossible) => number.get_national_significant_number().len() > SHORT_DIGITS_MAX,
        Ok(IsPossibleLocalOnly) | Err(_) => false,
    };
    (has_country_code && fits) || number.is_valid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_masked_until_exposed() {
        let number = E164::parse("+14155550234").unwrap();
        assert_eq!(number.to_string(), "+1415****234");
        assert_eq!(format!("{number:?}"), "+1415****234");
        assert_eq!(number.expose(), "+14155550234");
    }

    #[test]
    fn what_is_not_e164_is_refused() {
        for text in
            ["7756187988", "+", "+123456", "+0123456789", "+1234567890123456", "+1415555x199"]
        {
            assert_eq!(E164::parse(text), None, "{text}");
        }
    }

    #[test]
    fn dialled_strings_become_e164_by_the_country() {
        for (country, dialled, want) in [
            ("US", "(415) 555-0199", Some("+14155550199")),
            ("US", "4155550199", Some("+14155550199")),
            ("US", "14155550199", Some("+14155550199")),
            ("US", "+1 415 555 0199", Some("+14155550199")),
            ("US", "011 31 20 765 43 21", Some("+31207654321")),
            ("US", "555-0199", None),
            ("US", "020 765 43 21", None), // Meant for Amsterdam.
            ("US", "999 999 9999", None),
            ("US", "+1 333 555 0123", Some("+13335550123")), // Not given out yet.
            ("NL", "020 765 43 21", Some("+31207654321")),
            ("NL", "0031207654321", Some("+31207654321")),
            ("NL", "+14155550199", Some("+14155550199")),
            ("DE", "030 901820", Some("+4930901820")),
            ("GB", "020 7946 0958", Some("+442079460958")),
        ] {
            let country = Country::parse(country).unwrap();
            let got = country.normalise(dialled);
            assert_eq!(got.as_ref().map(E164::expose), want, "{country} {dialled}");
        }
    }

    #[test]
    fn what_is_complete_is_read_as_the_plans_read_it() {
        let countries = ["US", "CA", "NL", "GB"].map(|code| Country::parse(code).unwrap());
        for n in 0..2000_u64 {
            let national = 2_000_000_000 + n * 3_999_983 + n % 7;
            let dialled = format!("+1{national}");
            assert!(is_north_american_e164(&dialled), "{dialled}");
            for country in countries {
                let read = country.by_the_plans(&dialled);
                assert_eq!(country.normalise(&dialled), read, "{country} {dialled}");
                assert!(read.is_some(), "{country} {dialled}");
            }
            let number = E164::parse(&dialled).unwrap();
            assert_eq!(read(&number), PHONE_NUMBER_UTIL.parse(&dialled, None).ok(), "{dialled}");
        }
        for other in ["+11155550199", "+1415555019", "+141555501999", "+1 4155550199", "4155550199"]
        {
            assert!(!is_north_american_e164(other), "{other}");
        }
    }

    #[test]
    fn short_and_emergency_numbers_stay_as_they_are() {
        for country in ["US", "NL", "DE", "GB", "AT", "AU"] {
            let country = Country::parse(country).unwrap();
            for dialled in [
                "112", "911", "999", "933", "1001", "116117", "*97", "#31#", "alice", "", "+",
                "1-1-2",
            ] {
                assert_eq!(country.normalise(dialled), None, "{country} {dialled}");
            }
        }
    }

    #[test]
    fn a_number_knows_its_country() {
        for (number, want) in
            [("+17756187988", "US"), ("+31207654321", "NL"), ("+14165550123", "CA")]
        {
            let number = E164::parse(number).unwrap();
            assert_eq!(Country::of(&number).unwrap().to_string(), want);
        }
        assert_eq!(Country::parse("XX"), None);
        assert_eq!(Country::parse("nl").unwrap().to_string(), "NL");
    }
}
