-- Accepting unique tasks, in one transaction: lock the ids, hold what may be replaced, look, decide, write. Each step is
-- a statement of its own, so that it sees what was committed while the one before waited. Tasks that are not unique
-- take none of these.

-- name: unique_lock
-- $1 ids uuid[]
-- Sorted, each once. Whoever comes second waits here until the first has committed.
INSERT INTO noria.unique_task AS u (id)
SELECT i.id FROM unnest($1::uuid[]) AS i(id) ORDER BY i.id
ON CONFLICT (id) DO UPDATE SET task_id = u.task_id
RETURNING u.id, u.task_id, u.first_at;

-- name: unique_hold
-- $1 ids uuid[]
-- Of these, what waits is claimed by nobody from now on: claims skip what is locked.
SELECT w.id
  FROM unnest($1::uuid[]) AS i(id)
  JOIN noria.waiting w ON w.id = i.id
 ORDER BY w.id
   FOR UPDATE OF w;

-- name: unique_holders
-- $1 ids uuid[]
-- Always at least one row, which tells the time.
SELECT statement_timestamp() AS now, h.*
  FROM (SELECT) one
  LEFT JOIN LATERAL (
      SELECT t.id, t.created_at, coalesce(w.due, t.run_at) AS due, w.id IS NOT NULL AS waits,
             EXISTS (SELECT FROM noria.outcome o WHERE o.id = t.id) AS ended
        FROM unnest($1::uuid[]) AS i(id)
       CROSS JOIN LATERAL (SELECT task.id, task.created_at, task.run_at FROM noria.task WHERE task.id = i.id LIMIT 1) t
        LEFT JOIN noria.waiting w ON w.id = t.id
  ) h ON true;

-- name: unique_replace
-- $1 ids uuid[], $2 replaced_by uuid[]
-- All of them are held.
WITH moved AS (
    DELETE FROM noria.waiting w
     USING unnest($1::uuid[], $2::uuid[]) AS i(id, replaced_by)
     WHERE w.id = i.id
    RETURNING w.id, w.attempt, w.failures, w.crashes, w.awaited, i.replaced_by
), ended AS (
    INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status, error)
    SELECT id, statement_timestamp(), attempt - 1, failures, crashes, 2,
           jsonb_build_object('type', 'Replaced', 'message', 'task ' || replaced_by || ' took its place',
                              'traceback', '')
      FROM moved
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT id, 2 FROM moved WHERE awaited
)
SELECT id, attempt - 1 AS attempt FROM moved;

-- name: unique_bind
-- $1 ids uuid[], $2 task_ids uuid[], $3 first_at timestamptz[], $4 kept_until timestamptz[]
UPDATE noria.unique_task u
   SET task_id = b.task_id, first_at = b.first_at, kept_until = b.kept_until
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS b(id, task_id, first_at, kept_until)
 WHERE u.id = b.id;

-- name: unique_free
-- $1 ids uuid[]
-- Rows that were made for a task that was not stored after all.
DELETE FROM noria.unique_task WHERE id = ANY ($1) AND task_id IS NULL;
