-- One row per call. `record` is the whole truth; the other columns are what is searched by.
CREATE TABLE cdr (
  id        INTEGER PRIMARY KEY,
  call      TEXT    NOT NULL,
  start_ms  INTEGER NOT NULL,
  is_failed INTEGER NOT NULL,
  record    TEXT    NOT NULL,
  UNIQUE (call, start_ms)
);
CREATE INDEX cdr_by_start ON cdr (start_ms);

-- The messages of the newest calls, drawn by `tandem call ladder`.
CREATE TABLE ladder (
  id    INTEGER PRIMARY KEY AUTOINCREMENT,
  call  TEXT NOT NULL,
  rungs TEXT NOT NULL
);
CREATE INDEX ladder_by_call ON ladder (call);

-- Where phones are registered: read once, at the start.
CREATE TABLE binding (
  aor        TEXT    NOT NULL,
  contact    TEXT    NOT NULL,
  transport  TEXT    NOT NULL,
  local      TEXT    NOT NULL,
  remote     TEXT    NOT NULL,
  received   TEXT    NOT NULL,
  path       TEXT    NOT NULL,
  instance   TEXT,
  reg_id     INTEGER,
  q          INTEGER NOT NULL,
  call_id    TEXT    NOT NULL,
  cseq       INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  user_agent TEXT,
  PRIMARY KEY (aor, contact)
) WITHOUT ROWID;

-- The records as columns, for reports: SELECT * FROM calls.
CREATE VIEW calls AS SELECT
  id,
  call,
  record ->> '$.direction'                      AS direction,
  record ->> '$.caller.number'                  AS caller,
  record ->> '$.caller.user'                    AS caller_user,
  record ->> '$.caller.sip_call_id'             AS caller_sip_call_id,
  record ->> '$.callee.number'                  AS callee,
  record ->> '$.callee.user'                    AS callee_user,
  record ->> '$.callee.sip_call_id'             AS callee_sip_call_id,
  record ->> '$.route.dialled'                  AS dialled,
  record ->> '$.route.rule'                     AS rule,
  record ->> '$.route.trunk'                    AS trunk,
  record ->> '$.route.caller_id'                AS caller_id,
  start_ms,
  record ->> '$.times.ring'                     AS ring_ms,
  record ->> '$.times.answer'                   AS answer_ms,
  record ->> '$.times.end'                      AS end_ms,
  coalesce(record ->> '$.times.end' - record ->> '$.times.answer', 0) AS talk_ms,
  record ->> '$.times.end' - start_ms           AS total_ms,
  record ->> '$.ending.by'                      AS ended_by,
  record ->> '$.ending.status'                  AS status,
  record ->> '$.ending.q850'                    AS q850,
  is_failed,
  record ->> '$.ending.why.code'                AS why_code,
  record ->> '$.ending.why.sentence'            AS why,
  record ->> '$.ending.why.help'                AS help,
  record ->> '$.media.is_transcoded'            AS is_transcoded,
  record ->> '$.media.caller.codec'             AS caller_codec,
  record ->> '$.media.caller.received.packets'  AS caller_rx_packets,
  record ->> '$.media.caller.received.lost'     AS caller_rx_lost,
  record ->> '$.media.caller.received.jitter_ms' AS caller_rx_jitter_ms,
  record ->> '$.media.caller.received.mos'      AS caller_rx_mos,
  record ->> '$.media.caller.sent.packets'      AS caller_tx_packets,
  record ->> '$.media.caller.sent.lost'         AS caller_tx_lost,
  record ->> '$.media.caller.sent.jitter_ms'    AS caller_tx_jitter_ms,
  record ->> '$.media.caller.sent.mos'          AS caller_tx_mos,
  record ->> '$.media.caller.relay_jitter_us'   AS caller_relay_jitter_us,
  record ->> '$.media.callee.codec'             AS callee_codec,
  record ->> '$.media.callee.received.packets'  AS callee_rx_packets,
  record ->> '$.media.callee.received.lost'     AS callee_rx_lost,
  record ->> '$.media.callee.received.jitter_ms' AS callee_rx_jitter_ms,
  record ->> '$.media.callee.received.mos'      AS callee_rx_mos,
  record ->> '$.media.callee.sent.packets'      AS callee_tx_packets,
  record ->> '$.media.callee.sent.lost'         AS callee_tx_lost,
  record ->> '$.media.callee.sent.jitter_ms'    AS callee_tx_jitter_ms,
  record ->> '$.media.callee.sent.mos'          AS callee_tx_mos,
  record ->> '$.media.callee.relay_jitter_us'   AS callee_relay_jitter_us
FROM cdr;
