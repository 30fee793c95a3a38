-- What people do to tasks. A row that moves meanwhile is met again in the next table: the caller loops.

-- name: cancel_waiting
-- $1 ids uuid[]
-- Waits for whoever holds the rows: after a claim has committed they are gone from here.
WITH picked AS MATERIALIZED (
    SELECT w.id FROM unnest($1::uuid[]) AS i(id) JOIN noria.waiting w ON w.id = i.id ORDER BY w.id FOR UPDATE OF w
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id RETURNING w.id, w.attempt, w.failures, w.crashes, w.awaited
), ended AS (
    INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status)
    SELECT id, statement_timestamp(), attempt - 1, failures, crashes, 2 FROM moved
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT id, 2 FROM moved WHERE awaited
)
SELECT id FROM moved;

-- name: cancel_running
-- $1 ids uuid[]
-- The first request's time stays.
WITH picked AS MATERIALIZED (
    SELECT r.id, r.cancel_requested_at IS NULL AS fresh
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.running r ON r.id = i.id
     ORDER BY r.id
       FOR UPDATE OF r
), marked AS (
    UPDATE noria.running r SET cancel_requested_at = statement_timestamp()
      FROM picked p
     WHERE r.id = p.id AND p.fresh
)
SELECT id, fresh FROM picked;

-- name: waiting_bands
-- $1 ids uuid[], $2 not_lane smallint
SELECT DISTINCT b.handler, b.tenant, b.requires, b.keyed
  FROM unnest($1::uuid[]) AS i(id)
  JOIN noria.waiting w ON w.id = i.id
  JOIN noria.band b ON b.id = abs(w.band)
 WHERE b.lane <> $2;

-- name: prioritize
-- $1 ids uuid[], $2 lane smallint
-- Into bands that are there already. Suspects stay suspects, and what waits for an actor key changes its queue there.
WITH picked AS MATERIALIZED (
    SELECT w.id FROM unnest($1::uuid[]) AS i(id) JOIN noria.waiting w ON w.id = i.id ORDER BY w.id FOR UPDATE OF w
)
UPDATE noria.waiting w
   SET band = CASE WHEN w.band < 0 THEN -n.id ELSE n.id END, lane = CASE WHEN w.lane IS NOT NULL THEN n.lane END
  FROM picked p, noria.band b, noria.band n
 WHERE w.id = p.id AND b.id = abs(w.band) AND b.lane <> $2
   AND n.handler = b.handler AND n.lane = $2 AND n.tenant = b.tenant AND n.requires = b.requires
   AND n.keyed = b.keyed
RETURNING w.id;

-- name: replay
-- $1 ids uuid[], $2 statuses smallint[]
-- The outcome is kept as an attempt row where an attempt had committed it. An expiry that has passed is dropped, or
-- the task would expire at once. What depends on others waits for them again: the caller sees to it.
WITH picked AS MATERIALIZED (
    SELECT o.id
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.outcome o ON o.id = i.id
     WHERE o.status <> 0 AND o.status = ANY ($2)
     ORDER BY o.id
       FOR UPDATE OF o
), taken AS (
    DELETE FROM noria.outcome o USING picked p WHERE o.id = p.id
    RETURNING o.id, o.incarnation, o.started_at, o.finished_at, o.attempt, o.error
), noted AS (
    INSERT INTO noria.attempt (id, incarnation, started_at, ended_at, attempt, kind, error)
    SELECT id, incarnation, started_at, finished_at, attempt, 5, error FROM taken WHERE incarnation IS NOT NULL
    ON CONFLICT DO NOTHING
), opened AS MATERIALIZED (
    SELECT o.id, o.attempt, t.seq, t.expires_at, t.band, t.slot, t.tenant, t.actor_type, t.actor_key, t.limiter, t.parents
      FROM taken o
      JOIN noria.task t ON t.id = o.id
), waits AS (
    INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, slot, reason, actor, lane, limiter, open_parents)
    SELECT id, CASE WHEN parents IS NULL THEN statement_timestamp() ELSE '9999-01-01 00:00:00+00' END, seq,
           CASE WHEN expires_at > statement_timestamp() THEN expires_at END, band, attempt + 1, slot,
           CASE WHEN parents IS NULL THEN 0 ELSE 5 END, noria.actor_id(tenant, actor_type, actor_key),
           CASE WHEN actor_type IS NOT NULL THEN (SELECT b.lane FROM noria.band b WHERE b.id = opened.band) END, limiter,
           cardinality(parents)
      FROM opened
)
SELECT id, parents FROM opened;

-- name: purge
-- $1 ids uuid[], $2 statuses smallint[]
WITH picked AS MATERIALIZED (
    SELECT o.id
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.outcome o ON o.id = i.id
     WHERE o.status <> 0 AND o.status = ANY ($2)
     ORDER BY o.id
       FOR UPDATE OF o
), gone AS (
    DELETE FROM noria.outcome o USING picked p WHERE o.id = p.id RETURNING o.id
), gone_attempts AS (
    DELETE FROM noria.attempt a USING picked p WHERE a.id = p.id
), gone_tasks AS (
    DELETE FROM noria.task t USING picked p WHERE t.id = p.id
), free AS MATERIALIZED (
    SELECT u.id
      FROM picked p
      JOIN noria.unique_task u ON u.task_id = p.id
     ORDER BY u.id
       FOR UPDATE OF u SKIP LOCKED
), gone_unique AS (
    DELETE FROM noria.unique_task u USING free f WHERE u.id = f.id
)
SELECT id FROM gone;
