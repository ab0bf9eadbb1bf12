//! What a peer hears of ours: nothing, its own echo, or a prompt at the pace of speech.
//!
//! Owns: the place in a prompt, and when its next packet is due.
//! Never: makes a packet.

use super::command::Prompt;
use std::time::{Duration, Instant};

/// A prompt that is this much late gives up its place instead of catching up in a burst.
const LATE_MAX: Duration = Duration::from_millis(500);

/// What a peer hears instead of a joined leg.
#[derive(Debug)]
pub(super) enum Player {
    /// Nothing of ours.
    Off,
    /// Its own packets.
    Echo,
    /// A prompt.
    Prompt(Box<Playing>),
}

/// A prompt on its way.
#[derive(Debug)]
pub(super) struct Playing {
    prompt: Prompt,
    position: usize,
    loops: bool,
    /// What the command said.
    pub(super) token: u64,
    /// Tells this prompt from the others that the same peer hears.
    pub(super) serial: u32,
    /// Packets sent.
    pub(super) sequence: u16,
    /// Samples passed, whether they were sent or not.
    pub(super) timestamp: u32,
    /// When the next packet is due.
    pub(super) next_at: Instant,
}

impl Playing {
    pub(super) fn new(prompt: Prompt, loops: bool, token: u64, serial: u32, now: Instant) -> Self {
        let (position, sequence, timestamp) = (0, 0, 0);
        Self { prompt, position, loops, token, serial, sequence, timestamp, next_at: now }
    }

    /// Returns whether all of it was played.
    pub(super) fn is_over(&self) -> bool {
        let len = self.prompt.samples().len();
        len == 0 || (!self.loops && self.position >= len)
    }

    /// Goes on by a frame of that many samples and returns them: silence after the end.
    pub(super) fn advance(
        &mut self,
        frame: Duration,
        frame_len: usize,
        now: Instant,
    ) -> impl Iterator<Item = i16> + '_ {
        self.next_at = match self.next_at.checked_add(frame) {
            Some(next) if now.saturating_duration_since(next) < LATE_MAX => next,
            Some(_) | None => now.checked_add(frame).unwrap_or(now),
        };
        let (samples, loops) = (self.prompt.samples(), self.loops);
        let place = move |at: usize| match at.checked_rem(samples.len()) {
            Some(wrapped) if loops => wrapped,
            Some(_) | None => at,
        };
        let first = self.position;
        let end = first.saturating_add(frame_len);
        self.position = place(end);
        (first..end).map(move |at| samples.get(place(at)).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    #[test]
    fn a_prompt_ends_in_silence_and_a_loop_has_no_seam() {
        for (loops, want) in
            [(false, &[1, 2, 3, 4, 5, 0][..]), (true, &[1, 2, 3, 4, 5, 1, 2, 3, 4])]
        {
            let now = crate::sim::epoch();
            let mut playing = Playing::new(Prompt::new([1, 2, 3, 4, 5]), loops, 0, 0, now);
            let mut heard = vec![];
            while !playing.is_over() && heard.len() < want.len() {
                heard.extend(playing.advance(FRAME, 3, now));
            }
            assert_eq!(heard, want, "loops: {loops}");
        }
        let empty = Playing::new(Prompt::new([]), true, 0, 0, crate::sim::epoch());
        assert!(empty.is_over());
    }

    #[test]
    fn what_is_a_little_late_catches_up_and_what_is_very_late_goes_on_from_there() {
        for (late_ms, want_ms) in
            [(0, 20), (15, 20), (100, 20), (519, 20), (520, 540), (3000, 3020)]
        {
            let start = crate::sim::epoch();
            let mut playing = Playing::new(Prompt::new([1; 1600]), true, 0, 0, start);
            let _ = playing.advance(FRAME, 160, start + Duration::from_millis(late_ms)).count();
            assert_eq!(playing.next_at - start, Duration::from_millis(want_ms), "{late_ms}");
        }
    }
}
