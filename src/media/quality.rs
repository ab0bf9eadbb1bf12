//! How good a leg was: what came, what was lost, and what a listener would say (ITU-T G.107).
//!
//! Owns: the figures of a CDR, and the E-model that rates them.
//! Never: measures; that is `jitter`'s and `rtcp`'s.

use super::discard::Discards;
use std::time::Duration;

/// How a leg was, when it closed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// What came from the peer.
    pub received: Measured,
    /// What we sent to the peer: packets by our count, the rest as the peer's RTCP reports say.
    pub sent: Measured,
    /// The round trip to the peer, where its RTCP reports let us compute it.
    pub rtt_ms: Option<f64>,
    /// How much the time from reading a packet of this leg to sending it on varied: the mean
    /// deviation of RFC 3550 6.4.1, so comparable to a jitter.
    pub relay_jitter_us: f64,
    /// The longest time from reading a packet of this leg to sending it on.
    pub relay_delay_max_us: f64,
    /// What came and went nowhere.
    pub discards: Discards,
}

/// One direction of a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Packets, each counted once.
    pub packets: u64,
    /// Packets that should have come and did not.
    pub lost: u64,
    /// Packets that came again. Unknown, so 0, for what we sent.
    pub duplicate: u64,
    /// Packets that came after a later one. Unknown, so 0, for what we sent.
    pub reordered: u64,
    /// Of the lost ones, those that had been lost before they came to us: a relay passes holes on.
    /// Always 0 for what we received.
    pub lost_before: u64,
    /// Of how many packets `lost` speaks: for what we sent, those sent when the peer reported last.
    pub reported: u64,
    /// Interarrival jitter, RFC 3550 6.4.1.
    pub jitter_ms: f64,
    /// The E-model's transmission rating; `None` where there is nothing to rate.
    pub r_factor: Option<f64>,
    /// The mean opinion score that follows from it, 1.0 to 4.5.
    pub mos: Option<f64>,
}

/// G.107's default rating with everything at its best, delay and loss aside.
const R_BEST: f64 = 93.2;
/// G.113 Appendix I: how robust G.711 with packet loss concealment is against loss.
const G711_LOSS_ROBUSTNESS: f64 = 25.1;
/// Packetization, and the least a jitter buffer holds: one frame of 20 ms each.
const DELAY_FIXED_MS: f64 = 40.0;
/// From this one-way delay on, talkers notice (Cole and Rosenbluth's simplification of G.107).
const DELAY_NOTICED_MS: f64 = 177.3;

impl Measured {
    /// Rates what was measured. The codec is taken to be G.711 with concealment, whatever it was, so
    /// the rating is the network's share.
    #[must_use]
    pub fn rated(mut self, rtt: Option<Duration>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "packet counts are below 2^52")]
        let (packets, lost) = (self.packets as f64, self.lost as f64);
        if self.packets > 0 {
            let one_way_ms = rtt.map_or(0.0, |rtt| rtt.as_secs_f64() * 500.0);
            let delay_ms = DELAY_FIXED_MS + 2.0 * self.jitter_ms + one_way_ms;
            let r = r_factor(delay_ms, 100.0 * lost / (packets + lost));
            (self.r_factor, self.mos) = (Some(r), Some(mos(r)));
        }
        self
    }
}

/// The E-model's R = R0 - Id - Ie,eff, all else at G.107's defaults.
fn r_factor(one_way_delay_ms: f64, loss_percent: f64) -> f64 {
    let over = (one_way_delay_ms - DELAY_NOTICED_MS).max(0.0);
    let delay_impairment = 0.024 * one_way_delay_ms + 0.11 * over;
    let loss_impairment = 95.0 * loss_percent / (loss_percent + G711_LOSS_ROBUSTNESS);
    (R_BEST - delay_impairment - loss_impairment).clamp(0.0, 100.0)
}

/// G.107 Annex B: the mean opinion score for a rating.
fn mos(r: f64) -> f64 {
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_agree_with_the_recommendation() {
        // Points of G.107's curve and of Cole and Rosenbluth's figures, to a tenth.
        for (delay_ms, loss_percent, want) in [
            (0.0, 0.0, 4.4),
            (100.0, 0.0, 4.4),
            (300.0, 0.0, 3.7),
            (40.0, 1.0, 4.3),
            (40.0, 10.0, 3.3),
        ] {
            let got = mos(r_factor(delay_ms, loss_percent));
            assert!((got - want).abs() < 0.1, "{delay_ms} ms, {loss_percent} %: {got}");
        }
        assert!((mos(0.0) - 1.0).abs() < 1e-9);
        assert!((mos(100.0) - 4.5).abs() < 1e-9);
    }

    #[test]
    fn worse_is_never_rated_better() {
        let steps = || (0..200).map(f64::from);
        for (a, b) in steps().zip(steps().skip(1)) {
            assert!(r_factor(a * 5.0, 1.0) >= r_factor(b * 5.0, 1.0));
            assert!(r_factor(50.0, a / 2.0) >= r_factor(50.0, b / 2.0));
        }
    }

    #[test]
    fn nothing_received_is_not_rated() {
        assert_eq!(Measured::default().rated(None).mos, None);
        let one = Measured { packets: 1, ..Measured::default() };
        assert!(one.rated(Some(Duration::from_millis(20))).mos.is_some());
    }
}
