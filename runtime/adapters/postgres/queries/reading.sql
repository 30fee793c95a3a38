-- Reading. Views go by primary keys only; scans walk one index in id order, look at a bounded number of rows and
-- return the ids that match, and always the last row they looked at, from which the caller goes on.

-- name: now
SELECT statement_timestamp() AS now;

-- name: views
-- $1 ids uuid[], $2 with_results boolean, $3 final_only boolean
-- One statement, one snapshot: a task is never seen in two tables, nor in none. `n` is the band that it is in now.
SELECT t.id, t.tenant, b.handler, coalesce(n.lane, b.lane) AS lane, t.slot, t.max_attempts, t.timeout_s, t.created_at, t.run_at, b.requires,
       t.prefers, t.idempotency_key, t.actor_key, t.limit_key, t.expires_at, t.metadata, t.created_by, t.trace_context,
       t.workflow_id, t.name AS task_name, t.parents, t.on_parent_failure, w.open_parents,
       w.due, w.due <= statement_timestamp() AS is_due, w.attempt AS next_attempt, w.failures AS w_failures,
       w.crashes AS w_crashes, w.reason, w.band < 0 AS suspect, n.requires <> b.requires AS unbound,
       r.attempt AS r_attempt, r.failures AS r_failures, r.crashes AS r_crashes, r.started_at AS r_started_at,
       r.cancel_requested_at, r.progress, r.alone,
       o.status, o.attempt AS o_attempt, o.failures AS o_failures, o.crashes AS o_crashes,
       o.started_at AS o_started_at, o.finished_at, CASE WHEN $2 THEN o.result END AS result, o.result_codec, o.error,
       l.node
  FROM unnest($1::uuid[]) AS i(id)
  JOIN noria.task t ON t.id = i.id
  JOIN noria.band b ON b.id = t.band
  LEFT JOIN noria.waiting w ON w.id = t.id
  LEFT JOIN noria.running r ON r.id = t.id
  LEFT JOIN noria.outcome o ON o.id = t.id
  LEFT JOIN noria.band n ON n.id = abs(coalesce(w.band, r.band))
  LEFT JOIN noria.lease l ON l.incarnation = coalesce(r.incarnation, o.incarnation)
 WHERE NOT $3 OR o.id IS NOT NULL;

-- name: attempts
-- $1 id uuid
SELECT a.attempt, a.kind, l.node, a.started_at, a.ended_at, a.error
  FROM noria.attempt a
  LEFT JOIN noria.lease l ON l.incarnation = a.incarnation
 WHERE a.id = $1
 ORDER BY a.attempt;

-- name: scan_tasks
-- $1 before uuid, $2 look_at bigint, $3 bands integer[], $4 created_after timestamptz,
-- $5 created_before timestamptz
WITH looked AS MATERIALIZED (
    SELECT id, band, created_at FROM noria.task WHERE id < $1 ORDER BY id DESC LIMIT $2
), judged AS (
    SELECT k.id, ($3::integer[] IS NULL OR k.band = ANY ($3))
               AND ($4::timestamptz IS NULL OR k.created_at > $4)
               AND ($5::timestamptz IS NULL OR k.created_at < $5) AS matches
      FROM looked k
)
SELECT id, matches, (SELECT count(*) FROM looked)::integer AS looked_at
  FROM judged
 WHERE matches OR id = (SELECT id FROM looked ORDER BY id LIMIT 1)
 ORDER BY id DESC;

-- name: scan_waiting
-- $1 before uuid, $2 look_at bigint, $3 bands integer[], $4 created_after timestamptz,
-- $5 created_before timestamptz, $6 states smallint[]
-- States: 0 blocked, 1 scheduled, 2 ready; null all.
WITH looked AS MATERIALIZED (
    SELECT id, band, due, open_parents FROM noria.waiting WHERE id < $1 ORDER BY id DESC LIMIT $2
), judged AS (
    SELECT k.id, ($3::integer[] IS NULL OR abs(k.band) = ANY ($3))
               AND ($6::smallint[] IS NULL
                    OR CASE WHEN k.open_parents IS NOT NULL THEN 0 WHEN k.due > statement_timestamp() THEN 1 ELSE 2 END
                       = ANY ($6))
               AND (($4::timestamptz IS NULL AND $5::timestamptz IS NULL)
                    OR EXISTS (SELECT FROM noria.task t
                                WHERE t.id = k.id AND ($4 IS NULL OR t.created_at > $4)
                                  AND ($5 IS NULL OR t.created_at < $5))) AS matches
      FROM looked k
)
SELECT id, matches, (SELECT count(*) FROM looked)::integer AS looked_at
  FROM judged
 WHERE matches OR id = (SELECT id FROM looked ORDER BY id LIMIT 1)
 ORDER BY id DESC;

-- name: scan_running
-- $1 before uuid, $2 look_at bigint, $3 bands integer[], $4 created_after timestamptz,
-- $5 created_before timestamptz, $6 asked boolean
-- asked: false only those that nobody asked to cancel, null all.
WITH looked AS MATERIALIZED (
    SELECT id, band, cancel_requested_at FROM noria.running WHERE id < $1 ORDER BY id DESC LIMIT $2
), judged AS (
    SELECT k.id, ($3::integer[] IS NULL OR k.band = ANY ($3))
               AND ($6::boolean IS NULL OR (k.cancel_requested_at IS NOT NULL) = $6)
               AND (($4::timestamptz IS NULL AND $5::timestamptz IS NULL)
                    OR EXISTS (SELECT FROM noria.task t
                                WHERE t.id = k.id AND ($4 IS NULL OR t.created_at > $4)
                                  AND ($5 IS NULL OR t.created_at < $5))) AS matches
      FROM looked k
)
SELECT id, matches, (SELECT count(*) FROM looked)::integer AS looked_at
  FROM judged
 WHERE matches OR id = (SELECT id FROM looked ORDER BY id LIMIT 1)
 ORDER BY id DESC;

-- name: scan_unsuccessful
-- $1 before uuid, $2 look_at bigint, $3 bands integer[], $4 created_after timestamptz,
-- $5 created_before timestamptz,
-- $6 status smallint, $7 error_type text
-- One status at a time, over the index of failed and cancelled tasks.
WITH looked AS MATERIALIZED (
    SELECT id FROM noria.outcome WHERE status <> 0 AND status = $6 AND id < $1 ORDER BY id DESC LIMIT $2
), judged AS (
    SELECT k.id, (($3::integer[] IS NULL AND $4::timestamptz IS NULL AND $5::timestamptz IS NULL)
                    OR EXISTS (SELECT FROM noria.task t
                                WHERE t.id = k.id AND ($3 IS NULL OR t.band = ANY ($3))
                                  AND ($4 IS NULL OR t.created_at > $4)
                                  AND ($5 IS NULL OR t.created_at < $5)))
               AND ($7::text IS NULL OR EXISTS (SELECT FROM noria.outcome o
                                                 WHERE o.id = k.id AND o.error ->> 'type' = $7)) AS matches
      FROM looked k
)
SELECT id, matches, (SELECT count(*) FROM looked)::integer AS looked_at
  FROM judged
 WHERE matches OR id = (SELECT id FROM looked ORDER BY id LIMIT 1)
 ORDER BY id DESC;

-- name: scan_succeeded
-- $1 before uuid, $2 look_at bigint, $3 bands integer[], $4 created_after timestamptz,
-- $5 created_before timestamptz
-- They are nearly all outcomes, so the primary key serves.
WITH looked AS MATERIALIZED (
    SELECT id, status FROM noria.outcome WHERE id < $1 ORDER BY id DESC LIMIT $2
), judged AS (
    SELECT k.id, k.status = 0
               AND (($3::integer[] IS NULL AND $4::timestamptz IS NULL AND $5::timestamptz IS NULL)
                    OR EXISTS (SELECT FROM noria.task t
                                WHERE t.id = k.id AND ($3 IS NULL OR t.band = ANY ($3))
                                  AND ($4 IS NULL OR t.created_at > $4)
                                  AND ($5 IS NULL OR t.created_at < $5))) AS matches
      FROM looked k
)
SELECT id, matches, (SELECT count(*) FROM looked)::integer AS looked_at
  FROM judged
 WHERE matches OR id = (SELECT id FROM looked ORDER BY id LIMIT 1)
 ORDER BY id DESC;

-- name: scan_key
-- $1 before uuid, $2 look_at bigint, $3 tenants text[], $4 idempotency_key text
-- At most one task per tenant.
SELECT t.id, true AS matches, (count(*) OVER ())::integer AS looked_at
  FROM unnest($3::text[]) AS n(tenant)
  JOIN noria.task t ON t.tenant = n.tenant AND t.idempotency_key = $4
 WHERE t.id < $1
 ORDER BY t.id DESC
 LIMIT $2;

-- name: scan_actor
-- $1 before uuid, $2 look_at bigint, $3 tenants text[], $4 actor_key text
SELECT a.id, true AS matches, (count(*) OVER ())::integer AS looked_at
  FROM (SELECT t.id
          FROM unnest($3::text[]) AS n(tenant)
         CROSS JOIN LATERAL (SELECT task.id FROM noria.task
                              WHERE task.tenant = n.tenant AND task.actor_key = $4 AND task.id < $1
                              ORDER BY task.id DESC
                              LIMIT $2) t
         ORDER BY t.id DESC
         LIMIT $2) a
 ORDER BY a.id DESC;

-- name: scan_workflow
-- $1 before uuid, $2 look_at bigint, $3 workflow_id uuid
SELECT w.id, true AS matches, (count(*) OVER ())::integer AS looked_at
  FROM (SELECT id FROM noria.task WHERE workflow_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2) w
 ORDER BY w.id DESC;

-- name: scan_ids
-- $1 before uuid, $2 look_at bigint, $3 ids uuid[]
SELECT s.id, true AS matches, (count(*) OVER ())::integer AS looked_at
  FROM (SELECT t.id
          FROM unnest($3::uuid[]) AS i(id)
          JOIN noria.task t ON t.id = i.id
         WHERE t.id < $1
         ORDER BY t.id DESC
         LIMIT $2) s
 ORDER BY s.id DESC;
