//! What a rule's `match` and `from` may say: a literal, an Asterisk pattern, a regular expression.
//!
//! Owns: reading, matching, and whether one pattern takes everything that another would.
//! Never: knows what a rule does. Matching takes time linear in the number, whatever the pattern.

use regex::{Regex, RegexBuilder};
use std::fmt;

/// How much memory one compiled expression may take: enough for any numbering plan.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// One pattern.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Exactly this.
    Literal(Box<str>),
    /// `_NXXZ.![1-5]`, as in Asterisk.
    Digits(Digits),
    /// `re:'...'`: the whole number must match.
    Regex(Expression),
}

/// An Asterisk pattern: a class of characters per position, and what may follow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Digits {
    source: Box<str>,
    classes: Box<[Class]>,
    tail: Tail,
}

/// A regular expression with the text it was made from.
#[derive(Clone, Debug)]
pub struct Expression {
    source: Box<str>,
    regex: Regex,
}

/// A set of ASCII characters, one bit each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Class(u128);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tail {
    /// Nothing may follow.
    Nothing,
    /// `.`: one or more characters.
    Some,
    /// `!`: any number of characters, also none.
    Any,
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// `""`
    #[error("the pattern is empty")]
    Empty,
    /// `_`
    #[error("nothing follows the `_` of the pattern")]
    NothingAfterUnderscore,
    /// `_1.X`
    #[error("`{0}` ends a pattern; nothing may follow it")]
    AfterTail(char),
    /// `_[1-`
    #[error("`[` without its `]`")]
    Bracket,
    /// `_[]`
    #[error("`[]` matches nothing")]
    EmptyBracket,
    /// `_[9-1]`
    #[error("the range `{0}-{1}` runs backwards")]
    Backwards(char, char),
    /// `_é`
    #[error("`{0}` cannot be dialled")]
    Character(char),
    /// Whatever the regular expression engine says.
    #[error("not a regular expression: {0}")]
    Regex(Box<str>),
}

impl Pattern {
    /// Reads a pattern; `_` begins an Asterisk pattern, `re:` a regular expression.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            Err(PatternError::Empty)
        } else if let Some(expression) = text.strip_prefix("re:") {
            Expression::parse(text, expression).map(Self::Regex)
        } else if let Some(pattern) = text.strip_prefix('_') {
            Digits::parse(text, pattern).map(Self::Digits)
        } else {
            Ok(Self::Literal(text.into()))
        }
    }

    /// Returns whether `number` fits.
    pub fn matches(&self, number: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *number,
            Self::Digits(digits) => digits.matches(number),
            Self::Regex(expression) => expression.regex.is_match(number),
        }
    }

    /// Returns what the named group of the expression holds for `number`, which fits it.
    pub fn group<'n>(&self, name: &str, number: &'n str) -> Option<&'n str> {
        match self {
            Self::Literal(_) | Self::Digits(_) => None,
            Self::Regex(expression) => {
                expression.regex.captures(number)?.name(name).map(|group| group.as_str())
            }
        }
    }

    /// Returns whether the expression has a group of this name.
    pub fn has_group(&self, name: &str) -> bool {
        match self {
            Self::Literal(_) | Self::Digits(_) => false,
            Self::Regex(expression) => {
                expression.regex.capture_names().flatten().any(|group| group == name)
            }
        }
    }

    /// Returns whether every number that `other` takes is certain to be taken by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Literal(number)) => self.matches(number),
            (Self::Digits(ours), Self::Digits(theirs)) => ours.covers(theirs),
            (Self::Digits(ours), Self::Regex(_)) => ours.takes_all(),
            (Self::Regex(ours), Self::Regex(theirs)) => ours.source == theirs.source,
            (Self::Literal(_), Self::Digits(_) | Self::Regex(_))
            | (Self::Regex(_), Self::Digits(_)) => false,
        }
    }

    /// Returns a number that fits, where one is easy to find.
    pub fn sample(&self) -> Option<String> {
        match self {
            Self::Literal(literal) => Some(literal.to_string()),
            Self::Digits(digits) => Some(digits.sample()),
            Self::Regex(_) => None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal(literal) => literal,
            Self::Digits(digits) => &digits.source,
            Self::Regex(expression) => &expression.source,
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Pattern {}

impl Digits {
    fn parse(source: &str, pattern: &str) -> Result<Self, PatternError> {
        let mut classes = vec![];
        let mut tail = Tail::Nothing;
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            match tail {
                Tail::Nothing => {}
                Tail::Some => return Err(PatternError::AfterTail('.')),
                Tail::Any => return Err(PatternError::AfterTail('!')),
            }
            match c {
                'X' | 'x' => classes.push(Class::range('0', '9')?),
                'Z' | 'z' => classes.push(Class::range('1', '9')?),
                'N' | 'n' => classes.push(Class::range('2', '9')?),
                '[' => {
                    let (inside, after) =
                        rest.as_str().split_once(']').ok_or(PatternError::Bracket)?;
                    classes.push(Class::bracket(inside)?);
                    rest = after.chars();
                }
                '.' => tail = Tail::Some,
                '!' => tail = Tail::Any,
                '-' | ' ' => {} // For the reader's eye only, as in Asterisk.
                literal => classes.push(Class::one(literal)?),
            }
        }
        if classes.is_empty() && tail == Tail::Nothing {
            return Err(PatternError::NothingAfterUnderscore);
        }
        Ok(Self { source: source.into(), classes: classes.into(), tail })
    }

    fn matches(&self, number: &str) -> bool {
        let Some((head, rest)) = number.as_bytes().split_at_checked(self.classes.len()) else {
            return false;
        };
        let tail = match self.tail {
            Tail::Nothing => rest.is_empty(),
            Tail::Some => !rest.is_empty(),
            Tail::Any => true,
        };
        tail && self.classes.iter().zip(head).all(|(class, byte)| class.has(*byte))
    }

    fn covers(&self, other: &Self) -> bool {
        let heads = self.classes.len() <= other.classes.len()
            && self.classes.iter().zip(&other.classes).all(|(ours, theirs)| ours.covers(*theirs));
        let lengths = match (self.tail, other.tail) {
            (Tail::Nothing, Tail::Nothing) => self.classes.len() == other.classes.len(),
            (Tail::Nothing, Tail::Some | Tail::Any) => false,
            (Tail::Some, Tail::Nothing | Tail::Any) => self.classes.len() < other.classes.len(),
            (Tail::Some, Tail::Some) | (Tail::Any, _) => true,
        };
        heads && lengths
    }

    fn takes_all(&self) -> bool {
        self.classes.is_empty()
    }

    fn sample(&self) -> String {
        let head = self.classes.iter().map(|class| class.first());
        let tail = match self.tail {
            Tail::Nothing | Tail::Any => None,
            Tail::Some => Some('0'),
        };
        head.chain(tail).collect()
    }
}

impl Class {
    fn one(c: char) -> Result<Self, PatternError> {
        match u8::try_from(c) {
            Ok(byte) if c.is_ascii_graphic() => Ok(Self(1 << byte)),
            Ok(_) | Err(_) => Err(PatternError::Character(c)),
        }
    }

    fn range(first: char, last: char) -> Result<Self, PatternError> {
        if first > last {
            return Err(PatternError::Backwards(first, last));
        }
        (first..=last).try_fold(Self(0), |class, c| Ok(class.or(Self::one(c)?)))
    }

    /// Reads what stands between brackets: `1-5`, `13579`, `0-27*`.
    fn bracket(inside: &str) -> Result<Self, PatternError> {
        let mut class = Self(0);
        let mut rest = inside.chars();
        while let Some(first) = rest.next() {
            let mut ahead = rest.clone();
            class = class.or(match (ahead.next(), ahead.next()) {
                (Some('-'), Some(last)) => {
                    rest = ahead;
                    Self::range(first, last)?
                }
                (Some(_) | None, _) => Self::one(first)?,
            });
        }
        if class == Self(0) { Err(PatternError::EmptyBracket) } else { Ok(class) }
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, byte: u8) -> bool {
        byte.is_ascii() && self.0 & (1 << byte) != 0
    }

    fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn first(self) -> char {
        char::from(self.0.trailing_zeros() as u8)
    }
}

impl Expression {
    fn parse(source: &str, expression: &str) -> Result<Self, PatternError> {
        let quoted = expression.strip_prefix('\'').and_then(|e| e.strip_suffix('\''));
        let whole = format!("^(?:{})$", quoted.unwrap_or(expression));
        // Compiled alone first, so that a stray `)` cannot escape from the anchors.
        let alone =
            RegexBuilder::new(quoted.unwrap_or(expression)).size_limit(REGEX_BYTES_MAX).build();
        let regex = alone
            .and_then(|_| RegexBuilder::new(&whole).size_limit(REGEX_BYTES_MAX).build())
            .map_err(|error| PatternError::Regex(last_line(&error.to_string())))?;
        Ok(Self { source: source.into(), regex })
    }
}

/// The engine draws a picture of the expression above its sentence; the caret of ours says where.
fn last_line(error: &str) -> Box<str> {
    let line = error.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_asterisk() {
        for (pattern, yes, no) in [
            ("1001", &["1001"][..], &["10011", "100", ""][..]),
            ("_1XXX", &["1001", "1999"], &["2001", "100", "10011", "1a00"]),
            ("_NXXNXXXXXX", &["4155550199"], &["1155550199", "4150550199"]),
            ("_Z!", &["1", "19", "9abc"], &["0", ""]),
            ("_+.", &["+1", "+14155550199"], &["+", "1", ""]),
            ("_[1-357].", &["10", "30", "5x", "70"], &["40", "60", "1", "80"]),
            ("_*9[78]", &["*97", "*98"], &["*99", "97"]),
            ("_1-800-XXX", &["1800123"], &["1-800-123"]),
            ("re:'00(?<rest>[0-9]+)'", &["0031"], &["00", "x0031", "0031x"]),
            ("re:a|b", &["a", "b"], &["ab", "ax", "xb"]),
            ("re:(?i)bob", &["BOB", "bob"], &["bobby"]),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            for number in yes {
                assert!(read.matches(number), "{pattern} {number}");
            }
            for number in no {
                assert!(!read.matches(number), "{pattern} {number}");
            }
            assert_eq!(read.to_string(), pattern);
        }
    }

    #[test]
    fn named_groups_are_found() {
        let pattern = Pattern::parse("re:'9(?<rest>[0-9]+)'").unwrap();
        assert_eq!(pattern.group("rest", "9123"), Some("123"));
        assert!(pattern.has_group("rest") && !pattern.has_group("other"));
    }

    #[test]
    fn one_pattern_covers_another_only_when_it_surely_does() {
        for (ours, theirs, want) in [
            ("_+.", "+17756187988", true),
            ("_+.", "_+1900XXXXXXX", true),
            ("_+1900XXXXXXX", "_+.", false),
            ("_X.", "_1XXX", true),
            ("_X.", "_1", false),
            ("_X!", "_1", true),
            ("_X.", "_X!", false),
            ("_X!", "_X.", true),
            ("_1XXX", "_1XXX", true),
            ("_1XXX", "_1[0-5]XX", true),
            ("_1[0-5]XX", "_1XXX", false),
            ("_NXX", "_ZXX", false),
            ("_XX.", "_X.", false),
            ("1001", "1001", true),
            ("1001", "_1001", false),
            ("re:10..", "1001", true),
            ("re:10..", "re:10..", true),
            ("re:1...", "re:10..", false),
            ("_!", "re:10..", true),
        ] {
            let [a, b] = [ours, theirs].map(|text| Pattern::parse(text).unwrap());
            assert_eq!(a.covers(&b), want, "{ours} {theirs}");
        }
    }

    #[test]
    fn samples_fit() {
        for pattern in ["1001", "_1XXX", "_+.", "_N[2-4]Z!", "_*9[78]"] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(pattern.matches(&pattern.sample().unwrap()), "{pattern}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (pattern, want) in [
            ("", "the pattern is empty"),
            ("_", "nothing follows the `_` of the pattern"),
            ("_1.X", "`.` ends a pattern; nothing may follow it"),
            ("_1!!", "`!` ends a pattern; nothing may follow it"),
            ("_[1-", "`[` without its `]`"),
            ("_[]", "`[]` matches nothing"),
            ("_[9-1]", "the range `9-1` runs backwards"),
            ("_1é", "`é` cannot be dialled"),
            ("re:(", "not a regular expression: unclosed group"),
            ("re:a)|(b", "not a regular expression: unopened group"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap_err().to_string(), want);
        }
    }
}
