//! Which number a call is shown to come from.
//!
//! Owns: `owned` and `verified`, the number by the country that is called, ranges not worth showing.
//! Never: makes a number up: what nobody configured is not sent.

use super::Refusal;
use crate::dialplan::{Country, E164, Pattern};
use std::collections::BTreeMap;

/// Who may be shown as calling through a trunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Callers {
    /// The carrier takes these numbers as ours; `None`: whatever is configured.
    pub owned: Option<Vec<Pattern>>,
    /// The number to call from, by the country that is called.
    pub by_country: BTreeMap<Country, E164>,
    /// Whether an anonymous call's From names nobody (RFC 3323 4.1); otherwise it keeps the number,
    /// and the Privacy header alone asks for silence.
    pub anonymous_from: bool,
}

/// A range from which no call should seem to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weak {
    /// How its numbers begin.
    pub prefix: &'static str,
    /// Where calls from it are refused or distrusted; `None`: everywhere.
    pub towards: Option<&'static str>,
    /// What the numbers are for.
    pub what: &'static str,
}

/// Ranges that carriers refuse as a caller ID, or that nobody calls back. Sources: NL: numbering plan
/// (ACM), 097 is for machines and 0906, 0909 and 0900 are priced; GB: Ofcom's guidance on calling line
/// identification, 4.13; DE: section 120 of the telecommunications act (TKG); US: 47 CFR 64.1504 and
/// the NANP's use of 900.
const WEAK: [Weak; 8] = [
    Weak { prefix: "+3197", towards: Some("NL"), what: "numbers of machines" },
    Weak { prefix: "+31900", towards: None, what: "priced information numbers" },
    Weak { prefix: "+31906", towards: None, what: "priced information numbers" },
    Weak { prefix: "+31909", towards: None, what: "priced information numbers" },
    Weak { prefix: "+449", towards: None, what: "premium rate numbers" },
    Weak { prefix: "+49900", towards: None, what: "premium rate numbers" },
    Weak { prefix: "+49137", towards: None, what: "numbers of mass calling" },
    Weak { prefix: "+1900", towards: None, what: "premium rate numbers" },
];

/// Returns what speaks against showing a number in a country; `None` as the country: in any.
pub fn weakness(number: &E164, towards: Option<Country>) -> Option<Weak> {
    WEAK.into_iter().find(|weak| {
        let is_here = |place: &str| towards.is_none_or(|towards| towards.is(place));
        number.expose().starts_with(weak.prefix) && weak.towards.is_none_or(is_here)
    })
}

impl Callers {
    /// Returns whether the carrier takes a number as ours.
    pub fn owns(&self, number: &E164) -> bool {
        let owned = self.owned.as_ref();
        owned.is_none_or(|owned| owned.iter().any(|pattern| pattern.matches(number.expose())))
    }

    /// Returns those of `numbers` that may be shown to somebody in `country`, in their order; why
    /// not, where there is none.
    pub fn choose<'n>(
        &self,
        numbers: impl IntoIterator<Item = &'n E164>,
        country: Option<Country>,
    ) -> Result<Vec<&'n E164>, Refusal> {
        let mut first = None;
        let mut chosen: Vec<&E164> = vec![];
        for number in numbers {
            match self.refuse(number, country) {
                Some(refusal) => first = first.or(Some(refusal)),
                None if chosen.contains(&number) => {}
                None => chosen.push(number),
            }
        }
        if chosen.is_empty() { Err(first.unwrap_or(Refusal::NoCallerId)) } else { Ok(chosen) }
    }

    fn refuse(&self, number: &E164, country: Option<Country>) -> Option<Refusal> {
        if !self.owns(number) {
            return Some(Refusal::NotOwned(number.clone()));
        }
        let country = country?;
        weakness(number, Some(country)).map(|weak| Refusal::Weak(number.clone(), weak.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e164(text: &str) -> E164 {
        E164::parse(text).unwrap()
    }

    #[test]
    fn the_first_number_that_may_be_shown_is() {
        let owned = |patterns: &[&str]| {
            let read = patterns.iter().map(|text| Pattern::parse(text).unwrap());
            Callers { owned: Some(read.collect()), ..Callers::default() }
        };
        let anything = Callers::default();
        let ours = owned(&["+17756187988", "_+1415555XXXX", "_+31."]);
        for (callers, numbers, towards, want) in [
            (&anything, &["+12125550100"][..], "US", "+12125550100"),
            (&ours, &["+12125550100", "+17756187988"], "US", "+17756187988"),
            (&ours, &["+14155550100", "+17756187988"], "US", "+14155550100"),
            (&ours, &["+14155550100", "+17756187988"], "NL", "+14155550100"),
            (&ours, &["+12125550100"], "US", "+1212****100 is neither owned nor verified there"),
            (&ours, &[], "US", "there is no number to call from"),
            (&ours, &["+31970123456", "+17756187988"], "NL", "+17756187988"),
            (&ours, &["+31970123456", "+17756187988"], "US", "+31970123456"),
            (
                &ours,
                &["+31970123456"],
                "NL",
                "+3197****456 is not worth showing there: it is one of the numbers of machines",
            ),
        ] {
            let numbers: Vec<_> = numbers.iter().map(|text| e164(text)).collect();
            let got = match callers.choose(&numbers, Country::parse(towards)) {
                Ok(chosen) => chosen[0].expose().to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            assert_eq!(got, want, "{numbers:?} {towards}");
        }
    }

    #[test]
    fn every_number_that_may_be_shown_is_named_once() {
        let numbers = ["+17756187988", "+14155550100", "+17756187988"].map(e164);
        let chosen = Callers::default().choose(&numbers, None).unwrap();
        assert_eq!(chosen, [&numbers[0], &numbers[1]]);
    }
}
