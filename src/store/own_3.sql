-- `unfinished` is the number of the request from here on: above 0 while its build or publication has not ended, below
-- when it has. A number is given once, so the end of an older build cannot clear the mark of a newer request.
-- `history`: newest row of AppStateHistory when the mark was last touched. The reference adds rows and leaves the mark
-- alone, so newer rows make it a stale one.
ALTER TABLE ReagentApps ADD COLUMN history INTEGER NOT NULL DEFAULT 0;
UPDATE ReagentApps SET history = (SELECT coalesce(max(id), 0) FROM AppStateHistory
    WHERE app_key = ReagentApps.app_key AND stage = ReagentApps.stage);
-- Version whose update was canceled (W63).
ALTER TABLE ReagentApps ADD COLUMN canceled TEXT NOT NULL DEFAULT '';
