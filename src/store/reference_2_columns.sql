-- Columns the reference added over time (contract 9.2). Each statement runs alone; an existing column is fine.
ALTER TABLE RequestedAppStates ADD COLUMN device_owner_account_key INTEGER NOT NULL DEFAULT 0;
ALTER TABLE RequestedAppStates ADD COLUMN docker_compose TEXT;
ALTER TABLE RequestedAppStates ADD COLUMN environment_template TEXT;
ALTER TABLE RequestedAppStates ADD COLUMN new_docker_compose TEXT;
ALTER TABLE RequestedAppStates ADD COLUMN ports TEXT;
