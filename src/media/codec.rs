//! G.711: the two laws, and the direct way from one to the other.
//!
//! Owns: tables computed from the recommendation's definition.
//! Never: meets a packet header.

use super::{command::Law, path::Convert};

/// Bias of the mu-law's segments, at 16 bits.
const MU_BIAS: u16 = 0x84;
/// Loudest sample the mu-law can code, at 16 bits.
const MU_CLIP: u16 = 32_635;
/// A-law code words have every other bit inverted (G.711 table 1a, note 2).
const A_MASK: u8 = 0x55;

/// `DECODE_MU[code]` is the sample, at 16 bits.
static DECODE_MU: [i16; 256] = samples(Law::Mu);
/// `DECODE_A[code]` is the sample, at 16 bits.
static DECODE_A: [i16; 256] = samples(Law::A);
/// G.711 table 3.
static MU_TO_A: [u8; 256] = conversion(Law::Mu);
/// G.711 table 4.
static A_TO_MU: [u8; 256] = conversion(Law::A);

/// Converts a payload in place.
pub(super) fn convert(payload: &mut [u8], convert: Convert) {
    let table = match convert {
        Convert::Keep => return,
        Convert::UlawToAlaw => &MU_TO_A,
        Convert::AlawToUlaw => &A_TO_MU,
    };
    for byte in payload {
        *byte = table.get(usize::from(*byte)).copied().unwrap_or(*byte);
    }
}

/// Returns the sample that a code word stands for.
pub fn decode(law: Law, code: u8) -> i16 {
    let table = match law {
        Law::Mu => &DECODE_MU,
        Law::A => &DECODE_A,
    };
    table.get(usize::from(code)).copied().unwrap_or(0)
}

/// Returns the code word nearest to a sample.
pub const fn encode(law: Law, sample: i16) -> u8 {
    match law {
        Law::Mu => {
            let magnitude = sample.unsigned_abs();
            let clipped = if magnitude < MU_CLIP { magnitude } else { MU_CLIP };
            let code = segmented(clipped.wrapping_add(MU_BIAS));
            !(sign_of(sample) | code)
        }
        Law::A => {
            // Two's complement's asymmetry: -1 is the negative side's 0.
            let magnitude = if sample < 0 { !sample } else { sample }.cast_unsigned();
            // Segment 0 is as long as segment 1, and linear.
            let code =
                if magnitude < 0x100 { low_byte(magnitude >> 4) } else { segmented(magnitude) };
            (sign_of(sample) ^ 0x80 | code) ^ A_MASK
        }
    }
}

/// Returns three bits of segment (the highest bit above bit 7) and the four bits below its highest.
const fn segmented(magnitude: u16) -> u8 {
    let segment = 8_u32.saturating_sub(magnitude.leading_zeros());
    let step = magnitude.checked_shr(segment.wrapping_add(3));
    let mantissa = match step {
        Some(step) => step & 0x0f,
        None => 0,
    };
    (low_byte(segment as u16) << 4) | low_byte(mantissa)
}

const fn low_byte(value: u16) -> u8 {
    let [_, low] = value.to_be_bytes();
    low
}

const fn sign_of(sample: i16) -> u8 {
    if sample < 0 { 0x80 } else { 0 }
}

const fn sample_of(law: Law, code: u8) -> i16 {
    match law {
        Law::Mu => {
            let code = !code;
            let mantissa = ((code & 0x0f) as u16) << 3;
            let magnitude =
                (mantissa.wrapping_add(MU_BIAS) << ((code >> 4) & 7)).wrapping_sub(MU_BIAS);
            signed(magnitude, code & 0x80 != 0)
        }
        Law::A => {
            let code = code ^ A_MASK;
            let mantissa = ((code & 0x0f) as u16) << 4;
            let magnitude = match (code >> 4) & 7 {
                0 => mantissa.wrapping_add(8),
                segment => mantissa.wrapping_add(0x108) << segment.wrapping_sub(1),
            };
            signed(magnitude, code & 0x80 == 0)
        }
    }
}

const fn signed(magnitude: u16, negative: bool) -> i16 {
    if negative { magnitude.cast_signed().wrapping_neg() } else { magnitude.cast_signed() }
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse it")]
const fn samples(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0_u8;
    loop {
        table[code as usize] = sample_of(law, code);
        if code == u8::MAX {
            return table;
        }
        code = code.wrapping_add(1);
    }
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse it")]
const fn conversion(from: Law) -> [u8; 256] {
    let mut table = [0; 256];
    let mut code = 0_u8;
    loop {
        // Magnitudes rise with the inverted bits, and positive signs are 1, in both laws.
        let (sign, magnitude) = (code & 0x80, code & 0x7f);
        table[code as usize] = sign
            | match from {
                Law::Mu => mu_to_a(magnitude ^ 0x7f) ^ A_MASK,
                Law::A => a_to_mu(magnitude ^ A_MASK) ^ 0x7f,
            };
        if code == u8::MAX {
            return table;
        }
        code = code.wrapping_add(1);
    }
}

/// Magnitudes of G.711 table 3. It is not "decode and encode": full scale is 3.17 dBm0 in one law and
/// 3.14 dBm0 in the other, which moves some decisions by one.
const fn mu_to_a(mu: u8) -> u8 {
    match mu {
        0..=15 => mu >> 1,
        16..=32 => mu.wrapping_sub(8),
        33..=36 => mu.wrapping_mul(2).wrapping_sub(40),
        37..=47 => mu.wrapping_sub(4),
        48 => 45,
        49..=63 => mu.wrapping_sub(2),
        64..=80 => mu.wrapping_sub(1),
        81.. => mu,
    }
}

/// Magnitudes of G.711 table 4.
const fn a_to_mu(a: u8) -> u8 {
    match a {
        0..=7 => a.wrapping_mul(2).wrapping_add(1),
        8..=23 => a.wrapping_add(8),
        24..=31 => (a.wrapping_sub(24) >> 1).wrapping_add(32),
        32..=44 => a.wrapping_add(4),
        45..=46 => a.wrapping_add(3),
        47..=62 => a.wrapping_add(2),
        63..=79 => a.wrapping_add(1),
        80.. => a,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAWS: [Law; 2] = [Law::Mu, Law::A];

    #[test]
    fn the_ends_of_the_scales_are_the_recommendations() {
        for (law, code, sample) in [
            (Law::Mu, 0x80, 32_124),
            (Law::Mu, 0x00, -32_124),
            (Law::Mu, 0xff, 0),
            (Law::Mu, 0x7f, 0),
            (Law::Mu, 0xf0, 120),
            (Law::A, 0xaa, 32_256),
            (Law::A, 0x2a, -32_256),
            (Law::A, 0xd5, 8),
            (Law::A, 0x55, -8),
        ] {
            assert_eq!(decode(law, code), sample, "{law:?} {code:#x}");
        }
    }

    /// Where a segment of 16 levels begins, G.711's decision value is not the middle between the two
    /// levels; half a step of the wider segment is the bound everywhere.
    #[test]
    fn no_sample_is_further_from_its_level_than_half_a_step() {
        for law in LAWS {
            let mut levels = (0..=255).map(|code| i32::from(decode(law, code))).collect::<Vec<_>>();
            levels.sort_unstable();
            levels.dedup();
            let (lowest, highest) = (levels[0], levels[levels.len() - 1]);
            for sample in i16::MIN..=i16::MAX {
                let level = i32::from(decode(law, encode(law, sample)));
                let at = levels.binary_search(&level).unwrap();
                let wide = i32::from(sample).clamp(lowest, highest);
                let below = at.checked_sub(1).map_or(0, |below| level - levels[below]);
                let above = levels.get(at + 1).map_or(0, |above| above - level);
                let error = (level - wide).abs();
                assert!(2 * error <= below.max(above), "{law:?} {sample} became {level}");
            }
        }
    }

    #[test]
    fn every_code_survives_decoding() {
        for law in LAWS {
            for code in 0..=255 {
                // Mu-law has a negative zero, which samples have not.
                let want = if (law, code) == (Law::Mu, 0x7f) { 0xff } else { code };
                assert_eq!(encode(law, decode(law, code)), want, "{law:?} {code:#x}");
            }
        }
    }

    #[test]
    fn direct_conversion_keeps_sign_and_order_and_is_stable() {
        for (there, back, from, to) in [
            (Convert::UlawToAlaw, Convert::AlawToUlaw, Law::Mu, Law::A),
            (Convert::AlawToUlaw, Convert::UlawToAlaw, Law::A, Law::Mu),
        ] {
            let mut codes = (0..=255_u8).collect::<Vec<_>>();
            codes.sort_by_key(|code| (code & 0x80, decode(from, *code)));
            let converted = codes.iter().map(|code| apply(there, *code)).collect::<Vec<_>>();
            for (code, new) in codes.iter().zip(&converted) {
                assert_eq!(code & 0x80, new & 0x80, "{code:#x} changes its sign");
                let again = apply(there, apply(back, *new));
                assert_eq!(again, *new, "{code:#x} drifts from {new:#x} when converted again");
            }
            let mut sorted = converted.clone();
            sorted.sort_by_key(|code| (code & 0x80, decode(to, *code)));
            let levels = |codes: &[u8]| codes.iter().map(|c| decode(to, *c)).collect::<Vec<_>>();
            assert_eq!(levels(&converted), levels(&sorted), "{there:?} keeps the order");
        }
    }

    #[test]
    fn direct_conversion_is_at_most_one_step_off_the_nearest() {
        for (there, from, to) in
            [(Convert::UlawToAlaw, Law::Mu, Law::A), (Convert::AlawToUlaw, Law::A, Law::Mu)]
        {
            for code in 0..=255 {
                let nearest = encode(to, decode(from, code));
                // In magnitude order, codes of either law differ by one.
                let rank = |code: u8| match to {
                    Law::Mu => i16::from((code ^ 0x7f) & 0x7f),
                    Law::A => i16::from((code ^ A_MASK) & 0x7f),
                };
                let off = (rank(apply(there, code)) - rank(nearest)).abs();
                assert!(off <= 1, "{there:?} {code:#x} is {off} steps off");
            }
        }
    }

    #[test]
    fn table_entries_that_differ_from_decoding_and_encoding_are_there() {
        // Decision 49 of table 3: mu magnitude 48 becomes A magnitude 45, not 44.
        assert_eq!(apply(Convert::UlawToAlaw, 0xff ^ 48), 0xd5 ^ 45);
        assert_eq!(apply(Convert::UlawToAlaw, 0xff ^ 80), 0xd5 ^ 79);
        assert_eq!(apply(Convert::AlawToUlaw, 0xd5 ^ 79), 0xff ^ 80);
        assert_eq!(apply(Convert::AlawToUlaw, 0xd5 ^ 80), 0xff ^ 80);
        assert_eq!(apply(Convert::Keep, 0x12), 0x12);
    }

    fn apply(how: Convert, code: u8) -> u8 {
        let mut payload = [code];
        convert(&mut payload, how);
        payload[0]
    }
}
