-- fragment: view
    t.id, t.tenant, b.handler, b.lane, t.slot, t.max_attempts, t.timeout_s, t.created_at, t.run_at, b.requires, t.prefers,
    t.idempotency_key, t.actor_key, t.expires_at, t.metadata::text AS metadata, t.created_by, t.trace_context, t.workflow_id,
    CASE
        WHEN o.id IS NOT NULL THEN 4 + o.status
        WHEN r.id IS NOT NULL THEN 3
        WHEN w.due <= statement_timestamp() THEN 2
        WHEN w.id IS NOT NULL THEN 1
    END AS state,
    coalesce(o.attempt, r.attempt, w.attempt - 1) AS attempt, coalesce(o.failures, r.failures, w.failures) AS failures,
    coalesce(o.crashes, r.crashes, w.crashes) AS crashes, coalesce(w.reason, 0) AS reason,
    coalesce(w.band < 0, r.alone, false) AS suspect, w.due, l.node, coalesce(r.started_at, o.started_at) AS started_at, o.finished_at,
    r.cancel_requested_at, o.result_codec, o.error::text AS error, r.progress::text AS progress
FROM noria.task t
JOIN noria.band b ON b.id = t.band
LEFT JOIN noria.waiting w ON w.id = t.id
LEFT JOIN noria.running r ON r.id = t.id
LEFT JOIN noria.outcome o ON o.id = t.id
LEFT JOIN noria.lease l ON l.incarnation = coalesce(r.incarnation, o.incarnation)

-- fragment: matches
    ($1::uuid[] IS NULL OR t.id = ANY ($1)) AND ($2::text IS NULL OR t.tenant = $2) AND ($3::text IS NULL OR b.handler = $3)
    AND ($4::text IS NULL OR t.actor_key = $4) AND ($5::text IS NULL OR t.idempotency_key = $5)
    AND ($6::uuid IS NULL OR t.workflow_id = $6) AND ($7::timestamptz IS NULL OR t.created_at > $7)
    AND ($8::timestamptz IS NULL OR t.created_at < $8) AND ($9::text IS NULL OR o.error ->> 'type' = $9)
    AND ($10::int[] IS NULL OR (CASE
        WHEN o.id IS NOT NULL THEN 4 + o.status
        WHEN r.id IS NOT NULL THEN 3
        WHEN w.due <= statement_timestamp() THEN 2
        WHEN w.id IS NOT NULL THEN 1
    END) = ANY ($10))

-- fragment: filtered
, matching AS (
    SELECT t.id
    FROM looked k
    JOIN noria.task t ON t.id = k.id
    JOIN noria.band b ON b.id = t.band
    LEFT JOIN noria.waiting w ON w.id = t.id
    LEFT JOIN noria.running r ON r.id = t.id
    LEFT JOIN noria.outcome o ON o.id = t.id
    WHERE {matches}
    ORDER BY t.id DESC LIMIT $13
)
SELECT m.id, (SELECT count(*) FROM looked) AS looked, (SELECT id FROM looked ORDER BY id LIMIT 1) AS last
FROM (SELECT 1) AS one LEFT JOIN matching m ON true
ORDER BY m.id DESC

-- name: views
-- $1 id uuid[]
SELECT o.result, {view}
WHERE t.id = ANY ($1::uuid[]);

-- name: views_without_results
-- $1 id uuid[]
SELECT NULL::bytea AS result, {view}
WHERE t.id = ANY ($1::uuid[]);

-- name: finished
-- $1 id uuid[]
SELECT o.result, {view}
WHERE o.id = ANY ($1::uuid[]);

-- name: attempts
-- $1 id uuid
SELECT a.attempt, a.kind, l.node, a.started_at, a.ended_at, a.error::text AS error
FROM noria.attempt a LEFT JOIN noria.lease l ON l.incarnation = a.incarnation
WHERE a.id = $1 ORDER BY a.attempt;

-- name: list_by_task
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT t.id FROM noria.task t WHERE t.id < $11 ORDER BY t.id DESC LIMIT $12
)
{filtered};

-- name: list_by_ids
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT t.id FROM noria.task t WHERE t.id = ANY ($1::uuid[]) AND t.id < $11 ORDER BY t.id DESC LIMIT $12
)
{filtered};

-- name: list_by_key
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT t.id FROM noria.task t WHERE t.tenant = $2 AND t.idempotency_key = $5 AND t.id < $11 ORDER BY t.id DESC LIMIT $12
)
{filtered};

-- name: list_by_actor
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT t.id FROM noria.task t WHERE t.tenant = $2 AND t.actor_key = $4 AND t.id < $11 ORDER BY t.id DESC LIMIT $12
)
{filtered};

-- name: list_by_workflow
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT t.id FROM noria.task t WHERE t.workflow_id = $6 AND t.id < $11 ORDER BY t.id DESC LIMIT $12
)
{filtered};

-- name: list_waiting
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT w.id FROM noria.waiting w WHERE w.id < $11 ORDER BY w.id DESC LIMIT $12
)
{filtered};

-- name: list_running
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT r.id FROM noria.running r WHERE r.id < $11 ORDER BY r.id DESC LIMIT $12
)
{filtered};

-- name: list_failed
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT o.id FROM noria.outcome o WHERE o.status = 1 AND o.id < $11 ORDER BY o.id DESC LIMIT $12
)
{filtered};

-- name: list_cancelled
-- $1…$10 the filter, $11 before uuid, $12 rows to look at int, $13 limit int
WITH looked AS MATERIALIZED (
    SELECT o.id FROM noria.outcome o WHERE o.status = 2 AND o.id < $11 ORDER BY o.id DESC LIMIT $12
)
{filtered};

-- name: unfinished
-- $1…$10 the filter, $11 limit int
-- Oldest first: what waits, and what runs and is not yet asked to cancel.
SELECT t.id
FROM (
    SELECT id FROM noria.waiting UNION ALL SELECT id FROM noria.running WHERE cancel_requested_at IS NULL
) k
JOIN noria.task t ON t.id = k.id
JOIN noria.band b ON b.id = t.band
LEFT JOIN noria.waiting w ON w.id = t.id
LEFT JOIN noria.running r ON r.id = t.id
LEFT JOIN noria.outcome o ON o.id = t.id
WHERE {matches}
ORDER BY t.id LIMIT $11;

-- name: dead_letters
-- $1…$10 the filter, $11 limit int, $12 status int2[]
SELECT t.id
FROM noria.outcome o
JOIN noria.task t ON t.id = o.id
JOIN noria.band b ON b.id = t.band
LEFT JOIN noria.waiting w ON w.id = t.id
LEFT JOIN noria.running r ON r.id = t.id
WHERE o.status = ANY ($12::int2[]) AND o.status <> 0 AND {matches}
ORDER BY t.id LIMIT $11;

-- name: count_waiting
SELECT band, count(*) FILTER (WHERE due <= statement_timestamp()) AS ready, count(*) FILTER (WHERE due > statement_timestamp()) AS scheduled,
       extract(epoch FROM statement_timestamp() - min(due))::float8 AS oldest_due_s
FROM noria.waiting GROUP BY band;

-- name: count_running
SELECT band, count(*) AS running FROM noria.running GROUP BY band;

-- name: count_ended
-- An exact count of a large table would read all of it; the estimate is what autovacuum knows.
SELECT
    (SELECT count(*) FROM noria.outcome WHERE status = 1) AS failed,
    (SELECT count(*) FROM noria.outcome WHERE status = 2) AS cancelled,
    (SELECT greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = 'noria.outcome'::regclass) AS estimate;

-- name: count_succeeded
SELECT count(*) AS succeeded FROM noria.outcome WHERE status = 0;
