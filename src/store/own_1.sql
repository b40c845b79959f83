-- What the reference would lose (W5, W6), the report outbox (W7) and small remembered facts.

CREATE TABLE ReagentApps (
    app_key INTEGER NOT NULL,
    stage TEXT CHECK(stage IN ('DEV','PROD')) NOT NULL,
    -- Version to publish: the reference keeps only the very first one.
    version TEXT NOT NULL,
    instance_key INTEGER NOT NULL,
    app_cred_epoch INTEGER NOT NULL,
    -- 1: rebuilt from a container's labels; environment and ports are not known.
    adopted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app_key, stage)
) WITHOUT ROWID;

-- AUTOINCREMENT: a number is never used twice, so a late confirmation cannot hit a newer report.
CREATE TABLE ReagentReports (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    app_key INTEGER NOT NULL,
    stage TEXT NOT NULL,
    report TEXT NOT NULL
);

CREATE TABLE ReagentFacts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
