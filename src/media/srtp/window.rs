//! Which index a packet has, and whether it was here before (RFC 3711 3.3.1, 3.3.2, appendix A).
//!
//! Owns: the guess of the rollover counter, the replay window.
//! Never: believes a packet; what is guessed is noted only once the packet proved authentic.

/// Bits of an RTP packet's index: 32 of the rollover counter, 16 of the sequence number.
const INDEX_MAX: u64 = (1 << 48) - 1;
/// Half of the sequence numbers.
const HALF: u16 = 1 << 15;

/// The packets of one source that were seen, by their indices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Window {
    pub(super) highest: u64,
    /// Bit n: the packet n before the highest was seen.
    seen: u128,
}

impl Window {
    /// Begins with a first packet.
    pub(super) fn new(index: u64) -> Self {
        Self { highest: index, seen: 1 }
    }

    /// Returns whether a packet may be taken: it is new, and not too old to know.
    pub(super) fn is_new(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(age) if age < u64::from(u128::BITS) => self.seen & (1 << age) == 0,
            Some(_) => false,
        }
    }

    /// Notes a packet that proved authentic.
    pub(super) fn note(&mut self, index: u64) {
        match index.checked_sub(self.highest) {
            Some(steps) => {
                let steps = u32::try_from(steps).unwrap_or(u32::MAX);
                self.seen = self.seen.checked_shl(steps).unwrap_or(0) | 1;
                self.highest = index;
            }
            None => {
                let age = self.highest.saturating_sub(index);
                let age = u32::try_from(age).unwrap_or(u32::MAX);
                self.seen |= 1_u128.checked_shl(age).unwrap_or(0);
            }
        }
    }
}

/// Guesses the index of a packet from the highest index so far (RFC 3711 appendix A). Where the guess
/// would be before the beginning or beyond the end, the counter stays.
pub(super) fn guess(highest: u64, sequence: u16) -> u64 {
    let latest = (highest & 0xffff) as u16;
    let rollovers = highest >> 16;
    let rollovers = if latest < HALF {
        let is_before = sequence.checked_sub(latest).is_some_and(|steps| steps > HALF);
        rollovers.saturating_sub(is_before.into())
    } else {
        let is_after = latest.saturating_sub(HALF) > sequence;
        rollovers.saturating_add(is_after.into())
    };
    ((rollovers << 16) & INDEX_MAX) | u64::from(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_nearest_index_is_guessed() {
        for (highest, sequence, want) in [
            (0, 1, 1),
            (10, 5, 5),
            (10, 65_530, 65_530),
            (0x1_000a, 0xfff0, 0xfff0),
            (0x1_000a, 0x8009, 0x1_8009),
            (0x1_000a, 0x800a, 0x1_800a),
            (0x1_000a, 0x800b, 0x800b),
            (0xffff, 0, 0x1_0000),
            (0x2_ffff, 2, 0x3_0002),
            (0x2_8001, 0, 0x3_0000),
            (0x2_8000, 0, 0x2_0000),
            (INDEX_MAX, 0, 0),
        ] {
            assert_eq!(guess(highest, sequence), want, "{highest:x} {sequence:x}");
        }
    }

    #[test]
    fn a_packet_is_new_once() {
        let mut window = Window::new(1000);
        for (index, want) in [
            (1000, false),
            (999, true),
            (999, false),
            (1001, true),
            (1001, false),
            (1300, true),
            (1001, false),
            (1173, true),
            (1172, false),
            (1173, false),
            (1300, false),
        ] {
            assert_eq!(window.is_new(index), want, "{index}");
            if want {
                window.note(index);
            }
        }
    }

    proptest! {
        /// Whatever the order within the window, the guess is right and each packet is new once.
        #[test]
        fn reordering_is_no_obstacle(first in 0..0xffff_u64, jitter: [u8; 32]) {
            let mut order = (0..3000_u64).map(|n| {
                let late = u64::from(jitter[n as usize % 32] % 60);
                (n + late, first + n)
            }).collect::<Vec<_>>();
            order.sort_unstable();
            let mut window = Window::new(order[0].1);
            for (_, index) in &order[1..] {
                prop_assert_eq!(guess(window.highest, (index & 0xffff) as u16), *index);
                prop_assert!(window.is_new(*index));
                window.note(*index);
                prop_assert!(!window.is_new(*index));
            }
        }
    }
}
