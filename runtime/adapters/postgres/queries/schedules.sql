-- Schedules. `unended` is what of `open` waits or runs, in one snapshot: a task that moves at this moment is seen once.

-- name: put_schedule
-- $1 tenant text, $2 name text, $3 cron text, $4 every_s double precision, $5 time_zone text, $6 catch_up text,
-- $7 catch_up_max integer, $8 overlap text, $9 task bytea, $10 created_by text, $11 next_fire_at timestamptz
-- A rule that stays keeps its next fire time, so that changing the rest neither loses nor repeats one.
INSERT INTO noria.schedule AS s (tenant, name, cron, every_s, time_zone, catch_up, catch_up_max, overlap, task,
                                 created_by, next_fire_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (tenant, name) DO UPDATE
   SET cron = excluded.cron, every_s = excluded.every_s, time_zone = excluded.time_zone,
       catch_up = excluded.catch_up, catch_up_max = excluded.catch_up_max, overlap = excluded.overlap,
       task = excluded.task, created_by = excluded.created_by,
       next_fire_at = CASE WHEN (s.cron, s.every_s, s.time_zone)
                                IS NOT DISTINCT FROM (excluded.cron, excluded.every_s, excluded.time_zone)
                           THEN s.next_fire_at ELSE excluded.next_fire_at END,
       changed_at = statement_timestamp(), revision = s.revision + 1
RETURNING revision;

-- name: schedules
-- $1 tenant text, $2 after text, $3 name text, $4 most bigint
-- One by name, or those after a name.
SELECT s.tenant, s.name, s.cron, s.every_s, s.time_zone, s.catch_up, s.catch_up_max, s.overlap, s.task, s.created_by,
       s.revision, s.created_at, s.changed_at, s.next_fire_at, s.paused_at, s.last_fire_at, s.last_task_id, s.fired,
       s.missed, s.skipped,
       ARRAY(SELECT o.id FROM unnest(s.open) WITH ORDINALITY AS o(id, nth)
              WHERE EXISTS (SELECT 1 FROM noria.waiting w WHERE w.id = o.id)
                 OR EXISTS (SELECT 1 FROM noria.running r WHERE r.id = o.id)
              ORDER BY o.nth) AS unended
  FROM noria.schedule s
 WHERE s.tenant = $1 AND s.name > $2 AND ($3::text IS NULL OR s.name = $3)
 ORDER BY s.name
 LIMIT $4;

-- name: due_schedules
-- $1 within_s double precision, $2 most bigint
-- Always at least one row, which tells the time.
SELECT statement_timestamp() AS now, d.*
  FROM (SELECT) one
  LEFT JOIN LATERAL (
      SELECT s.tenant, s.name, s.cron, s.every_s, s.time_zone, s.catch_up, s.catch_up_max, s.overlap, s.task,
             s.created_by, s.revision, s.created_at, s.changed_at, s.next_fire_at, s.paused_at, s.last_fire_at,
             s.last_task_id, s.fired, s.missed, s.skipped,
             ARRAY(SELECT o.id FROM unnest(s.open) WITH ORDINALITY AS o(id, nth)
                    WHERE EXISTS (SELECT 1 FROM noria.waiting w WHERE w.id = o.id)
                       OR EXISTS (SELECT 1 FROM noria.running r WHERE r.id = o.id)
                    ORDER BY o.nth) AS unended
        FROM noria.schedule s
       WHERE s.paused_at IS NULL AND s.next_fire_at <= statement_timestamp() + $1 * interval '1 second'
       ORDER BY s.next_fire_at
       LIMIT $2
  ) d ON true;

-- name: fire
-- $1 tenant text, $2 name text, $3 revision bigint, $4 next_fire_at timestamptz, $5 fired_at timestamptz,
-- $6 last_task_id uuid, $7 fired bigint, $8 missed bigint, $9 skipped bigint, $10 open uuid[]
-- Whoever comes second waits for the row's lock and finds another revision. The tasks follow in the same transaction.
UPDATE noria.schedule
   SET next_fire_at = $4, last_fire_at = coalesce($5, last_fire_at), last_task_id = coalesce($6, last_task_id),
       fired = fired + $7, missed = missed + $8, skipped = skipped + $9, open = $10, revision = revision + 1
 WHERE tenant = $1 AND name = $2 AND revision = $3
RETURNING revision;

-- name: set_schedule_paused
-- $1 tenant text, $2 name text, $3 revision bigint, $4 paused boolean, $5 next_fire_at timestamptz
UPDATE noria.schedule
   SET paused_at = CASE WHEN $4 THEN coalesce(paused_at, statement_timestamp()) END, next_fire_at = $5,
       changed_at = statement_timestamp(), revision = revision + 1
 WHERE tenant = $1 AND name = $2 AND revision = $3
RETURNING revision;

-- name: delete_schedule
-- $1 tenant text, $2 name text
DELETE FROM noria.schedule WHERE tenant = $1 AND name = $2 RETURNING name;
