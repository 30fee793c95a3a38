-- Keyed actors: one row per key, which holds its state and is its lock; and the order of what waits for a key.

-- Sixteen bytes of SHA-256, as runtime.core.keyed.actor_id makes them. A type holds no colon.
CREATE FUNCTION noria.actor_id(tenant text, actor_type text, actor_key text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN encode(substr(sha256(convert_to(actor_type || ':' || char_length(tenant) || ':' || tenant || ':'
                                           || actor_key, 'UTF8')), 1, 16), 'hex')::uuid;

-- Grows with every turn of any key: what handlers get as their fence.
CREATE SEQUENCE noria.fence_seq;

-- The lock of a key: whoever begins a turn holds this row while it looks whether one is under way (running.actor),
-- and every commit that writes the state is an update under the condition that `version` is the one it began with.
CREATE TABLE noria.actor (
    id            uuid PRIMARY KEY,
    version       bigint NOT NULL DEFAULT 0,  -- commits that wrote the state
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at    timestamptz,
    state_version integer NOT NULL DEFAULT 0,  -- of the class that wrote it; 0: there is no state yet
    slot          smallint NOT NULL,
    tenant        text NOT NULL COLLATE "C",
    type          text NOT NULL COLLATE "C",
    key           text NOT NULL COLLATE "C",
    state         bytea  -- JSON
) WITH (
    fillfactor = 50,  -- states are updated in place
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);

-- Null for tasks without an actor key, which pay nothing for the indexes.
ALTER TABLE noria.waiting ADD COLUMN actor uuid, ADD COLUMN lane smallint;
ALTER TABLE noria.running ADD COLUMN actor uuid, ADD COLUMN lane smallint;
CREATE INDEX waiting_actor ON noria.waiting (actor, lane, seq) WHERE actor IS NOT NULL;
CREATE INDEX running_actor ON noria.running (actor) WHERE actor IS NOT NULL;

-- Tasks that were accepted with an actor key before there was an order for them.
UPDATE noria.waiting w SET actor = noria.actor_id(t.tenant, t.actor_type, t.actor_key), lane = b.lane
  FROM noria.task t JOIN noria.band b ON b.id = t.band
 WHERE w.id = t.id AND b.keyed AND t.actor_type IS NOT NULL AND t.actor_key IS NOT NULL;
