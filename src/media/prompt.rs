//! Sound files as prompts: any WAV of 16 bits becomes 8 kHz mono.
//!
//! Owns: reading and resampling; the only file that names `hound`.
//! Never: opens a file; it is given the bytes.

use super::{command::Prompt, tone::SAMPLE_RATE_HZ};
use hound::{SampleFormat, WavReader};
use std::io::Cursor;

/// Half the width of the resampling filter, in samples of the lower rate.
const LOBES: f64 = 16.0;
/// Sums computed side by side.
const LANES: usize = 8;
/// Rates of sound files that there are. What is outside would cost more work or room than it is worth.
const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// The longest prompt: 58 MB once it is read.
const SECONDS_MAX: u32 = 3_600;

/// Why a file is no prompt, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Not RIFF/WAVE.
    #[error("not a WAV file ({0}); convert it: sox IN -r 8000 -c 1 -b 16 OUT.wav")]
    NotWav(String),
    /// 8, 24 or 32 bits, or floating point.
    #[error("{0} bits a sample; convert it to 16: sox IN -r 8000 -c 1 -b 16 OUT.wav")]
    Bits(u16),
    /// A rate that no telephone or studio uses.
    #[error("{0} samples a second; convert it to 8000: sox IN -r 8000 -c 1 -b 16 OUT.wav")]
    Rate(u32),
    /// Longer than anybody listens.
    #[error("longer than an hour; cut it: sox IN OUT.wav trim 0 3600")]
    TooLong,
    /// No samples.
    #[error("the file has no sound in it")]
    Empty,
}

/// Reads a WAV file of 16-bit samples, of any rate and number of channels.
pub fn read_wav(bytes: &[u8]) -> Result<Prompt, PromptError> {
    let not_wav = |error: hound::Error| PromptError::NotWav(error.to_string());
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(not_wav)?;
    let spec = reader.spec();
    if spec.sample_format != SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err(PromptError::Bits(spec.bits_per_sample));
    }
    if !RATES_HZ.contains(&spec.sample_rate) {
        return Err(PromptError::Rate(spec.sample_rate));
    }
    if share(reader.duration(), spec.sample_rate) >= SECONDS_MAX {
        return Err(PromptError::TooLong);
    }
    let samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>().map_err(not_wav)?;
    let mono = mixed_down(&samples, spec.channels.into());
    if mono.is_empty() {
        return Err(PromptError::Empty);
    }
    Ok(Prompt::new(resampled(&mono, spec.sample_rate)))
}

fn mixed_down(samples: &[i16], channels: usize) -> Vec<i16> {
    let channels = channels.max(1);
    let mean = |frame: &[i16]| {
        let sum: i32 = frame.iter().map(|sample| i32::from(*sample)).sum();
        let count = i32::try_from(frame.len()).unwrap_or(1).max(1);
        i16::try_from(sum.checked_div(count).unwrap_or(0)).unwrap_or(0)
    };
    samples.chunks(channels).map(mean).collect()
}

/// Resamples by a windowed sinc, cut at the lower of both rates so that nothing folds over.
///
/// The places of the new samples between the old ones repeat after a few: for each there is a row of
/// weights, computed once. What remains is a product and a sum for each sample under the filter, at
/// most 768 of them (192 kHz).
fn resampled(samples: &[i16], rate_hz: u32) -> Vec<i16> {
    if rate_hz == SAMPLE_RATE_HZ {
        return samples.to_vec();
    }
    let common = divisor(rate_hz, SAMPLE_RATE_HZ);
    let (up, down) = (share(SAMPLE_RATE_HZ, common), share(rate_hz, common));
    let rows = (0..up).map(|phase| row(phase, up, down)).collect::<Vec<_>>();
    let units = (samples.len() as u64).saturating_mul(up.into());
    let count = units.checked_div(down.into()).unwrap_or(0);
    // The old sample at or before the new one, and how far it is in `up`ths of the old distance.
    let (mut at, mut phase) = (0_usize, 0_u32);
    (0..count)
        .map(|_| {
            let new = rows.get(phase as usize).map_or(0.0, |row| row.apply(samples, at));
            let ahead = phase.saturating_add(down);
            at = at.saturating_add(share(ahead, up) as usize);
            phase = ahead.checked_rem(up).unwrap_or(0);
            new.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16
        })
        .collect()
}

/// The filter's weights for one place between two old samples.
struct Row {
    weights: Vec<f32>,
    /// How many of them are for samples before that place.
    before: usize,
}

impl Row {
    /// Weighs the old samples around `at`; beyond the ends it is silent.
    fn apply(&self, samples: &[i16], at: usize) -> f32 {
        let skipped = self.before.saturating_sub(at);
        let first = at.saturating_sub(self.before);
        let (weights, samples) = (self.weights.get(skipped..), samples.get(first..));
        let (weights, samples) = (weights.unwrap_or_default(), samples.unwrap_or_default());
        // Several sums at a time, which do not wait for each other.
        let mut sums = [0.0_f32; LANES];
        let len = weights.len().min(samples.len());
        let (weights, samples) =
            (weights.get(..len).unwrap_or_default(), samples.get(..len).unwrap_or_default());
        let (weights, samples) = (weights.chunks(LANES), samples.chunks(LANES));
        for (weights, samples) in weights.zip(samples) {
            for ((sum, weight), sample) in sums.iter_mut().zip(weights).zip(samples) {
                *sum += weight * f32::from(*sample);
            }
        }
        sums.iter().sum()
    }
}

fn row(phase: u32, up: u32, down: u32) -> Row {
    let place = f64::from(phase) / f64::from(up.max(1));
    let cutoff = (f64::from(up) / f64::from(down.max(1))).min(1.0);
    let reach = LOBES / cutoff;
    let before = reach as usize;
    let weight = |n: usize| {
        let distance = n as f64 - before as f64 - place;
        (cutoff * sinc(distance * cutoff) * hann(distance / reach)) as f32
    };
    let len = before.saturating_mul(2).saturating_add(2);
    Row { weights: (0..len).map(weight).collect(), before }
}

fn share(a: u32, b: u32) -> u32 {
    a.checked_div(b).unwrap_or(0)
}

/// Euclid's.
fn divisor(a: u32, b: u32) -> u32 {
    match a.checked_rem(b) {
        Some(rest) => divisor(b, rest),
        None => a,
    }
}

fn sinc(x: f64) -> f64 {
    let angle = std::f64::consts::PI * x;
    if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle }
}

fn hann(x: f64) -> f64 {
    if x.abs() >= 1.0 { 0.0 } else { 0.5 + 0.5 * (std::f64::consts::PI * x).cos() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::tone;
    use hound::{WavSpec, WavWriter};
    use std::f64::consts::TAU;

    fn wav(rate: u32, channels: u16, bits: u16, hz: f64) -> Vec<u8> {
        wav_of(rate, (channels, bits), hz, rate)
    }

    fn wav_of(rate: u32, (channels, bits): (u16, u16), hz: f64, frames: u32) -> Vec<u8> {
        let spec = WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: bits,
            sample_format: SampleFormat::Int,
        };
        let mut bytes = Cursor::new(vec![]);
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for n in 0..frames {
            let sample = (10_000.0 * (TAU * hz * f64::from(n) / f64::from(rate)).sin()) as i32;
            for _ in 0..channels {
                writer.write_sample(if bits == 8 { sample >> 8 } else { sample }).unwrap();
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_tone_stays_what_it_is_at_any_rate() {
        for (rate, channels) in [
            (8000, 1),
            (8000, 2),
            (16000, 1),
            (44100, 2),
            (48000, 1),
            (11025, 1),
            (7999, 1),
            (192_000, 1),
        ] {
            let prompt = read_wav(&wav(rate, channels, 16, 440.0)).unwrap();
            let len = prompt.samples().len();
            assert!((7990..=8000).contains(&len), "{rate}: {len}");
            let share = tone::share(prompt.samples(), 440.0);
            assert!(share > 0.98, "{rate}/{channels}: {share}");
            // It is as loud as it was, and in its place.
            let want = |n: usize| 10_000.0 * (TAU * 440.0 * n as f64 / 8000.0).sin();
            let inner = prompt.samples().iter().enumerate().skip(200).take(7500);
            let off = inner.map(|(n, sample)| (f64::from(*sample) - want(n)).abs());
            let off = off.fold(0.0, f64::max);
            assert!(off < 60.0, "{rate}/{channels}: {off}");
        }
    }

    /// 6 kHz cannot be said at 8 kHz; folded over it would be a loud 2 kHz.
    #[test]
    fn what_is_too_high_disappears() {
        let prompt = read_wav(&wav(48000, 1, 16, 6000.0)).unwrap();
        let loudest = prompt.samples().iter().map(|s| s.unsigned_abs()).skip(200).take(7000).max();
        assert!(loudest.unwrap() < 300, "{loudest:?}");
    }

    #[test]
    fn a_file_that_would_take_too_long_is_refused_before_it_is_read() {
        let error = |bytes: &[u8]| read_wav(bytes).unwrap_err().to_string();
        for rate in [1, 3999, 192_001, u32::MAX / 4] {
            let told = error(&wav_of(rate, (1, 16), 440.0, 10));
            assert!(told.starts_with(&format!("{rate} samples a second")), "{told}");
        }
        // Said to last an hour; the sound itself is not there.
        let mut bytes = wav(8000, 1, 16, 440.0);
        let (frames, data) = (8000_u32 * 3600 * 2, bytes.windows(4).position(|b| b == b"data"));
        bytes[data.unwrap() + 4..][..4].copy_from_slice(&frames.to_le_bytes());
        assert!(error(&bytes).starts_with("longer than an hour"), "{}", error(&bytes));
        assert!(read_wav(&wav_of(4000, (1, 16), 440.0, 400)).is_ok());
    }

    #[test]
    fn what_is_no_prompt_says_how_to_make_it_one() {
        let error = |bytes: &[u8]| read_wav(bytes).unwrap_err().to_string();
        assert!(error(b"ID3").contains("sox IN -r 8000"), "{}", error(b"ID3"));
        assert_eq!(
            error(&wav(8000, 1, 8, 440.0)),
            "8 bits a sample; convert it to 16: sox IN -r 8000 -c 1 -b 16 OUT.wav"
        );
    }
}
