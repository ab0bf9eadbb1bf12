-- Sources whose messages are not looked at; those of the last day make the next ban longer.
CREATE TABLE ban (
  source    TEXT PRIMARY KEY,
  why       TEXT NOT NULL,
  is_proven INTEGER NOT NULL,
  since_ms  INTEGER NOT NULL,
  until_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
