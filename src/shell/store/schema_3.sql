-- Processes that have calls up, and when each last said so.
CREATE TABLE process (
  id       INTEGER PRIMARY KEY,
  identity TEXT    NOT NULL UNIQUE,
  seen_ms  INTEGER NOT NULL
);

-- Calls that go on: what their records say so far, should their process die.
CREATE TABLE running (
  call    INTEGER PRIMARY KEY,
  process INTEGER NOT NULL REFERENCES process (id),
  record  TEXT    NOT NULL
);
