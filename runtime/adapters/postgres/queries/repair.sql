-- What looks at everything that runs, or at everything there is. `running` is small and has no index on its
-- incarnation on purpose: a claim or a commit could be planned over it.

-- name: orphans
-- $1 limit bigint
-- Repair goes by owner liveness, never by age. The task is looked up row by row: no plan may read all tasks for this.
SELECT r.id, r.attempt, r.incarnation, r.failures, r.crashes,
       (SELECT t.max_attempts FROM noria.task t WHERE t.id = r.id) AS max_attempts, r.alone, r.band,
       coalesce(l.state = 8, false) AS has_left
  FROM (SELECT running.*
          FROM noria.running
         WHERE NOT EXISTS (SELECT FROM noria.lease
                            WHERE lease.incarnation = running.incarnation AND lease.state < 8)
         ORDER BY running.started_at, running.seq
         LIMIT $1) r
  LEFT JOIN noria.lease l ON l.incarnation = r.incarnation
 ORDER BY r.started_at, r.seq;

-- name: held
-- $1 incarnation bigint
SELECT r.id, r.attempt, r.incarnation, r.failures, r.crashes,
       (SELECT t.max_attempts FROM noria.task t WHERE t.id = r.id) AS max_attempts, r.alone, r.band,
       coalesce(l.state = 8, false) AS has_left
  FROM noria.running r
  LEFT JOIN noria.lease l ON l.incarnation = r.incarnation
 WHERE r.incarnation = $1
 ORDER BY r.seq;

-- name: cancel_requests
-- $1 incarnation bigint
SELECT id, attempt FROM noria.running WHERE cancel_requested_at IS NOT NULL AND incarnation = $1;

-- name: expire
-- $1 limit bigint
WITH picked AS MATERIALIZED (
    SELECT id FROM noria.waiting
     WHERE expires_at <= statement_timestamp()
     ORDER BY expires_at
     LIMIT $1
       FOR UPDATE SKIP LOCKED
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id RETURNING w.id, w.attempt, w.failures, w.crashes
), ended AS (
    INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status, error)
    SELECT id, statement_timestamp(), attempt - 1, failures, crashes, 2,
           '{"type": "Expired", "message": "not started before its expires_at", "traceback": ""}'
      FROM moved
)
SELECT id FROM moved;

-- name: forget
-- $1 after uuid, $2 look_at bigint, $3 finished_before_s double precision, $4 keys_before_s double precision,
-- $5 limit bigint
-- Retention from the oldest ids upwards: ids ascend by creation, and nothing ended before it was made, so no index on
-- finished_at is needed. The caller goes on from `last`. Replay holds the outcome's lock, so what it opens again is
-- not forgotten, and what is gone is not replayed.
WITH looked AS MATERIALIZED (
    SELECT o.id, o.finished_at
      FROM noria.outcome o
     WHERE o.id > $1
     ORDER BY o.id
     LIMIT $2
), picked AS MATERIALIZED (
    SELECT o.id
      FROM looked k
      JOIN noria.outcome o ON o.id = k.id
      JOIN noria.task t ON t.id = k.id
     WHERE k.finished_at < statement_timestamp() - $3 * interval '1 second'
       AND (t.idempotency_key IS NULL OR t.created_at < statement_timestamp() - $4 * interval '1 second')
     ORDER BY o.id
     LIMIT $5
       FOR UPDATE OF o SKIP LOCKED
), gone AS (
    DELETE FROM noria.outcome o USING picked p WHERE o.id = p.id RETURNING o.id
), gone_attempts AS (
    DELETE FROM noria.attempt a USING picked p WHERE a.id = p.id
), gone_tasks AS (
    DELETE FROM noria.task t USING picked p WHERE t.id = p.id
)
SELECT (SELECT count(*) FROM gone) AS gone,
       (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last,
       (SELECT id FROM picked ORDER BY id DESC LIMIT 1) AS last_gone,
       (SELECT count(*) FROM looked) AS looked_at,
       (extract(epoch FROM statement_timestamp() - $3 * interval '1 second') * 1000)::bigint AS cutoff_ms;

-- name: census_waiting
SELECT band, count(*) FILTER (WHERE due <= statement_timestamp()) AS ready,
       count(*) FILTER (WHERE due > statement_timestamp()) AS scheduled,
       coalesce(greatest(extract(epoch FROM statement_timestamp() - min(due)), 0), 0)::double precision AS oldest_due_s
  FROM noria.waiting
 GROUP BY band;

-- name: census_running
SELECT band, count(*) AS running FROM noria.running GROUP BY band;

-- name: census_unsuccessful
SELECT status, count(*) AS count FROM noria.outcome WHERE status <> 0 GROUP BY status;

-- name: census_succeeded
-- $1 exact_up_to bigint
SELECT count(*) AS count FROM (SELECT FROM noria.outcome WHERE status = 0 LIMIT $1::bigint + 1) counted;

-- name: census_outcomes
-- Both are PostgreSQL's estimates; the first is lost in a crash, the second is as old as the last ANALYZE.
SELECT greatest(pg_stat_get_live_tuples(c.oid), c.reltuples::bigint) AS count
  FROM pg_class c
 WHERE c.oid = 'noria.outcome'::regclass;
