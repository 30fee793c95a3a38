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
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id RETURNING w.id, w.attempt, w.failures, w.crashes, w.awaited
), ended AS (
    INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status, error)
    SELECT id, statement_timestamp(), attempt - 1, failures, crashes, 2,
           '{"type": "Expired", "message": "not started before its expires_at", "traceback": ""}'
      FROM moved
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT id, 2 FROM moved WHERE awaited
)
SELECT id FROM moved;

-- name: forgettable
-- $1 after uuid, $2 look_at bigint, $3 finished_before_s double precision, $4 keys_before_s double precision,
-- $5 limit bigint
-- Retention from the oldest ids upwards: ids ascend by creation, and nothing ended before it was made, so no index on
-- finished_at is needed. The caller goes on from `last`. Replay and new children hold the outcome's lock: what they
-- open again or wait for is not forgotten, and what is gone is not replayed. `forget` follows in the same transaction.
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
       AND NOT EXISTS (SELECT FROM noria.unique_task u
                        WHERE u.task_id = k.id AND u.kept_until > statement_timestamp())
     ORDER BY o.id
     LIMIT $5
       FOR UPDATE OF o SKIP LOCKED
)
SELECT ARRAY(SELECT id FROM picked ORDER BY id) AS picked,
       (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last,
       (SELECT count(*) FROM looked) AS looked_at,
       (extract(epoch FROM statement_timestamp() - $3 * interval '1 second') * 1000)::bigint AS cutoff_ms;

-- name: forget
-- $1 ids uuid[]
-- Their outcomes are locked. In a statement of its own: it must see the children that came until then, for which
-- results are kept. A unique id goes with its task, unless it is just being given to the next one.
WITH gone AS MATERIALIZED (
    DELETE FROM noria.outcome o USING unnest($1::uuid[]) AS i(id)
     WHERE o.id = i.id AND NOT EXISTS (SELECT FROM noria.dependence d WHERE d.parent = i.id)
    RETURNING o.id
), gone_attempts AS (
    DELETE FROM noria.attempt a USING gone g WHERE a.id = g.id
), gone_tasks AS (
    DELETE FROM noria.task t USING gone g WHERE t.id = g.id
), free AS MATERIALIZED (
    SELECT u.id
      FROM gone g
      JOIN noria.unique_task u ON u.task_id = g.id
     ORDER BY u.id
       FOR UPDATE OF u SKIP LOCKED
), gone_unique AS (
    DELETE FROM noria.unique_task u USING free f WHERE u.id = f.id
)
SELECT count(*) AS gone FROM gone;

-- name: census_waiting
SELECT band, count(*) FILTER (WHERE due <= statement_timestamp()) AS ready,
       count(*) FILTER (WHERE due > statement_timestamp() AND open_parents IS NULL) AS scheduled,
       count(open_parents) AS blocked,
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
