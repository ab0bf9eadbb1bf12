//! What nobody may read by accident.
//!
//! Owns: keeping a secret out of logs, reports and panics.
//! Never: finds one; `env:` and `file:` are resolved before.

use crate::wipe;
use std::fmt;

/// A password or a hash of one. Prints as `***`, and is overwritten when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the secret, for the digest and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe::text(&mut self.0);
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Stars out the secrets that a file spells out, so that the file can be shown. Every byte keeps its
/// place. A key counts as a secret's however it is misspelt, if it begins like one.
pub(super) fn blanked(text: &str) -> String {
    text.split_inclusive('\n').map(blanked_line).collect()
}

fn blanked_line(line: &str) -> String {
    let key = line.split_once('=').map_or("", |(key, _)| key.trim()).to_ascii_lowercase();
    let is_secret = ["pas", "ha1", "secret"].iter().any(|word| key.contains(word));
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, quote, inside, after)) = quoted(rest) {
        shown.push_str(before);
        shown.push(quote);
        if is_hash(inside) || (is_secret && !inside.starts_with("env:") && !is_file(inside)) {
            shown.extend(std::iter::repeat_n('*', inside.len()));
        } else {
            shown.push_str(inside);
        }
        shown.push(quote);
        rest = after;
    }
    if is_secret && (shown.is_empty() || rest.contains(['"', '\''])) {
        return shown + &starred_value(rest);
    }
    shown + rest
}

/// Stars out a value that is no string: its quotes are missing, or one of them.
fn starred_value(text: &str) -> String {
    let value = text.find('=').map_or(0, |at| at + 1);
    let (key, value) = text.split_at(value);
    let star = |c: char| if c.is_alphanumeric() { "*".repeat(c.len_utf8()) } else { c.to_string() };
    key.to_owned() + &value.chars().map(star).collect::<String>()
}

/// Splits at the first quoted string: what is before it, its quote, what is inside, and after it.
fn quoted(text: &str) -> Option<(&str, char, &str, &str)> {
    let (before, opened) = text.split_once(['"', '\''])?;
    let quote = text.get(before.len()..)?.chars().next()?;
    let (inside, after) = opened.split_once(quote)?;
    Some((before, quote, inside, after))
}

/// An `ha1` is so many hexadecimal digits, wherever its key may be.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 32 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_file(text: &str) -> bool {
    text.starts_with("file:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shown_without_its_secrets() {
        let md5 = "0123456789abcdef0123456789abcdef";
        for (line, want) in [
            ("password = \"hunter2\" # mine\n", "password = \"*******\" # mine\n"),
            ("pasword='hünter2'", "pasword='********'"),
            ("password = \"env:PASSWORD\"\n", "password = \"env:PASSWORD\"\n"),
            ("password = 'file:secret'\n", "password = 'file:secret'\n"),
            ("name = \"Alice\"\n", "name = \"Alice\"\n"),
            ("password = \"hunter2\n", "password = \"*******\n"),
            ("password = hunter2\n", "password = *******\n"),
            ("passwords are not kept here = 'x'\n", "passwords are not kept here = '*'\n"),
            ("# passwords: see below\n", "# passwords: see below\n"),
        ] {
            assert_eq!(blanked(line), want);
            assert_eq!(blanked(line).len(), line.len());
        }
        let two = format!("ha1 = [\"{md5}\",\n  \"{md5}\"]\n");
        assert_eq!(blanked(&two), two.replace(md5, &"*".repeat(32)));
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
