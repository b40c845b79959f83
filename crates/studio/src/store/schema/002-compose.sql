-- The Compose document of a release, as JSON; NULL: a single container.
ALTER TABLE releases ADD COLUMN docker_compose TEXT;
