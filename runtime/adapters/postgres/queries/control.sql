-- name: cancel_waiting
-- $1 id uuid[] (sorted)
WITH gone AS (
    DELETE FROM noria.waiting w USING unnest($1::uuid[]) AS m (id) WHERE w.id = m.id
    RETURNING w.id, w.attempt, w.failures, w.crashes
)
INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status)
SELECT id, statement_timestamp(), attempt - 1, failures, crashes, 2 FROM gone
RETURNING id;

-- name: cancel_running
-- $1 id uuid[] (sorted)
-- The first request's time stays.
UPDATE noria.running r SET cancel_requested_at = coalesce(r.cancel_requested_at, statement_timestamp())
FROM unnest($1::uuid[]) AS m (id) WHERE r.id = m.id
RETURNING r.id;

-- name: replay
-- $1 id uuid[] (sorted)
-- A new run: the counters start anew, the attempt goes on, the outcome is kept as an attempt where one had committed it.
WITH gone AS (
    DELETE FROM noria.outcome o USING unnest($1::uuid[]) AS m (id) WHERE o.id = m.id AND o.status <> 0
    RETURNING o.id, o.incarnation, o.started_at, o.finished_at, o.attempt, o.error
), noted AS (
    INSERT INTO noria.attempt (id, incarnation, started_at, ended_at, attempt, kind, error)
    SELECT id, incarnation, started_at, finished_at, attempt, 5, error FROM gone WHERE incarnation IS NOT NULL
    ON CONFLICT DO NOTHING
), back AS (
    INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, slot)
    SELECT g.id, statement_timestamp(), t.seq, CASE WHEN t.expires_at > statement_timestamp() THEN t.expires_at END, t.band, g.attempt + 1, t.slot
    FROM gone g JOIN noria.task t ON t.id = g.id
)
SELECT id FROM gone;

-- name: delete_ended
-- $1 id uuid[] (sorted)
-- Only tasks that have an outcome: what waits or runs is never deleted.
WITH ended AS (
    DELETE FROM noria.outcome o USING unnest($1::uuid[]) AS m (id) WHERE o.id = m.id RETURNING o.id
), noted AS (
    DELETE FROM noria.attempt a USING ended e WHERE a.id = e.id
)
DELETE FROM noria.task t USING ended e WHERE t.id = e.id
RETURNING t.id;

-- name: forgettable
-- $1 finished_before_s float8, $2 keys_before_s float8, $3 limit int, $4 after uuid, $5 upto uuid
-- Ids are ascending by creation, so a walk along the primary key from the oldest needs no index of its own; what was created
-- later than the bound cannot have ended before it.
WITH looked AS MATERIALIZED (
    SELECT o.id, o.finished_at FROM noria.outcome o WHERE o.id > $4 AND o.id < $5 ORDER BY o.id LIMIT $3
)
SELECT l.id,
    l.finished_at < statement_timestamp() - make_interval(secs => $1)
    AND (t.idempotency_key IS NULL OR t.created_at < statement_timestamp() - make_interval(secs => $2)) AS goes
FROM looked l JOIN noria.task t ON t.id = l.id
ORDER BY l.id;
