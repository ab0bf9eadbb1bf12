//! Whether a number may be called, by everything that is said about it.
//!
//! Owns: putting the `allow`s of rule, user and trunk together, and what holds where none says.
//! Never: knows who calls.

use super::Refusal;
use crate::dialplan::{Allow, Country, E164, Kind, place};

/// More digits than this, and it is meant for the telephone network: what cannot be read as a number
/// of it is not sent there.
const SHORT_DIGITS_MAX: usize = 7;

/// What is known of a number that is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// Its E.164 form; `None` of short numbers and names, which mean something to the carrier alone.
    pub number: Option<E164>,
    /// Where it was given out; `None` where no country did.
    pub country: Option<Country>,
    /// What it is for; `None` without a number.
    pub kind: Option<Kind>,
}

impl Destination {
    /// Reads the number that goes to a carrier: E.164, or as dialled in `home`.
    pub fn read(number: &str, home: Country) -> Self {
        let number = E164::parse(number).or_else(|| home.normalise(number));
        let (country, kind) = number.as_ref().map(place).unzip();
        Self { country: country.flatten(), kind, number }
    }

    /// Returns whether the number that was `sent` may be called, by every one of `allows`. Where
    /// none of them names countries, `home` is the one; where none denies a kind, premium and
    /// satellite numbers are denied.
    pub fn check(&self, sent: &str, home: Country, allows: &[&Allow]) -> Result<(), Refusal> {
        let numbers = || [Some(sent), self.number.as_ref().map(E164::expose)].into_iter().flatten();
        let named = |allow: &&Allow| {
            allow.numbers.iter().any(|pattern| numbers().any(|number| pattern.matches(number)))
        };
        // Every `allow` must let it pass; one that names the number does.
        let is_named = allows.iter().any(&named);
        let rest = || allows.iter().filter(|allow| !named(allow));
        let (Some(_), Some(kind)) = (&self.number, self.kind) else {
            let digits = sent.bytes().filter(u8::is_ascii_digit).count();
            let is_short = digits <= SHORT_DIGITS_MAX && !sent.starts_with('+');
            return if is_short || is_named { Ok(()) } else { Err(Refusal::NotANumber) };
        };
        let is_denied = if is_named || allows.iter().any(|allow| allow.deny.is_some()) {
            rest().filter_map(|allow| allow.deny.as_deref()).any(|kinds| kinds.contains(&kind))
        } else {
            Kind::DENIED.contains(&kind)
        };
        if is_denied {
            return Err(Refusal::Kind(kind));
        }
        let is_elsewhere = if is_named || allows.iter().any(|allow| allow.countries.is_some()) {
            let mut said = rest().filter_map(|allow| allow.countries.as_ref());
            said.any(|countries| !countries.has(self.country))
        } else {
            self.country != Some(home)
        };
        // A toll-free number of a country that shares its code with others is a number of all of them.
        let is_free = kind == Kind::TollFree && self.shares_code_with(home);
        if !is_free && is_elsewhere {
            return Err(Refusal::Country { country: self.country, kind });
        }
        Ok(())
    }

    fn shares_code_with(&self, home: Country) -> bool {
        let Some(number) = &self.number else { return false };
        self.country == Some(home)
            || (number.expose().starts_with("+1") && home.is_north_american())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialplan::{Countries, Pattern};

    fn country(code: &str) -> Country {
        Country::parse(code).unwrap()
    }

    fn countries(codes: &[&str]) -> Allow {
        let codes = codes.iter().map(|code| country(code)).collect();
        Allow { countries: Some(Countries::These(codes)), ..Allow::default() }
    }

    fn said(home: &str, number: &str, allows: &[&Allow]) -> String {
        let home = country(home);
        match Destination::read(number, home).check(number, home, allows) {
            Ok(()) => "allowed".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }

    /// Without a word about it: the own country, and nothing dear.
    #[test]
    fn the_default_is_the_own_country_without_what_is_dear() {
        for (home, number, want) in [
            ("US", "+14155550199", "allowed"),
            ("US", "+18005550199", "allowed"),
            ("CA", "+18005550199", "allowed"),
            ("US", "+14165550123", "calls to CA are not allowed"),
            ("US", "+31207654321", "calls to NL are not allowed"),
            ("NL", "+31207654321", "allowed"),
            ("NL", "0207654321", "allowed"),
            ("NL", "+14155550199", "calls to US are not allowed"),
            ("US", "+19002345678", "calls to premium numbers are not allowed"),
            ("US", "+881612345678", "calls to satellite numbers are not allowed"),
            ("US", "411", "allowed"),
            ("US", "*97", "allowed"),
            ("US", "2001", "allowed"),
            ("US", "99999999", "what was dialled is not a telephone number"),
            ("US", "+12345", "what was dialled is not a telephone number"),
        ] {
            assert_eq!(said(home, number, &[]), want, "{home} {number}");
        }
    }

    #[test]
    fn every_allow_must_let_it_pass() {
        let any = Allow { countries: Some(Countries::Any), ..Allow::default() };
        let europe = countries(&["NL", "GB"]);
        let all = Allow { deny: Some(vec![]), ..any.clone() };
        let fixed_only = Allow { deny: Some(vec![Kind::Mobile]), ..countries(&["NL"]) };
        let named = |pattern: &str| Allow {
            numbers: vec![Pattern::parse(pattern).unwrap()],
            ..countries(&["US"])
        };
        let (one, range) = (named("+31207654321"), named("_+1900234."));
        for (number, allows, want) in [
            ("+31207654321", &[&europe][..], "allowed"),
            ("+14155550199", &[&europe], "calls to US are not allowed"),
            ("+31207654321", &[&europe, &countries(&["GB"])], "calls to NL are not allowed"),
            ("+31207654321", &[&Allow::default()], "calls to NL are not allowed"),
            ("+31207654321", &[&any, &Allow::default()], "allowed"),
            ("+19002345678", &[&any], "calls to premium numbers are not allowed"),
            ("+19002345678", &[&all], "allowed"),
            ("+881612345678", &[&all], "allowed"),
            ("+31612345678", &[&fixed_only], "calls to mobile numbers are not allowed"),
            ("+31207654321", &[&one], "allowed"),
            ("+31207654322", &[&one], "calls to NL are not allowed"),
            ("+19002345678", &[&range], "allowed"),
            // What one names, the other may still deny.
            ("+31207654321", &[&one, &countries(&["GB"])], "calls to NL are not allowed"),
        ] {
            assert_eq!(said("US", number, allows), want, "{number} {allows:?}");
        }
    }
}
