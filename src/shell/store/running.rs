//! Calls that go on, written down so that none is without a record when its process dies.
//!
//! Owns: who a process is, the rows of calls that go on, and how the calls of the dead are closed.
//! Never: closes a call whose process lives: after an upgrade the one before still has calls.

use super::{
    Write,
    sqlite::{DatabaseError, insert_cdr, to_sql},
};
use crate::{
    ids::CallId,
    observe::cdr::{Cdr, UtcMs},
};
use rusqlite::{Connection, Transaction, params};
use std::{collections::BTreeSet, fs, time::SystemTime};

/// Returns what no other process was or will be: the kernel's run, the number, the start.
pub(super) fn identity() -> String {
    let pid = std::process::id();
    let started = started(pid).unwrap_or_default();
    format!("{} {pid} {started}", boot())
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Returns when a process was started, in ticks since the kernel was; `None` where there is none, or
/// only its remains (proc_pid_stat(5), fields 3 and 22).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !is_dead)
}

/// Returns whether the process still runs.
fn is_alive(identity: &str) -> bool {
    let mut words = identity.rsplit(' ');
    let (started_then, pid) = (words.next(), words.next());
    let pid = pid.and_then(|pid| pid.parse().ok());
    words.next() == Some(&boot())
        && pid.and_then(started).is_some_and(|at| started_then == Some(&at.to_string()))
}

/// Returns, for each record of a transaction, whether a later one makes it needless: a call that has
/// begun and ended, or begun and been answered, is written once.
pub(super) fn needless(records: &[&Write]) -> Vec<bool> {
    let mut later = BTreeSet::new();
    let is_needless = |record: &&Write| match record {
        Write::Running(cdr) => !later.insert(cdr.call),
        Write::Cdr(cdr) => {
            later.insert(cdr.call);
            false
        }
        Write::Bind(_) | Write::Unbind { .. } | Write::Ban(_) | Write::Lift(_) => false,
    };
    let mut needless: Vec<bool> = records.iter().rev().map(is_needless).collect();
    needless.reverse();
    needless
}

/// Notes that this process lives. Returns its row.
pub(super) fn sign(
    transaction: &Transaction<'_>,
    identity: &str,
    wall: SystemTime,
) -> Result<i64, DatabaseError> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO process (identity, seen_ms) VALUES (?, ?)
         ON CONFLICT (identity) DO UPDATE SET seen_ms = excluded.seen_ms RETURNING id",
    )?;
    Ok(statement.query_row(params![identity, to_sql(UtcMs::from(wall).0)], |row| row.get(0))?)
}

/// Notes the same where calls go on; returns whether any do.
pub(super) fn sign_if_busy(
    connection: &Connection,
    identity: &str,
    wall: SystemTime,
) -> Result<bool, DatabaseError> {
    let mut statement = connection.prepare_cached(
        "UPDATE process SET seen_ms = ? WHERE identity = ?
         AND EXISTS (SELECT 1 FROM running WHERE running.process = process.id)",
    )?;
    Ok(statement.execute(params![to_sql(UtcMs::from(wall).0), identity])? > 0)
}

/// Writes down that a call goes on, or what has become of it since.
pub(super) fn write(
    transaction: &Transaction<'_>,
    process: i64,
    cdr: &Cdr,
) -> Result<usize, DatabaseError> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO running (call, process, record) VALUES (?, ?, ?)",
    )?;
    Ok(statement.execute(params![row_of(cdr.call), process, serde_json::to_string(cdr)?])?)
}

/// Forgets a call that has its record. Most were never written down.
pub(super) fn forget(transaction: &Transaction<'_>, call: CallId) -> Result<(), DatabaseError> {
    let mut statement = transaction.prepare_cached("DELETE FROM running WHERE call = ?")?;
    statement.execute(params![row_of(call)])?;
    Ok(())
}

fn row_of(call: CallId) -> i64 {
    call.0.cast_signed()
}

/// Turns the calls of processes that are gone into records, and returns those.
pub(super) fn close_lost(connection: &mut Connection) -> Result<Vec<Cdr>, DatabaseError> {
    let transaction = connection.transaction()?;
    let mut lost = vec![];
    let dead: Vec<(i64, u64)> = {
        let mut statement = transaction.prepare("SELECT id, identity, seen_ms FROM process")?;
        let mut rows = statement.query([])?;
        let mut dead = vec![];
        while let Some(row) = rows.next()? {
            let identity: String = row.get(1)?;
            let seen: i64 = row.get(2)?;
            if !is_alive(&identity) {
                dead.push((row.get(0)?, u64::try_from(seen).unwrap_or(0)));
            }
        }
        dead
    };
    for (process, seen_ms) in dead {
        for cdr in calls_of(&transaction, process)? {
            let cdr = cdr.lost(UtcMs(seen_ms));
            // A call whose record was written late has one already.
            if insert_cdr(&transaction, &cdr)? {
                lost.push(cdr);
            }
        }
        transaction.execute("DELETE FROM running WHERE process = ?", params![process])?;
        transaction.execute("DELETE FROM process WHERE id = ?", params![process])?;
    }
    transaction.commit()?;
    Ok(lost)
}

fn calls_of(transaction: &Transaction<'_>, process: i64) -> Result<Vec<Cdr>, DatabaseError> {
    let mut statement =
        transaction.prepare("SELECT record FROM running WHERE process = ? ORDER BY call")?;
    let mut rows = statement.query(params![process])?;
    let mut calls = vec![];
    while let Some(row) = rows.next()? {
        match serde_json::from_str(row.get_ref(0)?.as_str().unwrap_or_default()) {
            Ok(cdr) => calls.push(cdr),
            Err(error) => tracing::warn!(%error, "call of before is unreadable"),
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observe::{
            cdr::{
                EndedBy, Outcome,
                tests::{answered, refused},
            },
            status::CdrQuery,
        },
        shell::store::sqlite::Database,
    };
    use std::time::{Duration, UNIX_EPOCH};

    fn open(folder: &tempfile::TempDir) -> Database {
        Database::open(&folder.path().join("t.db")).unwrap()
    }

    /// As it stands while the call goes on.
    fn running(mut cdr: Cdr) -> Write {
        cdr.times.end = UtcMs::default();
        cdr.ending.by = EndedBy::Tandem;
        cdr.ending.why = None;
        Write::Running(Box::new(cdr))
    }

    fn wall(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn this_process_lives_and_others_do_not() {
        let us = identity();
        assert!(is_alive(&us), "{us}");
        let (boot, pid) = (boot(), std::process::id());
        for other in [String::new(), format!("{boot} {pid} 1"), format!("x {pid} 1"), us + "1"] {
            assert!(!is_alive(&other), "{other}");
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let theirs = || started(child.id());
        while theirs().is_some() {} // what is left of it is nobody
        assert!(fs::exists(format!("/proc/{}", child.id())).unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn what_begins_and_ends_in_one_transaction_is_written_once() {
        let records = [
            running(answered(1)),
            running(answered(2)),
            running(answered(1)),
            Write::Cdr(Box::new(answered(1))),
            running(answered(3)),
        ];
        let records: Vec<&Write> = records.iter().collect();
        assert_eq!(needless(&records), [true, false, true, false, false]);
    }

    #[test]
    fn the_calls_of_a_process_that_is_gone_are_closed_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let (talks, rings, ended) = (answered(1), refused(2), answered(3));
        db.write([&running(talks.clone()), &running(rings), &running(ended.clone())]).unwrap();
        db.write([&Write::Cdr(Box::new(ended))]).unwrap();
        assert_eq!(db.close_lost().unwrap(), [], "this process lives");
        let seen = talks.times.answer.unwrap().0 + 61_000;
        assert!(db.sign(wall(seen)).unwrap());
        db.pretend_to_be("another");
        assert!(!db.sign(wall(seen + 1)).unwrap(), "another has no calls");
        crate::shell::store::sqlite::meddle(
            &folder.path().join("t.db"),
            "UPDATE process SET identity = 'gone 1 1'",
        );

        let lost = db.close_lost().unwrap();
        let [talked, rang] = &lost[..] else { panic!("{lost:?}") };
        for cdr in &lost {
            let why = cdr.ending.why.as_ref().unwrap();
            assert_eq!((why.code.as_str(), cdr.ending.by), ("X002", EndedBy::Tandem));
        }
        assert_eq!((talked.outcome(), talked.times.talk_ms()), (Outcome::Answered, 61_000));
        assert_eq!((rang.outcome(), rang.times.answer), (Outcome::Refused, None));
        assert_eq!(db.close_lost().unwrap(), []);
        assert_eq!(db.cdrs(&CdrQuery::default()).unwrap().len(), 3);
        let failed = CdrQuery { failed_only: true, ..CdrQuery::default() };
        assert_eq!(db.cdrs(&failed).unwrap(), [rang.clone(), talked.clone()]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_call_end_before_it_began() {
        let cdr = answered(1);
        let lost = cdr.clone().lost(UtcMs(0));
        assert_eq!(lost.times.talk_ms(), 0);
        assert_eq!(lost.times.end, cdr.times.answer.unwrap());
    }

    #[test]
    fn a_record_that_came_late_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        db.write([&Write::Cdr(Box::new(answered(1)))]).unwrap();
        db.write([&running(answered(1))]).unwrap();
        crate::shell::store::sqlite::meddle(
            &folder.path().join("t.db"),
            "UPDATE process SET identity = 'gone 1 1'",
        );
        assert_eq!(db.close_lost().unwrap(), []);
        assert_eq!(db.cdrs(&CdrQuery::default()).unwrap(), [answered(1)]);
    }
}
