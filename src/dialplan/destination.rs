//! What a number is for, and which numbers may be called.
//!
//! Owns: the kinds of numbers, a table of the ranges that no metadata knows, `allow`.
//! Never: decides alone; the guards put what several sections allow together.

use super::{
    number::{Country, E164, kind_of},
    pattern::Pattern,
};
use std::fmt;

/// What a number is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    /// Also numbers of which nobody can say whether they are mobile, as in North America.
    Fixed,
    Mobile,
    TollFree,
    Premium,
    SharedCost,
    Voip,
    Personal,
    Pager,
    /// A company's universal number.
    Uan,
    /// Satellite telephones and international networks.
    Satellite,
    /// Not given out, or given out since the metadata was made.
    Unknown,
}

impl Kind {
    /// Every kind and its word in the configuration.
    pub const WORDS: [(&'static str, Self); 11] = [
        ("fixed", Self::Fixed),
        ("mobile", Self::Mobile),
        ("toll_free", Self::TollFree),
        ("premium", Self::Premium),
        ("shared_cost", Self::SharedCost),
        ("voip", Self::Voip),
        ("personal", Self::Personal),
        ("pager", Self::Pager),
        ("uan", Self::Uan),
        ("satellite", Self::Satellite),
        ("unknown", Self::Unknown),
    ];

    /// What is denied where nobody says: what costs by the minute like nothing else, and what is
    /// called by nobody but thieves.
    pub const DENIED: [Self; 2] = [Self::Premium, Self::Satellite];

    /// Returns what a number is for: by our own table, then by Google's metadata.
    pub fn of(number: &E164) -> Self {
        Self::of_range(number).unwrap_or_else(|| kind_of(number))
    }

    /// Returns the same, where the metadata says nothing of it or is wrong.
    pub(super) fn of_range(number: &E164) -> Option<Self> {
        let fits = |prefix: &&str| number.expose().starts_with(*prefix);
        RANGES.iter().find(|(prefix, ..)| fits(prefix)).map(|(_, kind, _)| *kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, kind)| kind == self);
        f.write_str(word.map_or("unknown", |(word, _)| word))
    }
}

/// Ranges that belong to no country, by ITU-T E.164's list of assigned codes (annex to Operational
/// Bulletin 1114): prefix, what it is treated as, whose it is.
const RANGES: [(&str, Kind, &str); 7] = [
    ("+870", Kind::Satellite, "Inmarsat"),
    ("+881", Kind::Satellite, "global mobile satellite systems: Iridium, Globalstar"),
    ("+882", Kind::Satellite, "international networks, at sea, in the air, by satellite"),
    ("+883", Kind::Satellite, "international networks"),
    ("+878", Kind::Personal, "universal personal telecommunication"),
    ("+979", Kind::Premium, "international premium rate service"),
    ("+808", Kind::SharedCost, "international shared cost service"),
];

/// Which countries may be called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Countries {
    /// All of them, and what belongs to none.
    Any,
    /// These.
    These(Vec<Country>),
}

impl Countries {
    /// Returns whether a number of this country may be called; `None`: it belongs to none.
    pub fn has(&self, country: Option<Country>) -> bool {
        match self {
            Self::Any => true,
            Self::These(these) => country.is_some_and(|country| these.contains(&country)),
        }
    }
}

/// `allow = { countries, deny_types, numbers }`: which numbers may be called. What is not said is
/// not restricted here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Allow {
    /// Where to.
    pub countries: Option<Countries>,
    /// What may not be called there.
    pub deny: Option<Vec<Kind>>,
    /// What may be called in spite of all that: E.164 numbers, or numbers as they are sent.
    pub numbers: Vec<Pattern>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart() {
        for (number, want) in [
            ("+14155550199", Kind::Fixed),
            ("+18005550199", Kind::TollFree),
            ("+19002345678", Kind::Premium),
            ("+31612345678", Kind::Mobile),
            ("+31207654321", Kind::Fixed),
            ("+319001234", Kind::Premium),
            ("+447911123456", Kind::Mobile),
            ("+449098790000", Kind::Premium),
            ("+881612345678", Kind::Satellite),
            ("+870773111632", Kind::Satellite),
            ("+88213300655", Kind::Satellite),
            ("+883510012345", Kind::Satellite),
            ("+979123456789", Kind::Premium),
            ("+80812345678", Kind::SharedCost),
            ("+12225550199", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(&E164::parse(number).unwrap()), want, "{number}");
        }
    }
}
