//! Named hours: days of the week, times of the day, and the holidays on which they do not apply.
//!
//! Owns: what a local time is, and whether hours are open at it.
//! Never: knows time zones or clocks; whoever routes a call says what time it is there.

use std::fmt;

/// A wall clock's minute in the node's time zone.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LocalTime {
    /// The day.
    pub date: Date,
    /// Minutes since midnight, below 1440.
    pub minute: u16,
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Date {
    /// Such as 2026.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A day on which hours do not apply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holiday {
    /// `2026-12-25`
    Once(Date),
    /// `12-25`: month and day of every year.
    Yearly(u8, u8),
}

/// From one minute of the day up to another, which it excludes. Where the end is not after the
/// beginning, it lies on the next day: `22:00-06:00`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    from: u16,
    until: u16,
}

/// When something is open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hours {
    /// The days on which a span may begin.
    pub days: Vec<Weekday>,
    /// The times of these days.
    pub times: Vec<Span>,
    /// The days on which no span begins.
    pub holidays: Vec<Holiday>,
}

const MINUTES_A_DAY: u16 = 24 * 60;

impl LocalTime {
    /// Reads `2026-12-25 10:30` (or with a `T`; seconds are ignored) or `2026-12-25`, its midnight.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = match text.trim().split_once(['T', 't', ' ']) {
            Some((date, time)) => (date, minute(time)?),
            None => (text.trim(), 0),
        };
        let minute = if time < MINUTES_A_DAY { time } else { return None };
        Some(Self { date: Date::parse(date)?, minute })
    }

    /// Returns the day of the week.
    pub fn weekday(self) -> Weekday {
        self.date.weekday()
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date: Date { year, month, day }, minute } = self;
        let weekday = self.weekday().short();
        write!(f, "{weekday} {year}-{month:02}-{day:02} {:02}:{:02}", minute / 60, minute % 60)
    }
}

impl Date {
    /// Reads `2026-12-25`; the day must exist.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let year = digits(parts.next()?, 4)?;
        let month = u8::try_from(digits(parts.next()?, 2)?).ok()?;
        let day = u8::try_from(digits(parts.next()?, 2)?).ok()?;
        let date = Self { year: i32::from(year), month, day };
        (1..=days_of(date.year, month)).contains(&day).then_some(date)
    }

    /// Returns the day of the week, by Sakamoto's method.
    pub fn weekday(self) -> Weekday {
        const SHIFT: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = usize::from(self.month.clamp(1, 12) - 1);
        let year = self.year - i32::from(self.month < 3);
        let sum = year + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + SHIFT[month]
            + i32::from(self.day);
        match sum.rem_euclid(7) {
            0 => Weekday::Sunday,
            1 => Weekday::Monday,
            2 => Weekday::Tuesday,
            3 => Weekday::Wednesday,
            4 => Weekday::Thursday,
            5 => Weekday::Friday,
            _ => Weekday::Saturday,
        }
    }

    fn yesterday(self) -> Self {
        match (self.month, self.day) {
            (1, 1) => Self { year: self.year - 1, month: 12, day: 31 },
            (month, 1) => Self { month: month - 1, day: days_of(self.year, month - 1), ..self },
            (_, day) => Self { day: day - 1, ..self },
        }
    }
}

impl Weekday {
    /// Monday first.
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// Returns `mon` to `sun`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Monday => "mon",
            Self::Tuesday => "tue",
            Self::Wednesday => "wed",
            Self::Thursday => "thu",
            Self::Friday => "fri",
            Self::Saturday => "sat",
            Self::Sunday => "sun",
        }
    }

    /// Reads one day (`mon`, `Monday`) or several (`mon-fri`, `fri-mon`).
    pub fn parse_range(text: &str) -> Option<Vec<Self>> {
        let one = |text: &str| {
            let text = text.trim().to_ascii_lowercase();
            let day = Self::ALL.into_iter().position(|day| text.starts_with(day.short()))?;
            let full = format!("{:?}", Self::ALL[day]).to_ascii_lowercase();
            full.starts_with(&text).then_some(day)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (one(first)?, one(last)?);
        let count = (last + 7 - first) % 7 + 1;
        Some(Self::ALL.into_iter().cycle().skip(first).take(count).collect())
    }
}

impl Holiday {
    /// Reads `2026-12-25` or, for every year, `12-25`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(date) = Date::parse(text) {
            return Some(Self::Once(date));
        }
        // 2000 was a leap year, so that 02-29 is accepted.
        let date = Date::parse(&format!("2000-{text}"))?;
        Some(Self::Yearly(date.month, date.day))
    }

    fn is(self, date: Date) -> bool {
        match self {
            Self::Once(day) => day == date,
            Self::Yearly(month, day) => (month, day) == (date.month, date.day),
        }
    }
}

impl Span {
    /// The whole day.
    pub const DAY: Self = Self { from: 0, until: MINUTES_A_DAY };

    /// Reads `09:00-17:30`; `24:00` is the end of the day.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, until) = text.split_once('-')?;
        let (from, until) = (minute(from.trim())?, minute(until.trim())?);
        (from < MINUTES_A_DAY && from != until).then_some(Self { from, until })
    }

    fn crosses_midnight(self) -> bool {
        self.until < self.from
    }
}

impl Hours {
    /// Returns whether `at` lies in one of the spans.
    pub fn is_open(&self, at: LocalTime) -> bool {
        let today = self.applies(at.date);
        let yesterday = self.applies(at.date.yesterday());
        self.times.iter().any(|span| {
            if span.crosses_midnight() {
                (today && at.minute >= span.from) || (yesterday && at.minute < span.until)
            } else {
                today && (span.from..span.until).contains(&at.minute)
            }
        })
    }

    fn applies(&self, date: Date) -> bool {
        self.days.contains(&date.weekday()) && !self.holidays.iter().any(|holiday| holiday.is(date))
    }
}

/// Reads `HH:MM` or `HH:MM:SS` as minutes since midnight; at most 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hour, rest) = text.trim().split_once(':')?;
    let (minute, seconds) = rest.split_once(':').unwrap_or((rest, "0"));
    // An offset would be a time somewhere else.
    if !seconds.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let (hour, minute) = (digits(hour, 2)?, digits(minute, 2)?);
    let sum = hour.checked_mul(60)?.checked_add(minute)?;
    (minute < 60 && sum <= MINUTES_A_DAY).then_some(sum)
}

fn digits(text: &str, len_max: usize) -> Option<u16> {
    let ok = (1..=len_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if ok { text.parse().ok() } else { None }
}

fn days_of(year: i32, month: u8) -> u8 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_open_when_they_say() {
        let office = Hours {
            days: Weekday::parse_range("mon-fri").unwrap(),
            times: vec![Span::parse("09:00-17:30").unwrap()],
            holidays: vec![Holiday::parse("2026-12-25").unwrap(), Holiday::parse("01-01").unwrap()],
        };
        for (at, want) in [
            ("2026-11-20 09:00", true), // A Friday.
            ("2026-11-20 08:59", false),
            ("2026-11-20T17:29:59", true),
            ("2026-11-20 17:30", false),
            ("2026-11-21 12:00", false), // Saturday.
            ("2026-12-25 12:00", false), // A Friday, but Christmas.
            ("2027-01-01 12:00", false), // A Friday, but New Year.
        ] {
            assert_eq!(office.is_open(LocalTime::parse(at).unwrap()), want, "{at}");
        }
    }

    #[test]
    fn nights_belong_to_the_day_on_which_they_begin() {
        let night = Hours {
            days: vec![Weekday::Sunday],
            times: vec![Span::parse("22:00-06:00").unwrap()],
            holidays: vec![],
        };
        for (at, want) in [
            ("2026-03-01 22:00", true), // A Sunday.
            ("2026-03-02 05:59", true),
            ("2026-03-02 06:00", false),
            ("2026-03-01 05:00", false),
            ("2026-03-02 23:00", false),
        ] {
            assert_eq!(night.is_open(LocalTime::parse(at).unwrap()), want, "{at}");
        }
    }

    #[test]
    fn weekdays_are_right() {
        for (date, want) in [
            ("2000-02-29", Weekday::Tuesday),
            ("2026-01-01", Weekday::Thursday),
            ("2026-11-21", Weekday::Saturday),
            ("2100-03-01", Weekday::Monday),
        ] {
            assert_eq!(Date::parse(date).unwrap().weekday(), want, "{date}");
        }
    }

    #[test]
    fn ranges_of_days_wrap() {
        let days = |text| Weekday::parse_range(text).map(|days| days.len());
        assert_eq!(days("mon-fri"), Some(5));
        assert_eq!(days("fri-mon"), Some(4));
        assert_eq!(days("Sunday"), Some(1));
        assert_eq!(days("noday"), None);
        assert_eq!(days("mo"), None);
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for text in ["2026-02-29", "2026-13-01", "2026-00-10", "26-1-1-1", "2026-1-", "x", ""] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
        for text in ["09:00", "9-17", "09:60-10:00", "24:00-01:00", "10:00-25:00", "09:00-09:00"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
        assert_eq!(LocalTime::parse("2026-12-25 24:00"), None);
        assert_eq!(LocalTime::parse("10:00"), None);
        assert_eq!(LocalTime::parse("2026-12-25T10:00:00Z"), None);
        assert_eq!(LocalTime::parse("2026-12-25T10:00:00+02:00"), None);
    }

    #[test]
    fn times_print_with_their_weekday() {
        let at = LocalTime::parse("2026-12-25 9:05").unwrap();
        assert_eq!(at.to_string(), "fri 2026-12-25 09:05");
    }
}
