-- The record of every task. Rows move, they are not flagged: a task's state is the table its id is in.
--
--   task      written once, never updated        waiting   what waits, by band, due time and sequence
--   running   what runs, under which incarnation  outcome   what was committed
--
-- Columns stand in order of alignment (8, 4, 2 bytes, then variable), which saves 10-20 % of a row.
-- Texts that are compared are COLLATE "C": cheap, and the same on every server.

-- Members: an incarnation is one start of a node. Renewal and death are updates of this one row, so they are
-- ordered by its lock, and PostgreSQL's clock is the only judge. fillfactor keeps renewals HOT.
-- `server` is the start time (in microseconds) of the PostgreSQL that saw the last renewal: after a restart or
-- a failover it differs, and the member starts its unbroken time anew.
CREATE SEQUENCE noria.incarnation_seq;
CREATE TABLE noria.lease (
    incarnation    bigint PRIMARY KEY DEFAULT nextval('noria.incarnation_seq'),
    alive_until    timestamptz NOT NULL,
    unbroken_since timestamptz NOT NULL,  -- restarts when a renewal comes after the lease had run out
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    lease_s        double precision NOT NULL,  -- as granted last
    server         bigint NOT NULL,
    state          smallint NOT NULL DEFAULT 0,  -- 0 joining, 1 active, 2 draining, 8 left, 9 dead (8 and 9 terminal)
    node           text NOT NULL COLLATE "C",
    about          jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- What nodes choose by. Rows are never deleted or changed; a negative id in waiting.band means the suspects
-- (tasks that took their node down more than once) of that band.
CREATE TABLE noria.band (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane     smallint NOT NULL CHECK (lane BETWEEN 0 AND 2),
    keyed    boolean NOT NULL,
    handler  text NOT NULL COLLATE "C",
    tenant   text NOT NULL COLLATE "C",
    requires text[] NOT NULL DEFAULT '{}',
    UNIQUE (handler, lane, tenant, requires, keyed)
);

-- Submission order across all nodes; not cached per session, or FIFO per actor key would be lost.
CREATE SEQUENCE noria.task_seq CACHE 1;

CREATE TABLE noria.task (
    id              uuid PRIMARY KEY,  -- version 7: ascending by creation
    workflow_id     uuid,
    seq             bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    run_at          timestamptz NOT NULL,  -- first due time
    expires_at      timestamptz,
    born_on         bigint,  -- incarnation that accepted it straight into running, else null
    timeout_s       double precision NOT NULL,
    band            integer NOT NULL,
    max_attempts    integer NOT NULL,
    slot            smallint NOT NULL CHECK (slot BETWEEN 0 AND 4095),
    payload_codec   smallint NOT NULL DEFAULT 0,
    tenant          text NOT NULL COLLATE "C",
    idempotency_key text COLLATE "C",
    digest          bytea,  -- SHA-256 of the request, where there is a key
    actor_type      text COLLATE "C",
    actor_key       text COLLATE "C",
    payload         bytea NOT NULL,
    payload_key     text,  -- id of the key it is encrypted with
    payload_ref     text,  -- where it lies when it is not in the row
    prefers         text[],
    metadata        json CHECK (metadata IS NULL OR jsonb_typeof(metadata::jsonb) = 'object'),  -- kept as it was sent
    created_by      text,
    trace_context   text
) WITH (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
-- One key, one task, per tenant.
CREATE UNIQUE INDEX task_idempotency_key ON noria.task (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_actor ON noria.task (tenant, actor_key, id) WHERE actor_key IS NOT NULL;
CREATE INDEX task_workflow ON noria.task (workflow_id, id) WHERE workflow_id IS NOT NULL;

-- No index mentions attempt or any other column that a claim compares: a plan that looked rows up by it would be
-- 150 times slower when statistics are stale. Dead rows go fast: the table turns over completely all the time.
CREATE TABLE noria.waiting (
    id         uuid PRIMARY KEY,
    due        timestamptz NOT NULL,
    seq        bigint NOT NULL,
    expires_at timestamptz,
    band       integer NOT NULL,  -- negative: suspects
    attempt    integer NOT NULL,  -- the attempt that will run next
    failures   integer NOT NULL DEFAULT 0,
    crashes    integer NOT NULL DEFAULT 0,
    slot       smallint NOT NULL,
    reason     smallint NOT NULL DEFAULT 0  -- runtime.core.task.Reason
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 20000
);
CREATE INDEX waiting_pull ON noria.waiting (band, due, seq);
CREATE INDEX waiting_expiry ON noria.waiting (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE noria.running (
    id                  uuid PRIMARY KEY,
    incarnation         bigint NOT NULL,
    seq                 bigint NOT NULL,
    started_at          timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    expires_at          timestamptz,
    band                integer NOT NULL,  -- always positive
    attempt             integer NOT NULL,
    failures            integer NOT NULL DEFAULT 0,
    crashes             integer NOT NULL DEFAULT 0,
    slot                smallint NOT NULL,
    alone               boolean NOT NULL DEFAULT false,  -- a suspect with nothing beside it
    progress            jsonb
) WITH (
    fillfactor = 80,  -- progress is updated in place
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 20000
);
CREATE INDEX running_cancel ON noria.running (id) WHERE cancel_requested_at IS NOT NULL;

CREATE TABLE noria.outcome (
    id           uuid PRIMARY KEY,
    incarnation  bigint,  -- null: cancelled while it waited
    started_at   timestamptz,
    finished_at  timestamptz NOT NULL,
    attempt      integer NOT NULL,  -- attempts begun
    failures     integer NOT NULL DEFAULT 0,
    crashes      integer NOT NULL DEFAULT 0,
    status       smallint NOT NULL,  -- 0 succeeded, 1 failed (dead letter), 2 cancelled
    result_codec smallint NOT NULL DEFAULT 0,
    result       bytea,
    result_key   text,
    result_ref   text,
    error        jsonb
) WITH (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
-- Dead letters and cancelled tasks are rare and are listed; successes cost nothing here.
CREATE INDEX outcome_unsuccessful ON noria.outcome (status, id) WHERE status <> 0;

-- Attempts that committed no outcome: what they met.
CREATE TABLE noria.attempt (
    id          uuid NOT NULL,
    incarnation bigint,
    started_at  timestamptz,
    ended_at    timestamptz NOT NULL,
    attempt     integer NOT NULL,
    kind        smallint NOT NULL,  -- runtime.core.task.AttemptKind
    error       jsonb,
    PRIMARY KEY (id, attempt)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- What nodes publish, so that any node can validate for all, and pause, which all nodes obey.
CREATE TABLE noria.handler (
    name         text PRIMARY KEY COLLATE "C",
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused_at    timestamptz,
    digest       text NOT NULL,
    schema       json NOT NULL,  -- as published, keys in order
    defaults     json NOT NULL,
    source       text NOT NULL DEFAULT '',
    doc          text NOT NULL DEFAULT ''
);
