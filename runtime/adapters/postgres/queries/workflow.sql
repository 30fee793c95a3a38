-- Tasks that wait for others. Children are linked to parents in the transaction that stores them: whoever locks a
-- parent's row and marks it as awaited is before its end, and whoever finds its outcome tells that end himself. Ends are
-- passed on in a transaction of its own, statement by statement, so that each sees what was committed before the locks
-- were got. Locks: parent_end, dependence, waiting, each in order.

-- name: present_tasks
-- $1 ids uuid[], $2 tenants text[]
-- Those that exist, each for that tenant.
SELECT t.id
  FROM unnest($1::uuid[], $2::text[]) AS i(id, tenant)
  JOIN noria.task t ON t.id = i.id
 WHERE t.tenant = i.tenant;

-- name: await_waiting
-- $1 ids uuid[]
WITH held AS MATERIALIZED (
    SELECT w.id, w.awaited
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.waiting w ON w.id = i.id
     ORDER BY w.id
       FOR UPDATE OF w
), marked AS (
    UPDATE noria.waiting w SET awaited = true FROM held h WHERE w.id = h.id AND h.awaited IS NULL
)
SELECT id FROM held;

-- name: await_running
-- $1 ids uuid[]
WITH held AS MATERIALIZED (
    SELECT r.id, r.awaited
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.running r ON r.id = i.id
     ORDER BY r.id
       FOR UPDATE OF r
), marked AS (
    UPDATE noria.running r SET awaited = true FROM held h WHERE r.id = h.id AND h.awaited IS NULL
)
SELECT id FROM held;

-- name: tell_ended
-- $1 ids uuid[]
-- The outcome is held until the children are stored, so that neither retention nor a replay takes it away meanwhile.
WITH held AS MATERIALIZED (
    SELECT o.id, o.status
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.outcome o ON o.id = i.id
     ORDER BY o.id
       FOR SHARE OF o
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT id, status FROM held
)
SELECT id FROM held;

-- name: tell_gone
-- $1 ids uuid[]
-- Parents of a replayed task that are not kept any more are not waited for.
INSERT INTO noria.parent_end (id, status) SELECT id, 0 FROM unnest($1::uuid[]) AS i(id);

-- name: link
-- $1 parents uuid[], $2 children uuid[]
-- A replay links anew.
INSERT INTO noria.dependence AS d (parent, child)
SELECT parent, child FROM unnest($1::uuid[], $2::uuid[]) AS i(parent, child) ORDER BY parent, child
    ON CONFLICT (parent, child) DO UPDATE SET done = false;

-- name: rebind
-- $1 ids uuid[], $2 parents text[]
-- Rows of this transaction: what they were to depend on was there before, under its key.
WITH input AS MATERIALIZED (
    SELECT i.id, i.parents::uuid[] AS parents FROM unnest($1::uuid[], $2::text[]) AS i(id, parents)
), bound AS (
    UPDATE noria.task t SET parents = i.parents FROM input i WHERE t.id = i.id
)
UPDATE noria.waiting w SET open_parents = cardinality(i.parents) FROM input i WHERE w.id = i.id;

-- name: any_parent_end
SELECT EXISTS (SELECT FROM noria.parent_end) AS told;

-- name: parent_ends
-- $1 limit bigint
SELECT e.seq, e.id, e.status, (SELECT t.name FROM noria.task t WHERE t.id = e.id) AS name
  FROM noria.parent_end e
 ORDER BY e.seq
 LIMIT $1
   FOR UPDATE OF e SKIP LOCKED;

-- name: count_dependence
-- $1 parents uuid[], $2 limit bigint
-- Each dependence is counted once, whoever meets it: what somebody else has just counted is not open any more.
WITH open AS MATERIALIZED (
    SELECT c.parent, c.child
      FROM unnest($1::uuid[]) AS i(id)
     CROSS JOIN LATERAL (SELECT d.parent, d.child FROM noria.dependence d
                          WHERE d.parent = i.id AND NOT d.done
                          ORDER BY d.child
                          LIMIT $2
                            FOR UPDATE) c
     LIMIT $2
)
UPDATE noria.dependence d SET done = true FROM open o WHERE d.parent = o.parent AND d.child = o.child
RETURNING d.parent, d.child;

-- name: blocked_children
-- $1 ids uuid[]
SELECT w.id, w.open_parents, t.on_parent_failure
  FROM unnest($1::uuid[]) AS i(id)
  JOIN noria.waiting w ON w.id = i.id
  JOIN noria.task t ON t.id = w.id
 WHERE w.open_parents IS NOT NULL
 ORDER BY w.id
   FOR UPDATE OF w;

-- name: count_down
-- $1 ids uuid[], $2 open_parents integer[]
-- With none open it is due, not before its own time. Its rows are locked by blocked_children.
UPDATE noria.waiting w
   SET open_parents = nullif(i.open_parents, 0),
       due = CASE WHEN i.open_parents > 0 THEN w.due
                  ELSE greatest(statement_timestamp(), (SELECT t.run_at FROM noria.task t WHERE t.id = w.id)) END,
       reason = CASE WHEN i.open_parents > 0 THEN w.reason ELSE 0 END
  FROM unnest($1::uuid[], $2::integer[]) AS i(id, open_parents)
 WHERE w.id = i.id
RETURNING w.id, w.attempt, w.band, w.slot, w.actor, w.open_parents,
          (SELECT t.prefers FROM noria.task t WHERE t.id = w.id) AS prefers,
          extract(epoch FROM w.due - statement_timestamp())::double precision AS due_in_s;

-- name: end_children
-- $1 ids uuid[], $2 statuses smallint[], $3 errors text[]
-- Their parent ended unwell. Children of theirs hear of it as of any other end.
WITH moved AS (
    DELETE FROM noria.waiting w USING unnest($1::uuid[], $2::smallint[], $3::text[]) AS i(id, status, error)
     WHERE w.id = i.id
    RETURNING w.id, w.attempt, w.failures, w.crashes, w.band, w.slot, w.awaited, i.status, i.error
), ended AS (
    INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status, error)
    SELECT id, statement_timestamp(), attempt - 1, failures, crashes, status, error::jsonb FROM moved
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT id, status FROM moved WHERE awaited
)
SELECT id, attempt, band, slot, awaited IS NOT NULL AS awaited FROM moved;

-- name: forget_ends
-- $1 seqs bigint[]
DELETE FROM noria.parent_end WHERE seq = ANY ($1);

-- name: tidy_dependence
-- $1 parent uuid, $2 child uuid, $3 limit bigint
-- A walk over all of them, from there on. What was counted and whose child has ended is not needed any more. What was
-- not counted although its parent ended some time ago is told again: a node of a version without dependencies has moved
-- that parent. Telling twice changes nothing. What else is there is looked up row by row (a scalar subquery, LIMIT in a
-- LATERAL one): a join may be planned as a scan of all that waits.
WITH looked AS MATERIALIZED (
    SELECT d.parent, d.child, d.done FROM noria.dependence d
     WHERE (d.parent, d.child) > ($1, $2)
     ORDER BY d.parent, d.child
     LIMIT $3
), gone AS (
    DELETE FROM noria.dependence d USING looked k
     WHERE d.parent = k.parent AND d.child = k.child AND d.done
       AND (SELECT w.id FROM noria.waiting w WHERE w.id = k.child) IS NULL
       AND (SELECT r.id FROM noria.running r WHERE r.id = k.child) IS NULL
), missed AS (
    SELECT DISTINCT k.parent, coalesce(o.status, 1::smallint) AS status
      FROM looked k
      LEFT JOIN LATERAL (SELECT * FROM noria.outcome WHERE outcome.id = k.parent LIMIT 1) o ON true
     WHERE NOT k.done
       AND CASE WHEN o.id IS NULL THEN NOT EXISTS (SELECT FROM noria.task t WHERE t.id = k.parent)
                ELSE o.finished_at < statement_timestamp() - interval '5 seconds' END
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT parent, status FROM missed
)
SELECT parent, child, (SELECT count(*) FROM looked) AS looked_at
  FROM looked
 ORDER BY parent DESC, child DESC
 LIMIT 1;

-- name: parents
-- $1 ids uuid[], $2 inline_bytes bigint
-- In the order that was asked for; results as long as all together stay within the bound, and every one that lies apart,
-- of which only the reference is here.
WITH found AS MATERIALIZED (
    SELECT i.id, i.nth, t.name, b.handler, o.status, o.result_codec, o.error, coalesce(octet_length(o.result), 0) AS size,
           CASE WHEN o.status IS NULL THEN (SELECT 3 FROM noria.running r WHERE r.id = i.id) END AS runs
      FROM unnest($1::uuid[]) WITH ORDINALITY AS i(id, nth)
      JOIN noria.task t ON t.id = i.id
      JOIN noria.band b ON b.id = t.band
      LEFT JOIN noria.outcome o ON o.id = i.id
), summed AS (
    SELECT f.*, sum(f.size) OVER (ORDER BY f.nth) AS up_to FROM found f
)
SELECT s.id, s.name, s.handler, s.status, s.result_codec, s.error, s.size, s.runs IS NOT NULL AS runs,
       CASE WHEN s.up_to <= $2 OR s.result_codec >= 2 THEN (SELECT o.result FROM noria.outcome o WHERE o.id = s.id) END
           AS result
  FROM summed s
 ORDER BY s.nth;

-- name: workflow_counts
-- $1 workflow_id uuid
SELECT min(t.created_at) AS created_at, min(t.tenant) AS tenant, count(*) AS total,
       count(w.open_parents) AS blocked,
       count(*) FILTER (WHERE w.open_parents IS NULL AND w.due > statement_timestamp()) AS scheduled,
       count(*) FILTER (WHERE w.open_parents IS NULL AND w.due <= statement_timestamp()) AS ready,
       count(r.id) AS running,
       count(*) FILTER (WHERE o.status = 0) AS succeeded, count(*) FILTER (WHERE o.status = 1) AS failed,
       count(*) FILTER (WHERE o.status = 2) AS cancelled
  FROM noria.task t
  LEFT JOIN noria.waiting w ON w.id = t.id
  LEFT JOIN noria.running r ON r.id = t.id
  LEFT JOIN noria.outcome o ON o.id = t.id
 WHERE t.workflow_id = $1;

-- name: workflow_tasks
-- $1 workflow_id uuid, $2 limit bigint
SELECT t.id, t.name, b.handler, t.parents,
       CASE WHEN o.status IS NOT NULL THEN o.status WHEN r.id IS NOT NULL THEN 3
            WHEN w.open_parents IS NOT NULL THEN 4 WHEN w.due > statement_timestamp() THEN 5 ELSE 6 END AS state,
       coalesce(o.attempt, r.attempt, w.attempt - 1) AS attempt, coalesce(o.started_at, r.started_at) AS started_at,
       o.finished_at, o.error
  FROM (SELECT * FROM noria.task WHERE workflow_id = $1 ORDER BY id LIMIT $2) t
  JOIN noria.band b ON b.id = t.band
  LEFT JOIN noria.waiting w ON w.id = t.id
  LEFT JOIN noria.running r ON r.id = t.id
  LEFT JOIN noria.outcome o ON o.id = t.id
 ORDER BY t.id;

-- name: workflows
-- $1 tenant text, $2 before uuid, $3 limit bigint
-- One step of the index per workflow, newest first, however many tasks each has.
WITH RECURSIVE found AS (
    (SELECT t.workflow_id, t.tenant, (t.tenant = $1)::integer AS nth FROM noria.task t
      WHERE t.workflow_id IS NOT NULL AND t.workflow_id < $2 ORDER BY t.workflow_id DESC LIMIT 1)
    UNION ALL
    SELECT n.workflow_id, n.tenant, f.nth + (n.tenant = $1)::integer
      FROM found f
     CROSS JOIN LATERAL (SELECT t.workflow_id, t.tenant FROM noria.task t
                          WHERE t.workflow_id IS NOT NULL AND t.workflow_id < f.workflow_id
                          ORDER BY t.workflow_id DESC LIMIT 1) n
     WHERE f.nth < $3::bigint
)
SELECT workflow_id FROM found WHERE tenant = $1 ORDER BY workflow_id DESC LIMIT $3;
