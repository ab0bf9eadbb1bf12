//! The database file: its schema, what is written, what is asked.
//!
//! Owns: the connection, every line of SQL, the only names of the SQLite library.
//! Never: retries, waits for another task, or decides what a failure means to a call.

use super::{Write, running};
use crate::{
    guard::{Ban, Offence, REMEMBERED},
    ids::{CallId, Flow, Transport},
    network::Network,
    observe::{
        cdr::{Cdr, UtcMs},
        ladder::Rungs,
        plain,
        status::{CDR_LIMIT_MAX, CdrQuery},
    },
    registrar::Binding,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, named_params, params};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The schema, step by step; the file's `user_version` counts the steps it has taken.
const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];
/// Ladders kept: those of the newest calls that brought one.
const LADDERS_MAX: u32 = 10_000;
/// How long another program (a backup, a report) may keep us from writing before that is a failure:
/// for so long nobody takes records out of the queue.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// What the database says no with.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    /// The file or its folder.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The library.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A record that JSON cannot carry.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The schema is newer than this program.
    #[error("the file was written by a newer version (schema {found}, this one knows {known})")]
    TooNew {
        /// In the file.
        found: u32,
        /// In this program.
        known: u32,
    },
}

impl DatabaseError {
    /// Returns whether the record is to blame, so that trying it again is of no use.
    pub(super) fn is_about_the_record(&self) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
            ),
            Self::Io(_) | Self::TooNew { .. } => false,
        }
    }
}

/// An open database.
pub(super) struct Database {
    connection: Connection,
    /// Which file it is, whatever has its name: device and number.
    file: (u64, u64),
    /// Which process we are.
    identity: String,
}

impl Database {
    /// Opens the file, creates it and its folder where they are missing (for the owner's eyes only:
    /// it holds numbers), and brings its schema up to date.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // What was acknowledged survives a power cut: one wait for the disk each transaction.
        connection.pragma_update(None, "synchronous", "full")?;
        migrate(&mut connection)?;
        let file = file_at(path)?;
        Ok(Self { connection, file, identity: running::identity() })
    }

    /// Returns whether this is still the file with that name: it may have been removed, or another
    /// put in its place, and what is written into it would then be lost.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        file_at(path).is_ok_and(|file| file == self.file)
    }

    /// Makes records of the calls whose process is gone; returns them.
    pub(super) fn close_lost(&mut self) -> Result<Vec<Cdr>, DatabaseError> {
        running::close_lost(&mut self.connection)
    }

    /// Notes that this process lives, where it has calls; returns whether it has.
    pub(super) fn sign(&self, wall: SystemTime) -> Result<bool, DatabaseError> {
        running::sign_if_busy(&self.connection, &self.identity, wall)
    }

    /// Takes the identity of another process.
    #[cfg(test)]
    pub(super) fn pretend_to_be(&mut self, identity: &str) {
        identity.clone_into(&mut self.identity);
    }

    /// Writes all records or none. Returns how many were new.
    pub(super) fn write<'w>(
        &mut self,
        records: impl IntoIterator<Item = &'w Write>,
    ) -> Result<usize, DatabaseError> {
        let records: Vec<&Write> = records.into_iter().collect();
        let needless = running::needless(&records);
        let transaction = self.connection.transaction()?;
        let mut process = None;
        let mut changed = 0;
        for (record, _) in records.into_iter().zip(needless).filter(|(_, needless)| !needless) {
            let Write::Running(cdr) = record else {
                changed += write_one(&transaction, record)?;
                continue;
            };
            let ours = match process {
                Some(process) => process,
                None => running::sign(&transaction, &self.identity, SystemTime::now())?,
            };
            process = Some(ours);
            changed += running::write(&transaction, ours, cdr)?;
        }
        transaction
            .prepare_cached("DELETE FROM ladder WHERE id <= (SELECT max(id) FROM ladder) - ?")?
            .execute(params![LADDERS_MAX])?;
        transaction.commit()?;
        Ok(changed)
    }

    /// Returns the records asked for, the newest first.
    pub(super) fn cdrs(&self, query: &CdrQuery) -> Result<Vec<Cdr>, DatabaseError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT record FROM cdr
             WHERE start_ms >= :since AND is_failed >= :failed AND (:call IS NULL OR call = :call)
             ORDER BY start_ms DESC, id DESC LIMIT :limit",
        )?;
        let mut rows = statement.query(named_params! {
            ":since": to_sql(query.since.unwrap_or_default().0),
            ":failed": query.failed_only,
            ":call": query.call,
            ":limit": query.limit.min(CDR_LIMIT_MAX),
        })?;
        let mut cdrs = vec![];
        while let Some(row) = rows.next()? {
            cdrs.push(serde_json::from_str(row.get_ref(0)?.as_str().unwrap_or_default())?);
        }
        Ok(cdrs)
    }

    /// Returns the ladder of a call that is over; of the newest, where an identifier came again
    /// after a restart.
    pub(super) fn ladder(&self, call: CallId) -> Result<Option<Rungs>, DatabaseError> {
        let found: Option<String> = self
            .connection
            .prepare_cached("SELECT rungs FROM ladder WHERE call = ? ORDER BY id DESC LIMIT 1")?
            .query_row(params![call.to_string()], |row| row.get(0))
            .optional()?;
        Ok(found.map(|json| serde_json::from_str(&json)).transpose()?)
    }

    /// Returns the bindings that have not ended, and forgets those that have.
    pub(super) fn bindings(&self, wall: SystemTime) -> Result<Vec<Binding>, DatabaseError> {
        let now = to_sql(UtcMs::from(wall).0);
        self.connection.execute("DELETE FROM binding WHERE expires_ms <= ?", params![now])?;
        let mut statement =
            self.connection.prepare("SELECT * FROM binding ORDER BY aor, updated_ms, contact")?;
        let mut rows = statement.query([])?;
        let mut bindings = vec![];
        while let Some(row) = rows.next()? {
            match read_binding(row)? {
                Some(binding) => bindings.push(binding),
                None => tracing::warn!("binding is unreadable"),
            }
        }
        Ok(bindings)
    }

    /// Returns the bans that hold or are still remembered, and forgets the others.
    pub(super) fn bans(&self, wall: SystemTime) -> Result<Vec<Ban>, DatabaseError> {
        let oldest = to_sql(UtcMs::from(wall.checked_sub(REMEMBERED).unwrap_or(UNIX_EPOCH)).0);
        self.connection.execute("DELETE FROM ban WHERE until_ms <= ?", params![oldest])?;
        let mut statement = self.connection.prepare("SELECT * FROM ban ORDER BY source")?;
        let mut rows = statement.query([])?;
        let mut bans = vec![];
        while let Some(row) = rows.next()? {
            match read_ban(row)? {
                Some(ban) => bans.push(ban),
                None => tracing::warn!("ban is unreadable"),
            }
        }
        Ok(bans)
    }
}

fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn migrate(connection: &mut Connection) -> Result<(), DatabaseError> {
    let known = MIGRATIONS.len() as u32;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(DatabaseError::TooNew { found, known });
    }
    if found == known {
        return Ok(()); // Nothing to write: it may be opened while another program has it.
    }
    let transaction = connection.transaction()?;
    for step in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

fn write_one(transaction: &Transaction<'_>, record: &Write) -> Result<usize, DatabaseError> {
    match record {
        Write::Cdr(cdr) => write_cdr(transaction, cdr),
        Write::Running(_) => Ok(0), // needs to know whose
        Write::Bind(binding) => write_binding(transaction, binding),
        Write::Unbind { aor, contact } => Ok(transaction
            .prepare_cached("DELETE FROM binding WHERE aor = ? AND contact = ?")?
            .execute(params![aor, contact])?),
        Write::Ban(ban) => write_ban(transaction, ban),
        Write::Lift(network) => forget_bans(transaction, *network),
    }
}

fn write_ban(transaction: &Transaction<'_>, ban: &Ban) -> Result<usize, DatabaseError> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO ban (source, why, is_proven, since_ms, until_ms)
         VALUES (?, ?, ?, ?, ?)",
    )?;
    Ok(statement.execute(params![
        ban.source.to_string(),
        ban.why.word(),
        ban.is_proven,
        to_sql(UtcMs::from(ban.since).0),
        to_sql(UtcMs::from(ban.until).0),
    ])?)
}

fn forget_bans(transaction: &Transaction<'_>, network: Network) -> Result<usize, DatabaseError> {
    let mut statement = transaction.prepare_cached("SELECT source FROM ban")?;
    let mut rows = statement.query([])?;
    let mut forgotten = 0;
    while let Some(row) = rows.next()? {
        let source: String = row.get(0)?;
        if Network::parse(&source).is_ok_and(|source| source.overlaps(network)) {
            forgotten += transaction
                .prepare_cached("DELETE FROM ban WHERE source = ?")?
                .execute(params![source])?;
        }
    }
    Ok(forgotten)
}

/// Returns `None` where somebody else wrote into the file what we never would.
fn read_ban(row: &Row<'_>) -> Result<Option<Ban>, rusqlite::Error> {
    let (source, why): (String, String) = (row.get("source")?, row.get("why")?);
    let (Ok(source), Some(why)) = (Network::parse(&source), Offence::parse(&why)) else {
        return Ok(None);
    };
    Ok(Some(Ban {
        source,
        why,
        is_proven: row.get("is_proven")?,
        since: from_sql(row.get("since_ms")?),
        until: from_sql(row.get("until_ms")?),
    }))
}

/// One record a call: a second one for the same call is our own mistake, and is not written.
fn write_cdr(transaction: &Transaction<'_>, cdr: &Cdr) -> Result<usize, DatabaseError> {
    running::forget(transaction, cdr.call)?;
    let call = cdr.call.to_string();
    if !insert_cdr(transaction, cdr)? {
        tracing::error!(call, "CDR written twice");
        return Ok(0);
    }
    if let Some(rungs) = &cdr.ladder {
        let rungs = serde_json::to_string(rungs)?;
        transaction
            .prepare_cached("INSERT INTO ladder (call, rungs) VALUES (?, ?)")?
            .execute(params![call, rungs])?;
    }
    Ok(1)
}

/// Returns whether the record is new.
pub(super) fn insert_cdr(transaction: &Transaction<'_>, cdr: &Cdr) -> Result<bool, DatabaseError> {
    let (call, start) = (cdr.call.to_string(), to_sql(cdr.times.start.0));
    let mut statement = transaction.prepare_cached(
        "INSERT OR IGNORE INTO cdr (call, start_ms, is_failed, record) VALUES (?, ?, ?, ?)",
    )?;
    let record = serde_json::to_string(cdr)?;
    Ok(statement.execute(params![call, start, cdr.is_failed(), plain::json(&record)])? > 0)
}

fn write_binding(transaction: &Transaction<'_>, b: &Binding) -> Result<usize, DatabaseError> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO binding
         (aor, contact, transport, local, remote, received, path, instance, reg_id, q, call_id,
          cseq, updated_ms, expires_ms, user_agent)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    Ok(statement.execute(params![
        b.aor,
        b.contact,
        b.flow.transport.param(),
        b.flow.local.to_string(),
        b.flow.remote.to_string(),
        b.received.to_string(),
        serde_json::to_string(&b.path)?,
        b.instance,
        b.reg_id,
        b.q,
        b.call_id,
        b.cseq,
        to_sql(UtcMs::from(b.updated_at).0),
        to_sql(UtcMs::from(b.expires_at).0),
        b.user_agent,
    ])?)
}

/// Returns `None` where somebody else wrote into the file what we never would.
fn read_binding(row: &Row<'_>) -> Result<Option<Binding>, rusqlite::Error> {
    let address =
        |column: &str| row.get(column).map(|text: String| text.parse::<SocketAddr>().ok());
    let transport: String = row.get("transport")?;
    let (transport, local) = (Transport::parse(&transport), address("local")?);
    let (remote, received) = (address("remote")?, address("received")?);
    let path: String = row.get("path")?;
    let path: Option<Vec<Box<str>>> = serde_json::from_str(&path).ok();
    let (Some(transport), Some(local), Some(remote), Some(received), Some(path)) =
        (transport, local, remote, received, path)
    else {
        return Ok(None);
    };
    let expires_at = from_sql(row.get("expires_ms")?);
    Ok(Some(Binding {
        aor: row.get("aor")?,
        contact: row.get("contact")?,
        flow: Flow { transport, local, remote },
        received,
        path,
        instance: row.get("instance")?,
        reg_id: row.get("reg_id")?,
        q: row.get("q")?,
        call_id: row.get("call_id")?,
        cseq: row.get("cseq")?,
        updated_at: from_sql(row.get("updated_ms")?),
        expires_at,
        user_agent: row.get("user_agent")?,
        stored_until: expires_at,
    }))
}

pub(super) fn to_sql(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn from_sql(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Changes the file behind the store's back.
#[cfg(test)]
pub(super) fn meddle(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// Another program that writes and does not come to an end.
#[cfg(test)]
pub(super) struct Lock(Connection);

#[cfg(test)]
impl Lock {
    pub(super) fn take(path: &Path) -> Self {
        let lock = Self(Connection::open(path).unwrap());
        lock.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        cdr::tests::{answered, refused},
        ladder::{Ladder, Line},
    };
    use std::os::unix::fs::PermissionsExt;

    fn open(folder: &tempfile::TempDir) -> Database {
        Database::open(&folder.path().join("deep/tandem.db")).unwrap()
    }

    fn wall(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(s)
    }

    fn binding(contact: &str, expires_s: u64) -> Binding {
        let remote = "[2001:db8::1]:5062".parse().unwrap();
        let local = "0.0.0.0:5060".parse().unwrap();
        Binding {
            aor: "1001".into(),
            contact: contact.into(),
            flow: Flow { transport: Transport::Tcp, local, remote },
            received: remote,
            path: vec!["<sip:edge.example.com;lr>".into(), "<sip:b>".into()],
            instance: Some("<urn:uuid:1>".into()),
            reg_id: Some(2),
            q: 700,
            call_id: "a@b".into(),
            cseq: u32::MAX,
            updated_at: wall(5),
            expires_at: wall(expires_s),
            user_agent: None,
            stored_until: wall(expires_s),
        }
    }

    #[test]
    fn cdrs_come_back_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let cdrs = [answered(1), refused(2), answered(3)];
        let records = cdrs.clone().map(|cdr| Write::Cdr(Box::new(cdr)));
        assert_eq!(db.write(&records).unwrap(), 3);
        let [first, second, third] = cdrs;
        let since = Some(second.times.start);
        for (query, want) in [
            (CdrQuery::default(), vec![&third, &second, &first]),
            (CdrQuery { limit: 1, ..CdrQuery::default() }, vec![&third]),
            (CdrQuery { since, ..CdrQuery::default() }, vec![&third, &second]),
            (CdrQuery { failed_only: true, ..CdrQuery::default() }, vec![&second]),
            (CdrQuery { call: Some("c00-1".into()), ..CdrQuery::default() }, vec![&first]),
            (CdrQuery { call: Some("' OR 1=1".into()), ..CdrQuery::default() }, vec![]),
        ] {
            let found = db.cdrs(&query).unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), want, "{query:?}");
        }
    }

    #[test]
    fn a_second_record_of_a_call_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let record = Write::Cdr(Box::new(answered(1)));
        assert_eq!(db.write([&record, &record]).unwrap(), 1);
        assert_eq!(db.cdrs(&CdrQuery::default()).unwrap().len(), 1);
    }

    #[test]
    fn every_column_of_the_view_has_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        db.write(&[Write::Cdr(Box::new(answered(42)))]).unwrap();
        let mut statement = db.connection.prepare("SELECT * FROM calls").unwrap();
        let names: Vec<String> = statement.column_names().map(Into::into).collect();
        let empty: Vec<&String> = statement
            .query_row([], |row| {
                let is_null = |n: &usize| {
                    row.get_ref(*n).is_ok_and(|value| value == rusqlite::types::ValueRef::Null)
                };
                Ok((0..names.len()).filter(is_null).map(|n| &names[n]).collect())
            })
            .unwrap();
        assert_eq!(empty, ["callee_user", "why_code", "why", "help"]);
        let (to, talk, lost): (String, u32, u32) = db
            .connection
            .query_row("SELECT callee, talk_ms, caller_rx_lost FROM calls", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!((to.as_str(), talk, lost), ("+14155550199", 5_000, 1));
    }

    #[test]
    fn a_file_of_before_learns_of_quality() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.db");
        meddle(&path, MIGRATIONS[0]);
        meddle(&path, "PRAGMA user_version = 1");
        let old =
            r#"INSERT INTO cdr (call, start_ms, is_failed, record) VALUES ('c00-1', 1, 0, '{}')"#;
        meddle(&path, old);
        let mut db = Database::open(&path).unwrap();
        db.write(&[Write::Cdr(Box::new(answered(2)))]).unwrap();
        let mut statement = db.connection.prepare("SELECT quality FROM calls ORDER BY id").unwrap();
        let read = statement.query_map([], |row| row.get(0)).unwrap();
        let read: Vec<Option<String>> = read.collect::<Result<_, _>>().unwrap();
        assert_eq!(read, [None, answered(2).quality]);
    }

    #[test]
    fn ladders_are_kept_apart_from_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let now = crate::shell::now();
        let mut ladder = Ladder::new(now);
        ladder.record("a", "b", Line::request("INVITE", 1), now);
        let cdr = Cdr { ladder: Some(ladder.rungs()), ..refused(7) };
        db.write(&[Write::Cdr(Box::new(cdr.clone()))]).unwrap();
        assert_eq!(db.ladder(cdr.call).unwrap(), cdr.ladder);
        assert_eq!(db.ladder(answered(8).call).unwrap(), None);
        assert_eq!(db.cdrs(&CdrQuery::default()).unwrap(), [refused(7)]);
    }

    #[test]
    fn bindings_survive_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let (stays, ends) = (binding("sip:1001@a", 100), binding("sip:1001@b", 50));
        let gone = binding("sip:1001@c", 100);
        let unbind = Write::Unbind { aor: gone.aor.clone(), contact: gone.contact.clone() };
        let refreshed = Binding { cseq: 9, ..stays.clone() };
        let bind = |b: &Binding| Write::Bind(Box::new(b.clone()));
        db.write(&[bind(&stays), bind(&ends), bind(&gone), unbind, bind(&refreshed)]).unwrap();
        drop(db);
        let db = open(&folder);
        assert_eq!(db.bindings(wall(49)).unwrap(), [refreshed.clone(), ends]);
        assert_eq!(db.bindings(wall(50)).unwrap(), std::slice::from_ref(&refreshed));
        assert_eq!(db.bindings(wall(0)).unwrap(), [refreshed], "what has ended is forgotten");
    }

    /// A power cut leaves of what was not acknowledged any part: of the log behind the last
    /// transaction, a beginning, and noise after it.
    #[test]
    fn torn_writes_cost_nothing_that_was_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let path = folder.path().join("deep/tandem.db");
        let log = folder.path().join("deep/tandem.db-wal");
        let mut write = |n| db.write([&Write::Cdr(Box::new(answered(n)))]).unwrap();
        (0..20).for_each(|n| _ = write(n));
        let acknowledged = usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();
        (20..25).for_each(|n| _ = write(n));
        let (file, whole) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
        assert!(acknowledged < whole.len());

        let torn = folder.path().join("torn.db");
        for (round, end) in (acknowledged..=whole.len()).step_by(997).enumerate() {
            let mut left = whole[..end].to_vec();
            // Blocks reach the disk in any order: what follows may be anything.
            left.resize(whole.len(), if round % 2 == 0 { 0 } else { 0xa5 });
            fs::write(&torn, &file).unwrap();
            fs::write(folder.path().join("torn.db-wal"), left).unwrap();
            _ = fs::remove_file(folder.path().join("torn.db-shm"));
            let db = Database::open(&torn).unwrap();
            let found = db.cdrs(&CdrQuery::default()).unwrap();
            assert!((20..=25).contains(&found.len()), "{end}: {} records", found.len());
            let sound: String = db
                .connection
                .pragma_query_value(None, "integrity_check", |row| row.get(0))
                .unwrap();
            assert_eq!(sound, "ok", "{end}");
        }
    }

    #[test]
    fn bans_survive_are_lifted_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        let ban = |source: &str, until_s| Ban {
            source: Network::parse(source).unwrap(),
            why: Offence::Guess,
            is_proven: true,
            since: wall(5),
            until: wall(until_s),
        };
        let all = [ban("192.0.2.1", 9), ban("192.0.2.2", 100), ban("2001:db8::/64", 200)];
        let write = |ban: &Ban| Write::Ban(Box::new(ban.clone()));
        db.write(&all.each_ref().map(write)).unwrap();
        let longer = ban("192.0.2.2", 300);
        db.write(&[write(&longer)]).unwrap();
        drop(db);
        let mut db = open(&folder);
        let [first, _, v6] = all;
        assert_eq!(db.bans(wall(50)).unwrap(), [first, longer.clone(), v6]);
        db.write(&[Write::Lift(Network::parse("2001:db8::7").unwrap())]).unwrap();
        let after = wall(9) + REMEMBERED;
        assert_eq!(db.bans(after).unwrap(), std::slice::from_ref(&longer));
        assert_eq!(db.bans(wall(0)).unwrap(), [longer], "what is not remembered is forgotten");
        db.connection.execute("UPDATE ban SET source = 'nowhere'", []).unwrap();
        assert_eq!(db.bans(wall(0)).unwrap(), []);
    }

    #[test]
    fn what_others_wrote_into_the_file_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = open(&folder);
        db.write(&[Write::Bind(Box::new(binding("sip:1001@a", 100)))]).unwrap();
        db.connection.execute("UPDATE binding SET remote = 'nowhere'", []).unwrap();
        assert_eq!(db.bindings(wall(0)).unwrap(), []);
    }

    #[test]
    fn only_the_owner_may_read_it_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let db = open(&folder);
        let path = folder.path().join("deep/tandem.db");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        db.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        let error = Database::open(&path).err().unwrap().to_string();
        assert!(error.contains("newer version (schema 99"), "{error}");
    }
}
