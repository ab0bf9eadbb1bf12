//! Session timers (RFC 4028): who refreshes a dialog, and when it counts as dead.
//!
//! Owns: the agreed interval, the refresher, the two deadlines.
//! Never: sends the refresh or the BYE; never offers itself to a peer whose profile forbids it.

use std::time::{Duration, Instant};

/// A refused refresh is not repeated sooner.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// Who sends the refreshes, seen from us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refresher {
    /// We do.
    Us,
    /// The peer does.
    Peer,
}

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Send a refresh (half the interval has passed).
    Refresh,
    /// Nobody refreshed in time: BYE (RFC 4028 10).
    Expired,
}

/// A Session-Expires header: the interval in seconds and the refresher named in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Seconds.
    pub interval_s: u32,
    /// `refresher=uac` is `Some(true)`, `uas` is `Some(false)`.
    pub by_uac: Option<bool>,
}

impl Wanted {
    /// Reads a Session-Expires value such as `1800;refresher=uac`.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let interval_s = parts.next()?.parse().ok()?;
        let by_uac = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            (name.trim().eq_ignore_ascii_case("refresher"))
                .then(|| value.trim().eq_ignore_ascii_case("uac"))
        });
        Some(Self { interval_s, by_uac })
    }
}

/// The timer of one dialog; without an agreement it is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionTimer {
    agreed: Option<Agreed>,
}

#[derive(Clone, Copy, Debug)]
struct Agreed {
    interval: Duration,
    refresher: Refresher,
    due_at: Instant,
    refresh_sent: bool,
    expires_at: Instant,
}

impl SessionTimer {
    /// Starts, or starts again after a refresh.
    pub fn start(&mut self, interval_s: u32, refresher: Refresher, now: Instant) {
        let interval = Duration::from_secs(interval_s.into());
        // RFC 4028 10: the one who does not refresh says BYE min(32 s, a third) before the end.
        let margin = Duration::from_secs(32).min(interval.checked_div(3).unwrap_or_default());
        let half = interval.checked_div(2).unwrap_or_default();
        self.agreed = Some(Agreed {
            interval,
            refresher,
            due_at: after(now, half),
            refresh_sent: false,
            expires_at: after(now, interval.saturating_sub(margin)),
        });
    }

    /// Plans another refresh after one that was refused, in `wait`; where that is too late, half way to
    /// the end, so that the session need not be lost to a peer that is merely busy.
    pub fn retry(&mut self, wait: Duration, now: Instant) {
        let Some(agreed) = self.agreed.as_mut() else { return };
        let left = agreed.expires_at.saturating_duration_since(now);
        let wait = if wait < left { wait } else { left.checked_div(2).unwrap_or_default() };
        if wait >= RETRY_MIN || wait.saturating_add(RETRY_MIN) < left {
            agreed.due_at = after(now, wait.max(RETRY_MIN));
            agreed.refresh_sent = false;
        }
    }

    /// Switches the timer off: the answer to a refresh named no interval.
    pub fn stop(&mut self) {
        self.agreed = None;
    }

    /// Returns the interval in seconds and the refresher, where agreed.
    pub fn agreed(&self) -> Option<(u32, Refresher)> {
        let agreed = self.agreed?;
        Some((u32::try_from(agreed.interval.as_secs()).unwrap_or(u32::MAX), agreed.refresher))
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let agreed = self.agreed?;
        Some(match agreed.refresher {
            Refresher::Us if !agreed.refresh_sent => agreed.due_at.min(agreed.expires_at),
            Refresher::Us | Refresher::Peer => agreed.expires_at,
        })
    }

    /// Says what is due at `now`, once.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        let agreed = self.agreed.as_mut()?;
        if agreed.expires_at <= now {
            self.agreed = None;
            return Some(Due::Expired);
        }
        let due = agreed.refresher == Refresher::Us && !agreed.refresh_sent && agreed.due_at <= now;
        agreed.refresh_sent |= due;
        due.then_some(Due::Refresh)
    }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refresher_refreshes_at_half_and_both_end_it_before_the_end() {
        let start = crate::sim::epoch();
        let mut ours = SessionTimer::default();
        ours.start(1800, Refresher::Us, start);
        let at = ours.poll_timeout().unwrap();
        assert_eq!((at - start).as_secs(), 900);
        assert_eq!(ours.handle_timeout(at), Some(Due::Refresh));
        let end = ours.poll_timeout().unwrap();
        assert_eq!((end - start).as_secs(), 1768);
        assert_eq!(ours.handle_timeout(end), Some(Due::Expired));

        let mut theirs = SessionTimer::default();
        theirs.start(90, Refresher::Peer, start);
        assert_eq!((theirs.poll_timeout().unwrap() - start).as_secs(), 60);
    }

    #[test]
    fn a_refused_refresh_is_tried_again_before_the_end() {
        let start = crate::sim::epoch();
        let at = |ms| start + Duration::from_millis(ms);
        // The refresh was refused at 45 s; the session ends at 60 s.
        for (wait_ms, want_ms) in [(3_000, 48_000), (0, 45_500), (14_999, 59_999), (60_000, 52_500)]
        {
            let mut timer = SessionTimer::default();
            timer.start(90, Refresher::Us, start);
            assert_eq!(timer.handle_timeout(at(45_000)), Some(Due::Refresh));
            timer.retry(Duration::from_millis(wait_ms), at(45_000));
            assert_eq!(timer.poll_timeout(), Some(at(want_ms)), "{wait_ms}");
            assert_eq!(timer.handle_timeout(at(want_ms)), Some(Due::Refresh), "{wait_ms}");
        }
        // A peer that always says "later" is asked more and more often, and then no more.
        let mut timer = SessionTimer::default();
        timer.start(90, Refresher::Us, start);
        let mut asked = 0;
        let end = loop {
            let now = timer.poll_timeout().unwrap();
            match timer.handle_timeout(now) {
                Some(Due::Refresh) => {
                    asked += 1;
                    timer.retry(Duration::from_secs(600), now);
                }
                Some(Due::Expired) => break now,
                None => {}
            }
        };
        assert_eq!((asked, end), (5, at(60_000)));
    }

    #[test]
    fn session_expires_is_read() {
        let read = |v| Wanted::parse(v).map(|w| (w.interval_s, w.by_uac));
        assert_eq!(read("1800;refresher=uac"), Some((1800, Some(true))));
        assert_eq!(read("90 ; Refresher = UAS"), Some((90, Some(false))));
        assert_eq!(read("600"), Some((600, None)));
        assert_eq!(read("soon"), None);
    }
}
