//! Tones: made, and recognised (Goertzel's algorithm).
//!
//! Owns: the arithmetic of sines.
//! Never: knows who listens.

use super::Prompt;
use std::{f64::consts::TAU, sync::LazyLock, time::Duration};

/// The sample rate of everything we make and hear.
pub const SAMPLE_RATE_HZ: u32 = 8000;

/// Returns sines of equal loudness, together at `amplitude` of full scale (0.0 to 1.0). No
/// frequencies make silence.
pub fn chord(frequencies_hz: &[f64], length: Duration, amplitude: f64) -> Vec<i16> {
    let rate = f64::from(SAMPLE_RATE_HZ);
    let each =
        amplitude.clamp(0.0, 1.0) * f64::from(i16::MAX) / (frequencies_hz.len().max(1) as f64);
    let count = (length.as_secs_f64() * rate).round() as u32;
    (0..count)
        .map(|n| {
            let at = f64::from(n) / rate;
            let sum = frequencies_hz.iter().map(|hz| (TAU * hz * at).sin()).sum::<f64>();
            (each * sum).round() as i16
        })
        .collect()
}

/// Returns the ringing tone of North America, to be played again and again: 440 and 480 Hz for 2 s,
/// then 4 s of silence (ITU-T E.180).
pub fn ringback() -> Prompt {
    static RINGBACK: LazyLock<Prompt> = LazyLock::new(|| {
        let mut samples = chord(&[440.0, 480.0], Duration::from_secs(2), 0.2);
        samples.extend(chord(&[], Duration::from_secs(4), 0.0));
        Prompt::new(samples)
    });
    RINGBACK.clone()
}

/// Returns how much of the samples' power is at this frequency: 1.0 for a pure tone, about 0.5 for
/// each of two, next to 0.0 for anything else. Silence has no tone in it: 0.0.
pub fn share(samples: &[i16], frequency_hz: f64) -> f64 {
    let energy = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
    if energy < 1.0 {
        return 0.0;
    }
    let coefficient = 2.0 * (TAU * frequency_hz / f64::from(SAMPLE_RATE_HZ)).cos();
    let (mut before, mut last) = (0.0, 0.0);
    for sample in samples {
        (before, last) = (last, f64::from(*sample) + coefficient * last - before);
    }
    let power = before.powi(2) + last.powi(2) - coefficient * before * last;
    (2.0 * power / (energy * samples.len() as f64)).min(1.0)
}

/// Listens for one tone, 40 ms at a time.
#[derive(Clone, Debug)]
pub struct Ear {
    frequency_hz: f64,
    block: Vec<i16>,
    heard: u32,
    blocks: u32,
}

impl Ear {
    /// Samples that are judged together: a resolution of 25 Hz.
    const BLOCK: usize = 320;
    /// The share from which on a block counts as the tone.
    const SHARE_MIN: f64 = 0.6;

    /// Creates an ear for this frequency.
    pub fn new(frequency_hz: f64) -> Self {
        Self { frequency_hz, block: Vec::with_capacity(Self::BLOCK), heard: 0, blocks: 0 }
    }

    /// Listens to some more.
    pub fn hear(&mut self, samples: &[i16]) {
        for sample in samples {
            self.block.push(*sample);
            if self.block.len() == Self::BLOCK {
                let is_tone = share(&self.block, self.frequency_hz) >= Self::SHARE_MIN;
                self.heard = self.heard.saturating_add(u32::from(is_tone));
                self.blocks = self.blocks.saturating_add(1);
                self.block.clear();
            }
        }
    }

    /// Returns for how long the tone was heard, altogether.
    pub fn heard(&self) -> Duration {
        Duration::from_millis(40).saturating_mul(self.heard)
    }

    /// Returns for how long the ear listened.
    pub fn listened(&self) -> Duration {
        Duration::from_millis(40).saturating_mul(self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ringing_is_two_tones_for_a_third_of_the_time() {
        let prompt = ringback();
        let (sound, silence) = prompt.samples().split_at(16_000);
        assert_eq!(silence.len(), 32_000);
        assert!(silence.iter().all(|sample| *sample == 0));
        for hz in [440.0, 480.0] {
            assert!((share(sound, hz) - 0.5).abs() < 0.05, "{hz}");
        }
    }
    use crate::media::{codec, command::Law};

    #[test]
    fn a_tone_is_told_from_its_neighbours() {
        let tone = chord(&[440.0], Duration::from_millis(200), 0.5);
        assert_eq!(tone.len(), 1600);
        assert!(share(&tone, 440.0) > 0.99);
        for other in [300.0, 415.0, 480.0, 880.0, 1320.0] {
            assert!(share(&tone, other) < 0.05, "{other} Hz");
        }
        assert_eq!(share(&[0; 160], 440.0), 0.0);
    }

    #[test]
    fn a_chord_is_shared() {
        let ringback = chord(&[440.0, 480.0], Duration::from_secs(1), 1.0);
        for hz in [440.0, 480.0] {
            assert!((share(&ringback, hz) - 0.5).abs() < 0.02);
        }
    }

    #[test]
    fn an_ear_hears_through_g711() {
        for law in [Law::Mu, Law::A] {
            let mut ear = Ear::new(1000.0);
            for (hz, ms) in [(1000.0, 400), (600.0, 400), (1000.0, 200)] {
                let tone = chord(&[hz], Duration::from_millis(ms), 0.3);
                let wire = tone.iter().map(|s| codec::decode(law, codec::encode(law, *s)));
                ear.hear(&wire.collect::<Vec<_>>());
            }
            assert_eq!(ear.heard(), Duration::from_millis(600));
            assert_eq!(ear.listened(), Duration::from_millis(1000));
        }
    }
}
