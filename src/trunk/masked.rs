//! Telephone numbers as people may see them.
//!
//! Owns: what of a number is shown.
//! Never: keeps the rest.

use std::fmt;

/// How many digits in a row make a number worth hiding.
const HIDDEN_FROM: usize = 7;

/// A telephone number of which only the masked form was kept: `+1415****234`.
#[derive(Clone, Eq, PartialEq)]
pub struct Masked(Box<str>);

impl Masked {
    /// Masks a number.
    pub fn new(number: &str) -> Self {
        Self(mask_numbers(number).into())
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Masks whatever looks like a telephone number in `text`: the first four and the last three digits
/// of a run of seven or more stay (two and two of one shorter than nine).
pub fn mask_numbers(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            run.push(c);
        } else {
            push_run(&mut masked, &mut run);
            masked.push(c);
        }
    }
    push_run(&mut masked, &mut run);
    masked
}

fn push_run(masked: &mut String, run: &mut String) {
    let (head, tail) = if run.len() < 9 { (2, 2) } else { (4, 3) };
    let hidden = run.len() >= HIDDEN_FROM;
    match (run.get(..head), run.get(run.len().saturating_sub(tail)..)) {
        (Some(head), Some(tail)) if hidden => {
            masked.push_str(head);
            masked.push_str("****");
            masked.push_str(tail);
        }
        (Some(_) | None, _) => masked.push_str(run),
    }
    run.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_country_and_its_end() {
        for (number, want) in [
            ("+14155551234", "+1415****234"),
            ("4155551234", "4155****234"),
            ("+4144668", "+41****68"),
            ("1001", "1001"),
            ("911", "911"),
            ("anonymous", "anonymous"),
            ("", ""),
            ("sip:+14155551234@10.0.0.1:5060", "sip:+1415****234@10.0.0.1:5060"),
            ("from +14155551234 to +17756187988.", "from +1415****234 to +1775****988."),
        ] {
            assert_eq!(mask_numbers(number), want);
            assert_eq!(format!("{:?}", Masked::new(number)), want);
        }
    }
}
