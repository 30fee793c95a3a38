-- Connections: how they are set up, and what the server has to be.

-- name: set_up
-- $1 names text[], $2 values text[]
-- Not startup parameters: a session pooler refuses those that it does not know.
SELECT set_config(s.name, s.value, false) FROM unnest($1::text[], $2::text[]) AS s(name, value);

-- name: set_up_last
-- $1 names text[], $2 values text[]
-- For the rest of a transaction.
SELECT set_config(s.name, s.value, true) FROM unnest($1::text[], $2::text[]) AS s(name, value);

-- name: durability
-- A server may have it off by default; a 2xx must not.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';

-- name: backend
SELECT pg_backend_pid() AS pid;

-- name: begin
BEGIN;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: schema_version
SELECT coalesce(max(version), 0) AS version, coalesce(max(needs), 0) AS needs FROM noria.migration;

-- name: migration_lock
-- Session level: it is held over all migrations, and goes with the connection.
SELECT pg_try_advisory_lock(hashtextextended('noria.migration', 0)) AS got;

-- name: migration_table
CREATE SCHEMA IF NOT EXISTS noria;
CREATE TABLE IF NOT EXISTS noria.migration (
    version    integer PRIMARY KEY,
    needs      integer NOT NULL,  -- the newest migration that a node must at least know of to work with this schema
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: migrations
SELECT version, name, sha256 FROM noria.migration ORDER BY version;

-- name: migration_applied
-- $1 version integer, $2 needs integer, $3 name text, $4 sha256 text
INSERT INTO noria.migration (version, needs, name, sha256) VALUES ($1, $2, $3, $4);
