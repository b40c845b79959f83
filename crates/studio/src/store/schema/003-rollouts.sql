-- An agent version on its way to devices, in waves.
CREATE TABLE rollouts (
    rollout_key INTEGER PRIMARY KEY AUTOINCREMENT,
    version     TEXT NOT NULL,
    account_key INTEGER NOT NULL REFERENCES accounts,
    state       TEXT NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'done', 'aborted')),
    reason      TEXT NOT NULL DEFAULT '',
    wave        INTEGER NOT NULL DEFAULT 0,
    waves       INTEGER NOT NULL,
    -- Hundredths of the devices asked so far that have to end well.
    threshold   INTEGER NOT NULL,
    -- Seconds from the call to the outcome.
    patience    INTEGER NOT NULL,
    created     TEXT NOT NULL,
    updated     TEXT NOT NULL
) STRICT;

-- `asked` is when the device was first called, in seconds since 1970; `excused`: a failure that somebody has looked at.
CREATE TABLE rollout_devices (
    rollout_key INTEGER NOT NULL REFERENCES rollouts ON DELETE CASCADE,
    device_key  INTEGER NOT NULL REFERENCES devices ON DELETE CASCADE,
    wave        INTEGER NOT NULL,
    state       TEXT NOT NULL DEFAULT 'waiting'
                CHECK (state IN ('waiting', 'asked', 'staged', 'updated', 'failed')),
    from_version TEXT NOT NULL DEFAULT '',
    reason      TEXT NOT NULL DEFAULT '',
    asked       INTEGER,
    excused     INTEGER NOT NULL DEFAULT 0 CHECK (excused IN (0, 1)),
    PRIMARY KEY (rollout_key, device_key)
) STRICT, WITHOUT ROWID;
