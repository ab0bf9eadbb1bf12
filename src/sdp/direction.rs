//! Who sends and who receives in a stream (RFC 3264 5.1, RFC 8866 6.7).
//!
//! Owns: the four directions and how they combine.
//! Never: says whose direction it is; the field that holds one does.

use std::fmt;

/// The direction of a stream, as seen from the side that describes it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Direction {
    /// Both ways; what an absent attribute means.
    #[default]
    SendRecv,
    /// The describing side sends only: it has put the other on hold.
    SendOnly,
    /// The describing side receives only: it is on hold.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// Returns the direction of a side that sends and receives as told.
    pub fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Reads an attribute's name, which is case-sensitive (RFC 8866 6).
    pub fn parse(attribute: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.attribute() == attribute)
    }

    /// Returns the attribute's name: `sendrecv`.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// Returns whether the describing side sends.
    pub fn sends(self) -> bool {
        match self {
            Self::SendRecv | Self::SendOnly => true,
            Self::RecvOnly | Self::Inactive => false,
        }
    }

    /// Returns whether the describing side receives.
    pub fn receives(self) -> bool {
        match self {
            Self::SendRecv | Self::RecvOnly => true,
            Self::SendOnly | Self::Inactive => false,
        }
    }

    /// Returns the same stream as seen from the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::of(self.receives(), self.sends())
    }

    /// Returns what both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(self.sends() && other.sends(), self.receives() && other.receives())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.attribute())
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{self, Inactive, RecvOnly, SendOnly, SendRecv};

    #[test]
    fn directions_reverse_and_combine() {
        for (direction, reversed, and_recvonly) in [
            (SendRecv, SendRecv, RecvOnly),
            (SendOnly, RecvOnly, Inactive),
            (RecvOnly, SendOnly, RecvOnly),
            (Inactive, Inactive, Inactive),
        ] {
            assert_eq!(direction.reversed(), reversed);
            assert_eq!(direction.and(RecvOnly), and_recvonly);
            assert_eq!(Direction::parse(direction.attribute()), Some(direction));
        }
        assert_eq!(Direction::parse("SENDRECV"), None);
    }
}
