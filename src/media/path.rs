//! What happens to each payload type on its way from one leg to the other.
//!
//! Owns: the map from 128 payload types to 128 others.
//! Never: knows what the payload types mean, beyond the two of G.711 it can convert.

/// What happens to a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Convert {
    /// Nothing: it is copied undecoded.
    Keep,
    /// PCMU becomes PCMA.
    UlawToAlaw,
    /// PCMA becomes PCMU.
    AlawToUlaw,
}

/// Where one payload type leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hop {
    /// The payload type the other side knows it by.
    pub payload_type: u8,
    /// What happens to the payload.
    pub convert: Convert,
}

/// Where each payload type leads; one that leads nowhere is discarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathMap(Box<[Option<Hop>; 128]>);

impl Default for PathMap {
    fn default() -> Self {
        Self::new()
    }
}

impl PathMap {
    /// Creates a map in which nothing leads anywhere.
    pub fn new() -> Self {
        Self(Box::new([None; 128]))
    }

    /// Says where `from` leads. A payload type above 127 does not exist, and is ignored.
    pub fn set(&mut self, from: u8, to: u8, convert: Convert) {
        if let (Some(entry), 0..=127) = (self.0.get_mut(usize::from(from)), to) {
            *entry = Some(Hop { payload_type: to, convert });
        }
    }

    /// The same as [`Self::set`], for building a map in one expression.
    #[must_use]
    pub fn with(mut self, from: u8, to: u8, convert: Convert) -> Self {
        self.set(from, to, convert);
        self
    }

    /// Returns where `from` leads.
    pub fn hop(&self, from: u8) -> Option<Hop> {
        self.0.get(usize::from(from)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_only_where_it_was_told() {
        let map = PathMap::new()
            .with(0, 8, Convert::UlawToAlaw)
            .with(101, 96, Convert::Keep)
            .with(128, 0, Convert::Keep)
            .with(1, 128, Convert::Keep);
        let led = (0..=255).filter_map(|pt| Some((pt, map.hop(pt)?.payload_type)));
        assert_eq!(led.collect::<Vec<_>>(), [(0, 8), (101, 96)]);
    }
}
