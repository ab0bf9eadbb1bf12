//! Secrets leave no copy behind in memory that is given back.
//!
//! Owns: how bytes are overwritten, so that no optimization leaves that out.
//! Never: knows what is secret; whoever holds it does, and what holds it does not print.
//!
//! What others keep is theirs: rustls its keys, the ciphers of SRTP theirs, the kernel what was read. Core
//! dumps, the way in which memory of a running process reaches a disk, are off (`shell::core_dumps`).

use std::{fmt, ops::Deref};
use zeroize::Zeroize;

/// Overwrites bytes.
pub fn bytes(secret: &mut [u8]) {
    secret.zeroize();
}

/// Overwrites a text; it is as long as before.
pub fn text(secret: &mut str) {
    secret.zeroize();
}

/// A text that is overwritten when it is dropped. It prints as `***`.
#[derive(Clone, Eq, PartialEq)]
pub struct Passing(String);

impl Passing {
    /// Takes a text, which must not be one of several copies.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl Deref for Passing {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_zeros() {
        let (mut key, mut password) = ([7; 44], "hunter2 ü".to_owned());
        bytes(&mut key);
        text(&mut password);
        assert_eq!(key, [0; 44]);
        assert_eq!(password, "\0".repeat(10));
    }

    #[test]
    fn what_passes_does_not_print() {
        let passing = Passing::new("hunter2".to_owned());
        assert_eq!((format!("{passing:?}"), &*passing), ("***".to_owned(), "hunter2"));
    }
}
