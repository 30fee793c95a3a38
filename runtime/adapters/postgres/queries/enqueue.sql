-- What SQL enqueued (noria_api.enqueue) before there was a band for it.

-- name: unbanded
-- $1 most bigint
SELECT id, handler, lane, tenant, requires, keyed FROM noria.unbanded ORDER BY id LIMIT $1;

-- name: await_unbanded
-- $1 ids uuid[]
-- As await_waiting.
WITH held AS MATERIALIZED (
    SELECT u.id, u.awaited
      FROM unnest($1::uuid[]) AS i(id)
      JOIN noria.unbanded u ON u.id = i.id
     ORDER BY u.id
       FOR UPDATE OF u
), marked AS (
    UPDATE noria.unbanded u SET awaited = true FROM held h WHERE u.id = h.id AND h.awaited IS NULL
)
SELECT id FROM held;

-- name: place_unbanded
-- $1 ids uuid[], $2 bands integer[]
-- Sorted by id. Whoever comes second waits for the lock and finds nothing.
WITH gone AS (
    DELETE FROM noria.unbanded u USING unnest($1::uuid[], $2::integer[]) AS p(id, band)
     WHERE u.id = p.id
    RETURNING u.id, p.band, u.lane, u.awaited
), banded AS (
    UPDATE noria.task t SET band = g.band
      FROM gone g
     WHERE t.id = g.id
    RETURNING t.id, t.run_at, t.seq, t.expires_at, t.band, t.slot, t.limiter,
              noria.actor_id(t.tenant, t.actor_type, t.actor_key) AS actor, g.lane, g.awaited
)
INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, slot, actor, lane, limiter, awaited)
SELECT id, run_at, seq, expires_at, band, 1, slot, actor, CASE WHEN actor IS NOT NULL THEN lane END, limiter, awaited
  FROM banded
RETURNING band;
