//! Call-IDs that say where a call is kept, so that nothing has to be looked up.
//!
//! Owns: the shape. Never: the calls.

/// A place, and which of those that were kept there one after the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ident {
    /// The place.
    pub slot: u32,
    /// The serial number of whoever is there.
    pub serial: u32,
}

/// The serial number with which this run begins. A target remembers a call for half a minute, and a
/// registration for longer: what another run has said must not look like a copy of it.
pub fn first_serial() -> u32 {
    std::process::id().wrapping_mul(0x9e37_79b1)
}

impl Ident {
    /// Sixteen hexadecimal digits.
    pub fn text(self) -> [u8; 16] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let value = u64::from(self.serial) << 32 | u64::from(self.slot);
        let mut text = [0; 16];
        for (place, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(value >> (60 - 4 * place) & 15) as usize];
        }
        text
    }

    /// Reads the first sixteen characters of a Call-ID.
    pub fn read(text: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(text.get(..16)?).ok()?;
        let value = u64::from_str_radix(digits, 16).ok()?;
        Some(Self { slot: value as u32, serial: (value >> 32) as u32 })
    }
}

/// A number to call: every `X` in the pattern is a digit that changes from call to call.
#[derive(Clone, Debug)]
pub struct Numbers {
    pattern: Vec<u8>,
}

impl Numbers {
    /// `+1415555XXXX`, for example.
    pub fn new(pattern: &str) -> Self {
        Self { pattern: pattern.as_bytes().to_vec() }
    }

    /// That of one call.
    pub fn number(&self, mut serial: u32) -> Vec<u8> {
        let mut number = self.pattern.clone();
        for place in number.iter_mut().rev().filter(|place| **place == b'X') {
            *place = b'0' + (serial % 10) as u8;
            serial /= 10;
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let ident = Ident { slot: 77, serial: 0xdead_beef };
        assert_eq!(&ident.text(), b"deadbeef0000004d");
        assert_eq!(Ident::read(b"deadbeef0000004d@127.0.0.1"), Some(ident));
        assert_eq!(Ident::read(b"deadbeef0000004"), None);
        assert_eq!(Ident::read(b"another's-call-id"), None);
    }

    #[test]
    fn numbers_differ_from_call_to_call() {
        let numbers = Numbers::new("+1415555XXXX");
        assert_eq!(numbers.number(42), b"+14155550042");
        assert_eq!(numbers.number(120_007), b"+14155550007");
        assert_eq!(Numbers::new("1002").number(5), b"1002");
    }
}
