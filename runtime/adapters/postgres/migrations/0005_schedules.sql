-- Schedules: what makes a task at given times. Nobody leads: any node may fire one that is due, in a transaction that
-- moves `next_fire_at` under the condition that `revision` is the one it read, so each fire time is fired once.
CREATE TABLE noria.schedule (
    next_fire_at timestamptz,  -- null: never again
    created_at   timestamptz NOT NULL DEFAULT statement_timestamp(),
    changed_at   timestamptz NOT NULL DEFAULT statement_timestamp(),
    paused_at    timestamptz,
    last_fire_at timestamptz,
    every_s      double precision,
    revision     bigint NOT NULL DEFAULT 1,  -- grows with every change, also with every fire
    fired        bigint NOT NULL DEFAULT 0,
    missed       bigint NOT NULL DEFAULT 0,
    skipped      bigint NOT NULL DEFAULT 0,
    last_task_id uuid,
    catch_up_max integer NOT NULL,
    tenant       text NOT NULL COLLATE "C",
    name         text NOT NULL COLLATE "C",
    cron         text,
    time_zone    text NOT NULL,
    catch_up     text NOT NULL CHECK (catch_up IN ('skip', 'last', 'all')),
    overlap      text NOT NULL CHECK (overlap IN ('allow', 'skip', 'cancel_old')),
    created_by   text NOT NULL,
    task         bytea NOT NULL,  -- JSON, as it was asked for
    open         uuid[] NOT NULL DEFAULT '{}',  -- tasks of it that may not have ended
    PRIMARY KEY (tenant, name),
    CHECK (num_nonnulls(cron, every_s) = 1)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX schedule_due ON noria.schedule (next_fire_at) WHERE paused_at IS NULL AND next_fire_at IS NOT NULL;
