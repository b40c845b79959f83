-- Keys are handed out once and never again (AUTOINCREMENT): a device that was removed must not lend its identity,
-- its log topics or its containers' names to a later one.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE accounts (
    account_key INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE COLLATE NOCASE,
    secret      TEXT NOT NULL,
    admin       INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    created     TEXT NOT NULL
) STRICT;

CREATE TABLE swarms (
    swarm_key   INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE COLLATE NOCASE,
    account_key INTEGER NOT NULL REFERENCES accounts
) STRICT;

CREATE TABLE devices (
    device_key     INTEGER PRIMARY KEY AUTOINCREMENT,
    swarm_key      INTEGER NOT NULL REFERENCES swarms,
    account_key    INTEGER NOT NULL REFERENCES accounts,
    name           TEXT NOT NULL UNIQUE COLLATE NOCASE,
    serial_number  TEXT NOT NULL UNIQUE,
    secret         TEXT NOT NULL,
    app_cred_key   TEXT NOT NULL,
    status         TEXT NOT NULL DEFAULT 'DISCONNECTED'
                   CHECK (status IN ('DISCONNECTED', 'CONFIGURING', 'CONNECTED', 'EMERGENCY')),
    session_id     INTEGER,
    last_seen      TEXT,
    stats          TEXT,
    tunnel_capable INTEGER,
    architecture   TEXT NOT NULL DEFAULT '',
    os             TEXT NOT NULL DEFAULT '',
    agent_version  TEXT NOT NULL DEFAULT '',
    created        TEXT NOT NULL
) STRICT;

CREATE TABLE grants (
    account_key INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    device_key  INTEGER NOT NULL REFERENCES devices ON DELETE CASCADE,
    privilege   TEXT NOT NULL CHECK (privilege IN ('READ', 'NETWORK', 'DEVELOP', 'MAINTAIN')),
    PRIMARY KEY (account_key, device_key, privilege)
) STRICT, WITHOUT ROWID;

CREATE TABLE apps (
    app_key              INTEGER PRIMARY KEY AUTOINCREMENT,
    account_key          INTEGER NOT NULL REFERENCES accounts,
    name                 TEXT NOT NULL UNIQUE COLLATE NOCASE,
    ports                TEXT NOT NULL DEFAULT '[]',
    environment_template TEXT NOT NULL DEFAULT '{}',
    created              TEXT NOT NULL
) STRICT;

CREATE TABLE releases (
    release_key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_key     INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    version     TEXT NOT NULL,
    created     TEXT NOT NULL,
    UNIQUE (app_key, version)
) STRICT;

-- One app on one device. `revision` counts what people asked for, `reports` what the device answered.
CREATE TABLE installs (
    device_key            INTEGER NOT NULL REFERENCES devices ON DELETE CASCADE,
    app_key               INTEGER NOT NULL REFERENCES apps,
    stage                 TEXT NOT NULL CHECK (stage IN ('DEV', 'PROD')),
    target_state          TEXT NOT NULL,
    current_state         TEXT NOT NULL,
    release_key           INTEGER NOT NULL REFERENCES releases,
    new_release_key       INTEGER NOT NULL REFERENCES releases,
    request_update        INTEGER NOT NULL DEFAULT 0 CHECK (request_update IN (0, 1)),
    update_status         TEXT NOT NULL DEFAULT '',
    requestor_account_key INTEGER NOT NULL REFERENCES accounts,
    environment           TEXT NOT NULL DEFAULT '{}',
    ports                 TEXT NOT NULL DEFAULT '[]',
    app_cred_epoch        INTEGER NOT NULL DEFAULT 1,
    revision              INTEGER NOT NULL DEFAULT 1,
    reports               INTEGER NOT NULL DEFAULT 0,
    updated               TEXT NOT NULL,
    PRIMARY KEY (device_key, app_key, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE reports (
    report_key  INTEGER PRIMARY KEY AUTOINCREMENT,
    device_key  INTEGER NOT NULL REFERENCES devices ON DELETE CASCADE,
    app_key     INTEGER NOT NULL,
    stage       TEXT NOT NULL,
    state       TEXT NOT NULL,
    release_key INTEGER NOT NULL,
    at          TEXT NOT NULL
) STRICT;

CREATE INDEX reports_of_install ON reports (device_key, app_key, stage, report_key);
