-- The wave of a rollout that may be without devices: an empty canary group, or one whose devices were removed, when
-- somebody has looked at that and went on.
ALTER TABLE rollouts ADD COLUMN may_be_empty INTEGER;
