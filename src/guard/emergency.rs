//! Emergency numbers: which there are in a country.
//!
//! Owns: the table, and what the configuration adds to it.
//! Never: decides how such a call goes; it only says that nothing may stop it.

use crate::dialplan::{Country, E164};

/// Emergency numbers that are honoured everywhere (3GPP TS 22.101 10.1.1).
pub const ALWAYS: [&str; 2] = ["112", "911"];

/// Emergency numbers by country, beside those of [`ALWAYS`] that work there: ITU-T E.129's national
/// numbering plans, 2026. 933 is the carriers' test of 911 in North America.
const BY_COUNTRY: &[(&str, &[&str])] = &[
    ("US", &["911", "933"]),
    ("CA", &["911", "933"]),
    ("MX", &["911"]),
    ("PH", &["911"]),
    ("AR", &["911"]),
    ("CR", &["911"]),
    ("GB", &["999", "112"]),
    ("IE", &["112", "999"]),
    ("PL", &["112", "997", "998", "999"]),
    ("DE", &["112", "110"]),
    ("FR", &["112", "15", "17", "18"]),
    ("IT", &["112", "113", "115", "118"]),
    ("AT", &["112", "122", "133", "144"]),
    ("CH", &["112", "117", "118", "144"]),
    ("CZ", &["112", "150", "155", "158"]),
    ("NO", &["112", "110", "113"]),
    ("AU", &["000", "112"]),
    ("NZ", &["111"]),
    ("JP", &["110", "119"]),
    ("KR", &["112", "119"]),
    ("CN", &["110", "119", "120"]),
    ("TW", &["110", "119"]),
    ("HK", &["999"]),
    ("MY", &["999"]),
    ("SG", &["995", "999"]),
    ("TH", &["191", "1669"]),
    ("BR", &["190", "192", "193"]),
    ("CL", &["131", "132", "133"]),
    ("CO", &["123"]),
    ("AE", &["997", "998", "999"]),
    ("ZA", &["112", "10111", "10177"]),
];

/// Returns the emergency numbers of a country; 112 of those that are not in the table.
pub fn by_country(country: Country) -> &'static [&'static str] {
    let code = country.to_string();
    let known = BY_COUNTRY.iter().find(|(known, _)| *known == code);
    known.map_or(&["112"], |(_, numbers)| numbers)
}

/// `[emergency]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Emergency {
    /// What must be reachable: the country's numbers, and what the configuration adds.
    pub numbers: Vec<Box<str>>,
    /// The number to call from, before any other.
    pub caller_id: Option<E164>,
    /// The trunk for those who have no rule for it.
    pub trunk: Option<Box<str>>,
}

impl Emergency {
    /// Returns whether a number that is sent to a carrier is one of an emergency service.
    pub fn is(&self, sent: &str) -> bool {
        ALWAYS.contains(&sent) || self.numbers.iter().any(|number| **number == *sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_have_their_numbers() {
        for (country, want) in [
            ("US", &["911", "933"][..]),
            ("GB", &["999", "112"]),
            ("NL", &["112"]),
            ("AU", &["000", "112"]),
        ] {
            assert_eq!(by_country(Country::parse(country).unwrap()), want);
        }
        for (code, numbers) in BY_COUNTRY {
            assert!(Country::parse(code).is_some(), "{code}");
            assert!(numbers.iter().all(|n| n.bytes().all(|b| b.is_ascii_digit())), "{code}");
        }
    }

    #[test]
    fn what_is_one_everywhere_is_one_here() {
        let emergency = Emergency { numbers: vec!["999".into()], ..Emergency::default() };
        for (number, want) in
            [("112", true), ("911", true), ("999", true), ("933", false), ("+1911", false)]
        {
            assert_eq!(emergency.is(number), want, "{number}");
        }
    }
}
