-- Devices that failed and are asked again because a person wants that: they try again what failed there.
ALTER TABLE rollout_devices ADD COLUMN retried INTEGER NOT NULL DEFAULT 0;
