//! Sound files as prompts: any WAV of 16 bits becomes 8 kHz mono.
//!
//! Owns: reading and resampling; the only file that names `hound`.
//! Never: opens a file; it is given the bytes.

use super::{command::Prompt, tone::SAMPLE_RATE_HZ};
use hound::{SampleFormat, WavReader};
use std::io::Cursor;

/// Half the width of the resampling filter, in samples of the lower rate.
const LOBES: f64 = 16.0;

/// Why a file is no prompt, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Not RIFF/WAVE.
    #[error("not a WAV file ({0}); convert it: sox IN -r 8000 -c 1 -b 16 OUT.wav")]
    NotWav(String),
    /// 8, 24 or 32 bits, or floating point.
    #[error("{0} bits a sample; convert it to 16: sox IN -r 8000 -c 1 -b 16 OUT.wav")]
    Bits(u16),
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
    let samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>().map_err(not_wav)?;
    let mono = mixed_down(&samples, spec.channels.into());
    if mono.is_empty() || spec.sample_rate == 0 {
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
fn resampled(samples: &[i16], rate_hz: u32) -> Vec<i16> {
    if rate_hz == SAMPLE_RATE_HZ {
        return samples.to_vec();
    }
    let step = f64::from(rate_hz) / f64::from(SAMPLE_RATE_HZ);
    let cutoff = (1.0 / step).min(1.0);
    let reach = LOBES / cutoff;
    let count = (samples.len() as f64 / step) as usize;
    (0..count)
        .map(|n| {
            let centre = n as f64 * step;
            let (first, last) = ((centre - reach).ceil().max(0.0), centre + reach);
            let window = samples.iter().enumerate().skip(first as usize);
            let taken = window.take_while(|(at, _)| *at as f64 <= last);
            let sum: f64 = taken
                .map(|(at, sample)| {
                    let distance = at as f64 - centre;
                    f64::from(*sample) * cutoff * sinc(distance * cutoff) * hann(distance / reach)
                })
                .sum();
            sum.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
        })
        .collect()
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
        let spec = WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: bits,
            sample_format: SampleFormat::Int,
        };
        let mut bytes = Cursor::new(vec![]);
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for n in 0..rate {
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
        for (rate, channels) in
            [(8000, 1), (8000, 2), (16000, 1), (44100, 2), (48000, 1), (11025, 1)]
        {
            let prompt = read_wav(&wav(rate, channels, 16, 440.0)).unwrap();
            let len = prompt.samples().len();
            assert!((7990..=8000).contains(&len), "{rate}: {len}");
            let share = tone::share(prompt.samples(), 440.0);
            assert!(share > 0.98, "{rate}/{channels}: {share}");
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
    fn what_is_no_prompt_says_how_to_make_it_one() {
        let error = |bytes: &[u8]| read_wav(bytes).unwrap_err().to_string();
        assert!(error(b"ID3").contains("sox IN -r 8000"), "{}", error(b"ID3"));
        assert_eq!(
            error(&wav(8000, 1, 8, 440.0)),
            "8 bits a sample; convert it to 16: sox IN -r 8000 -c 1 -b 16 OUT.wav"
        );
    }
}
