//! What happens to bytes: the same for the same seed, on every machine.

/// What parsers trip over.
const TRIPWIRES: [&[u8]; 44] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n ",
    b"\r\n\r\n",
    b"\"",
    b"\\",
    b"'",
    b"<",
    b">",
    b";",
    b",",
    b"=",
    b":",
    b"@",
    b"%",
    b"%0",
    b"%00",
    b"[",
    b"]",
    b"[::",
    b"*",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xae",
    b"-1",
    b"0",
    b"255",
    b"65536",
    b"4294967296",
    b"18446744073709551616",
    b"SIP/2.0",
    b"sip:",
    b"tel:",
    b";lr",
    b";tag=",
    b";branch=z9hG4bK",
    b"Via: ",
    b"Content-Length: 18446744073709551616\r\n",
    b"m=audio 0 RTP/AVP\r\n",
    b"a=crypto:",
    b"[[",
    b"\"\"\"",
];
/// Numbers at the edges of their types.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
/// The most that is cut or repeated at once, mostly; and ever.
const PART_MAX: usize = 200;
const WHOLE_MAX: usize = 70_000;

/// Numbers that look random (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).expect("below a usize")
    }

    /// Returns whether something happens that happens `percent` times in a hundred.
    pub(crate) fn hits(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Does one to six things to `bytes`, some of them with parts of `others`.
pub(crate) fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        once(bytes, others, random);
        bytes.truncate(WHOLE_MAX);
    }
}

fn once(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    match random.below(13) {
        0 => set(bytes, random, |_, random| random.next() as u8),
        1 => set(bytes, random, |byte, random| byte ^ (1 << random.below(8))),
        2 => set(bytes, random, |byte, _| byte.wrapping_add(1)),
        3 | 4 => {
            let at = random.below(bytes.len() + 1);
            bytes.splice(at..at, random.of(&TRIPWIRES).iter().copied());
        }
        5 => {
            let part = part(bytes, random);
            bytes.drain(part);
        }
        6 => {
            let part = part(bytes, random);
            let (at, copy) = (part.end, bytes[part].repeat(1 + random.below(3)));
            bytes.splice(at..at, copy);
        }
        7 => bytes.truncate(random.below(bytes.len() + 1)),
        8 => number(bytes, random),
        9 => edge(bytes, random),
        10 => line(bytes, random),
        11 if !others.is_empty() => {
            let other = random.of(others);
            let piece = other[part(other, random)].to_vec();
            let at = random.below(bytes.len() + 1);
            bytes.splice(at..at, piece);
        }
        12 if random.hits(2) => {
            let (part, at) = (part(bytes, random), random.below(bytes.len() + 1));
            let times = WHOLE_MAX / (part.len() + 1);
            let many = bytes[part].repeat(times.min(1 + random.below(2000)));
            bytes.splice(at..at, many);
        }
        _ => {
            let (from, to) = (part(bytes, random), random.below(bytes.len() + 1));
            let piece = bytes[from].to_vec();
            let end = bytes.len().min(to + piece.len());
            bytes.splice(to..end, piece);
        }
    }
}

fn set(bytes: &mut [u8], random: &mut Random, to: impl Fn(u8, &mut Random) -> u8) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte, random);
    }
}

fn part(bytes: &[u8], random: &mut Random) -> std::ops::Range<usize> {
    let begin = random.below(bytes.len() + 1);
    begin..bytes.len().min(begin + random.below(PART_MAX))
}

/// Replaces a number in the text by another.
fn number(bytes: &mut Vec<u8>, random: &mut Random) {
    let from = random.below(bytes.len());
    let Some(begin) = bytes.iter().skip(from).position(u8::is_ascii_digit) else { return };
    let begin = from + begin;
    let digits = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let to = random.of(&EDGES).wrapping_add(random.below(3) as u64).to_string();
    bytes.splice(begin..begin + digits, to.into_bytes());
}

/// Writes a number over some bytes, as binary protocols do.
fn edge(bytes: &mut [u8], random: &mut Random) {
    let number = random.of(&EDGES).to_be_bytes();
    let width = *random.of(&[1, 2, 4]);
    let at = random.below(bytes.len());
    for (byte, new) in bytes.iter_mut().skip(at).zip(&number[8 - width..]) {
        *byte = *new;
    }
}

/// Takes a line away, or says it again elsewhere.
fn line(bytes: &mut Vec<u8>, random: &mut Random) {
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (from, to) = (random.below(lines.len()), random.below(lines.len() + 1));
    let again = random.hits(50);
    let mut changed = lines.clone();
    if again && let Some(line) = lines.get(from) {
        changed.insert(to, line.clone());
    } else if from < changed.len() {
        changed.remove(from);
    }
    *bytes = changed.concat();
}
