-- 1: a build or a publication was asked for and has not ended. The reference never drives those again after a restart,
-- so its stored target alone must not.
ALTER TABLE ReagentApps ADD COLUMN unfinished INTEGER NOT NULL DEFAULT 0;
