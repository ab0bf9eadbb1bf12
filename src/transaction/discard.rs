//! What the layer drops or refuses by itself, counted.
//!
//! Owns: the reasons and their counters.
//! Never: logs; a flood of strays must not become a flood of lines.

/// Why the user never got to see a message. Each variant is a counter.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Discard {
    /// A response to nothing that we asked, or too late (RFC 6026 8.9).
    StrayResponse,
    /// A response that its transaction did not need: a copy, or a 1xx after the final one.
    SpareResponse,
    /// A request that we have already, absorbed or answered again.
    Retransmission,
    /// A CANCEL of nothing, answered with 481.
    StrayCancel,
    /// A request that came by two ways, answered with 482 (RFC 3261 8.2.2.2).
    Merged,
    /// A request above the cap, answered with 503.
    Overload,
    /// A response of ours to a transaction that has ended.
    LateReply,
}

impl Discard {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 7] = [
        Self::StrayResponse,
        Self::SpareResponse,
        Self::Retransmission,
        Self::StrayCancel,
        Self::Merged,
        Self::Overload,
        Self::LateReply,
    ];

    /// Returns the name in metrics: `stray_response`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StrayResponse => "stray_response",
            Self::SpareResponse => "spare_response",
            Self::Retransmission => "retransmission",
            Self::StrayCancel => "stray_cancel",
            Self::Merged => "merged",
            Self::Overload => "overload",
            Self::LateReply => "late_reply",
        }
    }
}

/// How often each [`Discard`] has happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Discards {
    stray_response: u64,
    spare_response: u64,
    retransmission: u64,
    stray_cancel: u64,
    merged: u64,
    overload: u64,
    late_reply: u64,
}

impl Discards {
    /// Returns one counter.
    pub fn of(&self, discard: Discard) -> u64 {
        match discard {
            Discard::StrayResponse => self.stray_response,
            Discard::SpareResponse => self.spare_response,
            Discard::Retransmission => self.retransmission,
            Discard::StrayCancel => self.stray_cancel,
            Discard::Merged => self.merged,
            Discard::Overload => self.overload,
            Discard::LateReply => self.late_reply,
        }
    }

    pub(super) fn count(&mut self, discard: Discard) {
        let counter = match discard {
            Discard::StrayResponse => &mut self.stray_response,
            Discard::SpareResponse => &mut self.spare_response,
            Discard::Retransmission => &mut self.retransmission,
            Discard::StrayCancel => &mut self.stray_cancel,
            Discard::Merged => &mut self.merged,
            Discard::Overload => &mut self.overload,
            Discard::LateReply => &mut self.late_reply,
        };
        *counter = counter.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let mut discards = Discards::default();
        for (n, discard) in (1..).zip(Discard::ALL) {
            for _ in 0..n {
                discards.count(discard);
            }
        }
        let counts = Discard::ALL.map(|discard| discards.of(discard));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7]);
        let names = std::collections::BTreeSet::from(Discard::ALL.map(Discard::name));
        assert_eq!(names.len(), Discard::ALL.len());
    }
}
