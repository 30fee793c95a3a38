-- Claims under limits. Two steps: a look that takes no lock, and where there is room, a transaction that locks the
-- limiters, looks again and claims.

-- name: limited
-- $1 bands integer[], $2 afters uuid[], $3 keys bigint, $4 front bigint
-- What may begin in these bands: one row per band and limiter that has something due. Of a limit per key, one step of
-- the index per key, however much waits there; and what has no key of its own, among the rows at the front.
WITH named AS MATERIALIZED (
    SELECT i.band, i.after, b.handler, b.tenant, l.per
      FROM unnest($1::integer[], $2::uuid[]) AS i(band, after)
      JOIN noria.band b ON b.id = abs(i.band)
      JOIN noria.handler_limit l ON l.handler = b.handler
), pairs AS MATERIALIZED (
    SELECT n.band, n.handler, false AS by_key,
           noria.actor_id(CASE n.per WHEN 'tenant' THEN n.tenant ELSE '' END, n.handler, '') AS limiter
      FROM named n
     WHERE n.per <> 'key'
       AND EXISTS (SELECT FROM noria.waiting w
                    WHERE w.band = n.band AND w.due <= statement_timestamp() AND w.actor IS NULL)
    UNION ALL
    SELECT n.band, n.handler, true, k.limiter
      FROM named n
     CROSS JOIN LATERAL (
           WITH RECURSIVE keys AS (
               (SELECT w.limiter
                  FROM noria.waiting w
                 WHERE w.limiter IS NOT NULL AND w.band = n.band AND w.limiter > n.after
                 ORDER BY w.limiter
                 LIMIT 1)
               UNION ALL
               SELECT f.limiter
                 FROM keys
                CROSS JOIN LATERAL (SELECT w.limiter
                                      FROM noria.waiting w
                                     WHERE w.limiter IS NOT NULL AND w.band = n.band AND w.limiter > keys.limiter
                                     ORDER BY w.limiter
                                     LIMIT 1) f
           )
           SELECT keys.limiter FROM keys LIMIT $3) k
     WHERE n.per = 'key'
    UNION ALL
    SELECT n.band, n.handler, false, noria.actor_id(n.tenant, n.handler, '')
      FROM named n
     WHERE n.per = 'key'
       AND EXISTS (SELECT
                     FROM (SELECT w.limiter, w.actor
                             FROM noria.waiting w
                            WHERE w.band = n.band AND w.due <= statement_timestamp()
                            ORDER BY w.due, w.seq
                            LIMIT $4) f
                    WHERE f.limiter IS NULL AND f.actor IS NULL)
)
SELECT p.band, p.limiter, p.by_key, r.rate_room, r.running_room, r.wait_s,
       NOT p.by_key OR EXISTS (SELECT FROM noria.waiting w
                                WHERE w.limiter IS NOT NULL AND w.band = p.band AND w.limiter = p.limiter
                                  AND w.due <= statement_timestamp()) AS is_due
  FROM pairs p
  JOIN noria.handler_limit h ON h.handler = p.handler
  LEFT JOIN noria.limiter l ON l.id = p.limiter
 CROSS JOIN LATERAL (
       SELECT CASE WHEN h.count IS NOT NULL AND l.tat IS NOT NULL
                   THEN noria.rate_room(l.tat, statement_timestamp(), h.count, h.period_s, h.burst) END AS rate_room,
              CASE WHEN h.max_running IS NOT NULL
                   THEN h.max_running - (SELECT count(*) FROM noria.running WHERE running.limiter = p.limiter)
              END AS running_room,
              CASE WHEN h.count IS NOT NULL AND l.tat IS NOT NULL
                   THEN greatest(0, extract(epoch FROM l.tat - statement_timestamp())::double precision
                                    - (h.burst - 1) * h.period_s / h.count) END AS wait_s) r
 ORDER BY p.band, p.limiter;

-- name: lock_limiters
-- $1 ids uuid[]
-- Never waits: where somebody else claims under the same limit, that is done for now.
SELECT l.id
  FROM unnest($1::uuid[]) AS i(id)
  JOIN noria.limiter l ON l.id = i.id
 ORDER BY l.id
   FOR UPDATE OF l SKIP LOCKED;

-- name: make_limiters
-- $1 ids uuid[]
INSERT INTO noria.limiter (id, tat)
SELECT i.id, statement_timestamp()
  FROM unnest($1::uuid[]) AS i(id)
 WHERE NOT EXISTS (SELECT FROM noria.limiter l WHERE l.id = i.id)
 ORDER BY i.id
    ON CONFLICT DO NOTHING
RETURNING id;

-- name: claim_limited
-- $1 bands integer[], $2 limiters uuid[], $3 by_key boolean[], $4 front bigint, $5 limit bigint,
-- $6 incarnation bigint, $7 alone boolean
-- Runs while these limiters are locked, in a statement of its own: its snapshot must be younger than the locks, or it
-- would not count what the one before has just begun. Of each limiter as many rows as it has room for: its bands take
-- turns by chance, weighted 8 : 4 : 1 by lane and by their tenants' weights (the sum of exponential steps is the order
-- in which such draws come), and limiters take turns row by row. The arrival times move by what began.
WITH asked AS MATERIALIZED (
    SELECT i.band, i.limiter, i.by_key, b.handler,
           CASE b.lane WHEN 0 THEN 1.0 WHEN 1 THEN 2.0 ELSE 8.0 END::double precision
               / coalesce((SELECT t.weight FROM noria.tenant t WHERE t.name = b.tenant), 1) AS stride
      FROM unnest($1::integer[], $2::uuid[], $3::boolean[]) AS i(band, limiter, by_key)
      JOIN noria.band b ON b.id = abs(i.band)
     WHERE EXISTS (SELECT FROM noria.lease l
                    WHERE l.incarnation = $6 AND l.state < 8 AND l.alive_until > statement_timestamp())
), rooms AS MATERIALIZED (
    SELECT a.limiter, h.period_s / h.count AS interval_s,
           least(coalesce(noria.rate_room(l.tat, statement_timestamp(), h.count, h.period_s, h.burst), $5::bigint),
                 coalesce(h.max_running - (SELECT count(*) FROM noria.running WHERE running.limiter = a.limiter), $5),
                 $5) AS room
      FROM (SELECT DISTINCT limiter, handler FROM asked) a
      JOIN noria.limiter l ON l.id = a.limiter
      JOIN noria.handler_limit h ON h.handler = a.handler
), heads AS MATERIALIZED (
    SELECT a.band, a.limiter, a.stride, r.room, w.id, w.due, w.seq
      FROM asked a
      JOIN rooms r ON r.limiter = a.limiter AND r.room > 0
     CROSS JOIN LATERAL (
           SELECT waiting.id, waiting.due, waiting.seq
             FROM noria.waiting
            WHERE a.by_key AND waiting.limiter IS NOT NULL AND waiting.band = a.band AND waiting.limiter = a.limiter
              AND waiting.due <= statement_timestamp()
            ORDER BY waiting.due, waiting.seq
            LIMIT r.room
              FOR UPDATE SKIP LOCKED) w
    UNION ALL
    SELECT a.band, a.limiter, a.stride, r.room, w.id, w.due, w.seq
      FROM asked a
      JOIN rooms r ON r.limiter = a.limiter AND r.room > 0
      JOIN noria.handler_limit h ON h.handler = a.handler
     CROSS JOIN LATERAL (
           SELECT f.id, f.due, f.seq
             FROM (SELECT waiting.id, waiting.due, waiting.seq, waiting.limiter
                     FROM noria.waiting
                    WHERE NOT a.by_key AND waiting.band = a.band AND waiting.due <= statement_timestamp()
                      AND waiting.actor IS NULL
                    ORDER BY waiting.due, waiting.seq
                    LIMIT CASE h.per WHEN 'key' THEN $4 ELSE r.room END
                      FOR UPDATE SKIP LOCKED) f
            WHERE h.per <> 'key' OR f.limiter IS NULL
            LIMIT r.room) w
), drawn AS (
    SELECT h.*, sum(-ln(1 - random()) * h.stride) OVER (PARTITION BY h.band, h.limiter ORDER BY h.due, h.seq) AS place
      FROM heads h
), turns AS (
    SELECT d.*, row_number() OVER (PARTITION BY d.limiter ORDER BY d.place) AS nth FROM drawn d
), picked AS MATERIALIZED (
    SELECT t.id, t.limiter FROM turns t WHERE t.nth <= t.room ORDER BY t.nth, t.place LIMIT $5
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id
    RETURNING w.id, w.due, w.seq, w.expires_at, w.band, w.attempt, w.failures, w.crashes, w.slot, w.awaited,
              p.limiter
), begun AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, failures, crashes, slot,
                               alone, limiter, awaited)
    SELECT id, $6, seq, statement_timestamp(), expires_at, abs(band), attempt, failures, crashes, slot, $7, limiter,
           awaited
      FROM moved
), spent AS (
    UPDATE noria.limiter l
       SET tat = greatest(l.tat, statement_timestamp())
                 + coalesce(m.starts * r.interval_s, 0) * interval '1 second'
      FROM (SELECT limiter, count(*) AS starts FROM moved GROUP BY limiter) m
      JOIN rooms r ON r.limiter = m.limiter
     WHERE l.id = m.limiter
)
SELECT m.id, m.attempt, abs(m.band) AS band, m.slot, m.seq, m.failures, m.crashes, t.payload, t.payload_codec,
       t.max_attempts, t.timeout_s, statement_timestamp() AS started_at,
       extract(epoch FROM statement_timestamp() - m.due)::double precision AS waited_s, t.created_at,
       t.idempotency_key, t.actor_key, t.metadata, t.trace_context, t.created_by,
       coalesce(m.expires_at <= statement_timestamp(), false) AS expired, $7::boolean AS alone,
       t.workflow_id, t.parents
  FROM moved m
  JOIN noria.task t ON t.id = m.id
 ORDER BY m.due, m.seq;

-- name: limits
SELECT handler, count, period_s, burst, max_running, per, declared, set_by FROM noria.handler_limit ORDER BY handler;

-- name: declare_limits
-- $1 handlers text[], $2 declared text[]
-- What is set by hand stays. A handler that declares none needs no row, but keeps one that is there.
WITH said AS MATERIALIZED (
    SELECT i.handler, i.declared::jsonb AS declared FROM unnest($1::text[], $2::text[]) AS i(handler, declared)
), changed AS (
    UPDATE noria.handler_limit l
       SET declared = s.declared, per = coalesce(s.declared ->> 'per', 'handler'),
           count = CASE WHEN l.set_by IS NULL THEN (s.declared ->> 'count')::integer ELSE l.count END,
           period_s = CASE WHEN l.set_by IS NULL THEN (s.declared ->> 'period_s')::double precision
                           ELSE l.period_s END,
           burst = CASE WHEN l.set_by IS NULL THEN (s.declared ->> 'burst')::integer ELSE l.burst END,
           max_running = CASE WHEN l.set_by IS NULL THEN (s.declared ->> 'max_running')::integer
                              ELSE l.max_running END,
           changed_at = statement_timestamp()
      FROM said s
     WHERE l.handler = s.handler AND l.declared IS DISTINCT FROM s.declared
)
INSERT INTO noria.handler_limit (handler, declared, per, count, period_s, burst, max_running)
SELECT s.handler, s.declared, s.declared ->> 'per', (s.declared ->> 'count')::integer,
       (s.declared ->> 'period_s')::double precision, (s.declared ->> 'burst')::integer,
       (s.declared ->> 'max_running')::integer
  FROM said s
 WHERE s.declared IS NOT NULL
 ORDER BY s.handler
    ON CONFLICT DO NOTHING;

-- name: set_limit
-- $1 handler text, $2 count integer, $3 period_s double precision, $4 burst integer, $5 max_running integer,
-- $6 set_by text
INSERT INTO noria.handler_limit AS l (handler, count, period_s, burst, max_running, set_by)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (handler) DO UPDATE
   SET count = excluded.count, period_s = excluded.period_s, burst = excluded.burst,
       max_running = excluded.max_running, set_by = excluded.set_by, changed_at = statement_timestamp();

-- name: unset_limit
-- $1 handler text
-- Back to what the code declares.
UPDATE noria.handler_limit
   SET set_by = NULL, count = (declared ->> 'count')::integer, period_s = (declared ->> 'period_s')::double precision,
       burst = (declared ->> 'burst')::integer, max_running = (declared ->> 'max_running')::integer,
       changed_at = statement_timestamp()
 WHERE handler = $1 AND set_by IS NOT NULL
RETURNING handler;

-- name: forget_limiters
-- $1 older_than_s double precision, $2 limit bigint
-- Those that say nothing any more. Who holds one now is left alone; who comes later makes it anew.
DELETE FROM noria.limiter
 WHERE id IN (SELECT l.id FROM noria.limiter l
               WHERE l.tat < statement_timestamp() - $1 * interval '1 second'
               ORDER BY l.id
               LIMIT $2
                 FOR UPDATE SKIP LOCKED)
RETURNING id;
