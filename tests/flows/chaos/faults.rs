//! What breaks in a world, and whether anybody felt it.

use super::{ACTS_MS, Dice, END_MS};
use crate::house::{TANDEM, TERMINATION, TWILIO, with_pbx};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
    time::{Duration, SystemTime},
};
use tandem::sim::{Disk, Reach, Twilio, World, pbx::WALL_S, twilio::Edge};

/// Something that can break.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// Two cannot reach each other, for a time or for good.
    Parted,
    /// Connections end.
    Disconnected,
    /// There are no media ports.
    NoPorts,
    /// Names take long to resolve.
    SlowNames,
    /// The carrier's name does not resolve.
    NoNames,
    /// The wall clock is set while there are calls.
    Clock,
    /// A new version takes over while there are calls.
    Upgrade,
    /// Nothing is heard of a leg.
    Silence,
    /// An edge of the carrier is silent, or refuses.
    Edge,
    /// The media workers take long for everything.
    SlowMedia,
    /// The queues are full: new work is refused.
    Overloaded,
    /// The disk takes long for every transaction.
    SlowDisk,
    /// The disk is full, or says so of what it has written.
    NoDisk,
}

/// What is drawn from. What was thought of later is at the end: a world of which fewer kinds are known stays what
/// it was.
const DRAWN: [Kind; KINDS as usize] = [
    Kind::Parted,
    Kind::Parted,
    Kind::Parted,
    Kind::Disconnected,
    Kind::NoPorts,
    Kind::SlowNames,
    Kind::NoNames,
    Kind::Clock,
    Kind::Upgrade,
    Kind::Silence,
    Kind::Edge,
    Kind::SlowMedia,
    Kind::Overloaded,
    Kind::SlowDisk,
    Kind::NoDisk,
];
/// How disks break.
const SLOW_DISKS: [Disk; 3] = [
    Disk::Slow(Duration::from_millis(50)),
    Disk::Slow(Duration::from_secs(3)),
    Disk::Slow(Duration::from_secs(20)),
];
const NO_DISKS: [Disk; 2] = [Disk::Gone, Disk::Liar];
/// How many were known when the first worlds failed.
pub(super) const FIRST_KINDS: u64 = 11;
/// How many there are to draw from.
pub(super) const KINDS: u64 = 15;

/// The faults of a world, and which of them were felt.
#[derive(Clone, Debug, Default)]
pub(super) struct Felt(BTreeMap<Kind, bool>);

/// The faults of many worlds: how many had them, and in how many they were felt.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Kind, [u64; 2]>);

impl Tally {
    pub(super) fn add(&mut self, felt: &Felt) {
        for (kind, is_felt) in &felt.0 {
            let [drawn, felt] = self.0.entry(*kind).or_default();
            *drawn += 1;
            *felt += u64::from(*is_felt);
        }
    }

    /// Returns what was felt in less than a tenth of its worlds, or never drawn.
    pub(super) fn unfelt(&self) -> BTreeSet<Kind> {
        let is_unfelt = |kind: &Kind| {
            let [drawn, felt] = self.0.get(kind).copied().unwrap_or_default();
            felt == 0 || felt * 10 < drawn
        };
        DRAWN.into_iter().filter(is_unfelt).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, [drawn, felt]) in &self.0 {
            writeln!(f, "{:>14} in {drawn:>5}, felt in {felt:>5}", format!("{kind:?}"))?;
        }
        Ok(())
    }
}

/// What is to break in a world.
pub(super) struct Plan {
    kinds: u64,
    drawn: BTreeSet<Kind>,
    /// For whoever reads of a world that failed.
    told: Vec<String>,
    /// Felt at the moment at which it happened.
    felt: Rc<RefCell<BTreeSet<Kind>>>,
}

/// When something breaks, and until when.
#[derive(Clone, Copy)]
struct Span {
    at: u64,
    until: u64,
}

impl Plan {
    /// Begins with nothing, to draw from the first so many kinds.
    pub(super) fn new(kinds: u64) -> Self {
        Self { kinds, drawn: BTreeSet::new(), told: vec![], felt: Rc::default() }
    }

    /// Plans something that breaks.
    pub(super) fn add(&mut self, world: &mut World, names: &[String], dice: &mut Dice) {
        let (at, lasts) = (dice.below(ACTS_MS), *dice.of(&[300, 5_000, 40_000]));
        let span = Span { at, until: (at + lasts).min(END_MS) };
        let peer = match dice.hits(30) {
            true => TWILIO.to_owned(),
            false => dice.of(names).clone(),
        };
        let nth = dice.below(self.kinds) as usize;
        let kind = DRAWN[nth];
        self.drawn.insert(kind);
        self.told.push(format!("{at} to {} ms: {kind:?} ({peer})", span.until));
        match kind {
            // One in three is gone for good, as far as anybody can tell.
            Kind::Parted => {
                let until = if nth == 2 { END_MS } else { span.until };
                world.partition(TANDEM, &peer, at, until);
            }
            Kind::Disconnected => world.at(at, move |world| world.disconnect(TANDEM, &peer)),
            Kind::NoPorts => {
                let most = dice.below(4) as usize;
                during(world, span, move |world, is_on| {
                    with_pbx(world, |pbx, _| pbx.limit_legs(is_on.then_some(most)));
                });
            }
            Kind::SlowNames => {
                let takes = Duration::from_millis(*dice.of(&[50, 3_000, 20_000]));
                during(world, span, move |world, is_on| {
                    let takes = if is_on { takes } else { Duration::ZERO };
                    with_pbx(world, |pbx, _| pbx.delay_names(takes));
                });
            }
            Kind::NoNames => during(world, span, |world, is_on| {
                with_pbx(world, |pbx, _| match is_on {
                    true => pbx.forget_host(TERMINATION),
                    false => pbx.recall_hosts(),
                });
            }),
            Kind::Clock => {
                let jump_s = *dice.of(&[-7_200_i64, -30, 30, 3_500, 86_400]);
                self.once(world, at, kind, move |world| set_clock(world, jump_s));
            }
            Kind::Upgrade => self.once(world, at, kind, |world| {
                with_pbx(world, |pbx, now| pbx.upgrade(now));
                with_pbx(world, |pbx, _| pbx.processes()) > 1
            }),
            Kind::Silence => {
                let nth = dice.below(4) as usize;
                self.once(world, at, kind, move |world| {
                    with_pbx(world, |pbx, now| pbx.silence(nth, now))
                });
            }
            Kind::Edge => {
                let reach = *dice.of(&[Reach::Blackholed, Reach::Refusing]);
                let proxy = Edge::all()[0].proxies[0].plain;
                during(world, span, move |world, is_on| {
                    let reach = if is_on { reach } else { Reach::Open };
                    world.with(TWILIO, |twilio: &mut Twilio, _| twilio.set_reach(proxy, reach));
                });
            }
            Kind::SlowMedia => {
                let takes = Duration::from_millis(*dice.of(&[30, 700, 6_000]));
                during(world, span, move |world, is_on| {
                    let takes = if is_on { takes } else { Duration::ZERO };
                    with_pbx(world, |pbx, _| pbx.delay_media(takes));
                });
            }
            Kind::Overloaded => self.overload(world, span),
            Kind::SlowDisk => break_disk(world, span, *dice.of(&SLOW_DISKS)),
            Kind::NoDisk => break_disk(world, span, *dice.of(&NO_DISKS)),
        }
    }

    /// Does something that tells whether anybody felt it.
    fn once(
        &self,
        world: &mut World,
        at: u64,
        kind: Kind,
        act: impl FnOnce(&mut World) -> bool + 'static,
    ) {
        let felt = self.felt.clone();
        world.at(at, move |world| {
            if act(world) {
                felt.borrow_mut().insert(kind);
            }
        });
    }

    fn overload(&self, world: &mut World, span: Span) {
        let felt = self.felt.clone();
        during(world, span, move |world, is_on| {
            let refused = with_pbx(world, |pbx, now| {
                pbx.crowd(is_on);
                pbx.with_shard(now, |shard, _| shard.counters().discards.of("overload"))
            });
            if !is_on && refused > 0 {
                felt.borrow_mut().insert(Kind::Overloaded);
            }
        });
    }

    /// Tells them, each as a line.
    pub(super) fn told(&self) -> &[String] {
        &self.told
    }

    /// Says which of them were felt.
    pub(super) fn felt(&self, world: &mut World) -> Felt {
        let hindered = world.hindered();
        let troubles = with_pbx(world, |pbx, _| pbx.troubles());
        let felt = self.felt.borrow();
        let is_felt = |kind: Kind| match kind {
            Kind::Parted => hindered.parted > 0,
            Kind::Disconnected => hindered.disconnected > 0,
            Kind::Edge => hindered.unreached > 0,
            Kind::NoPorts => troubles.legs_refused > 0,
            Kind::SlowNames => troubles.names_late > 0,
            Kind::NoNames => troubles.names_unknown > 0,
            Kind::SlowMedia => troubles.media_late > 0,
            Kind::SlowDisk => troubles.records_late > 0,
            Kind::NoDisk => troubles.writes_refused > 0,
            Kind::Clock | Kind::Upgrade | Kind::Silence | Kind::Overloaded => felt.contains(&kind),
        };
        Felt(self.drawn.iter().map(|kind| (*kind, is_felt(*kind))).collect())
    }
}

/// Lets something begin, and end.
fn during(world: &mut World, span: Span, set: impl Fn(&mut World, bool) + 'static) {
    let set = Rc::new(set);
    for (at, is_on) in [(span.at, true), (span.until, false)] {
        let set = set.clone();
        world.at(at, move |world| set(world, is_on));
    }
}

fn break_disk(world: &mut World, span: Span, disk: Disk) {
    during(world, span, move |world, is_on| {
        let disk = if is_on { disk } else { Disk::Well };
        with_pbx(world, |pbx, _| pbx.set_disk(disk));
    });
}

/// Returns whether there were calls.
fn set_clock(world: &mut World, jump_s: i64) -> bool {
    let since = Duration::from_secs(WALL_S.saturating_add_signed(jump_s));
    let wall = SystemTime::UNIX_EPOCH + since + Duration::from_millis(world.now_ms());
    with_pbx(world, |pbx, now| {
        pbx.with_shard(now, |shard, now| {
            shard.set_clock(now, wall);
            !shard.calls(now).is_empty()
        })
    })
}
