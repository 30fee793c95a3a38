-- Limits of handlers: how many attempts start per time, and how many run at once, in the whole cluster.

-- What counts for a handler. Null in both: nothing. `declared` is what the code of the newest node says; what somebody
-- `set_by` hand stands before it.
CREATE TABLE noria.handler_limit (
    period_s    double precision,
    changed_at  timestamptz NOT NULL DEFAULT statement_timestamp(),
    count       integer,
    burst       integer,
    max_running integer,
    handler     text PRIMARY KEY COLLATE "C",
    per         text NOT NULL DEFAULT 'handler' CHECK (per IN ('handler', 'tenant', 'key')),
    declared    jsonb,  -- the same five, where the code declares any
    set_by      text,
    CHECK (num_nonnulls(count, period_s, burst) IN (0, 3))
);

-- One row per handler, tenant or key that is limited by itself: the lock of what begins under it, and GCRA's
-- theoretical arrival time. An instant in the past says no more than no row, so old ones are deleted.
CREATE TABLE noria.limiter (
    id  uuid PRIMARY KEY,  -- as runtime.core.limits.limiter_id makes them
    tat timestamptz NOT NULL
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- How many may start now; the same as runtime.core.limits.room. Null where there is no rate.
CREATE FUNCTION noria.rate_room(tat timestamptz, at timestamptz, count integer, period_s double precision,
                                burst integer) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN greatest(0, floor(burst - greatest(extract(epoch FROM tat - at)::double precision, 0) * count / period_s
                             + 0.000001))::integer;

-- Null for what is not limited, which pays nothing for the indexes.
ALTER TABLE noria.task ADD COLUMN limit_key text COLLATE "C", ADD COLUMN limiter uuid;  -- that of the key
ALTER TABLE noria.waiting ADD COLUMN limiter uuid;  -- that of its limit_key
ALTER TABLE noria.running ADD COLUMN limiter uuid;  -- under which it began
CREATE INDEX waiting_limiter ON noria.waiting (band, limiter, due, seq) WHERE limiter IS NOT NULL;
CREATE INDEX running_limiter ON noria.running (limiter) WHERE limiter IS NOT NULL;
