-- name: join
-- $1 node text, $2 lease_s float8, $3 about text (JSON)
INSERT INTO noria.lease (node, alive_until, unbroken_since, started_at, lease_s, server, about)
VALUES (
    $1, statement_timestamp() + make_interval(secs => $2), statement_timestamp(), statement_timestamp(), $2,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8, $3::jsonb
)
RETURNING incarnation;

-- name: renew
-- $1 incarnation int8, $2 lease_s float8
-- A lease that had run out, that is further away than what was granted (the clock stepped back), or that another start of
-- PostgreSQL saw (a restart, a failover) begins a new unbroken time: whoever just came back declares nobody dead.
UPDATE noria.lease SET
    unbroken_since = CASE
        WHEN alive_until > clock_timestamp() AND alive_until <= clock_timestamp() + make_interval(secs => lease_s)
            AND server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 THEN unbroken_since
        ELSE clock_timestamp()
    END,
    server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8,
    lease_s = $2,
    alive_until = clock_timestamp() + make_interval(secs => $2)
WHERE incarnation = $1 AND state < 8
RETURNING incarnation;

-- name: lease_of
-- $1 incarnation int8
SELECT node, state FROM noria.lease WHERE incarnation = $1;

-- name: set_state
-- $1 incarnation int8, $2 state int2
UPDATE noria.lease SET state = $2::int2, ended_at = CASE WHEN $2::int2 >= 8 THEN clock_timestamp() END
WHERE incarnation = $1 AND state < 8
RETURNING incarnation;

-- name: bury
-- $1 by int8, $2 lease_s float8
-- Renewal and death are updates of one row, so they are ordered by its lock; the condition is looked at again after a wait.
-- Nobody is buried by a member that was not itself unbroken for one lease.
UPDATE noria.lease SET state = 9, ended_at = clock_timestamp()
WHERE state < 8 AND incarnation <> $1
  AND NOT (alive_until > clock_timestamp() AND alive_until <= clock_timestamp() + make_interval(secs => lease_s))
  AND EXISTS (
      SELECT FROM noria.lease me
      WHERE me.incarnation = $1 AND me.state < 8
        AND me.alive_until > clock_timestamp() AND me.alive_until <= clock_timestamp() + make_interval(secs => me.lease_s)
        AND me.server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8
        AND me.unbroken_since <= clock_timestamp() - make_interval(secs => $2)
  )
RETURNING incarnation;

-- name: nodes
SELECT node, incarnation, state, started_at, extract(epoch FROM alive_until - clock_timestamp())::float8 AS alive_for_s, about::text AS about
FROM noria.lease
WHERE ended_at IS NULL OR ended_at >= clock_timestamp() - interval '1 hour'
ORDER BY incarnation;

-- name: intern
-- $1 handler text, $2 lane int2, $3 tenant text, $4 requires text[], $5 keyed bool
WITH made AS (
    INSERT INTO noria.band (handler, lane, tenant, requires, keyed) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING RETURNING id
)
SELECT id FROM made
UNION ALL
SELECT id FROM noria.band WHERE handler = $1 AND lane = $2 AND tenant = $3 AND requires = $4 AND keyed = $5;

-- name: bands
-- $1 after int
SELECT id, handler, lane, tenant, requires, keyed FROM noria.band WHERE id > $1 ORDER BY id;

-- name: publish
-- $1 name text, $2 digest text, $3 schema text (JSON), $4 defaults text (JSON), $5 source text, $6 doc text
INSERT INTO noria.handler (name, digest, schema, defaults, source, doc)
VALUES ($1, $2, $3::jsonb, $4::jsonb, $5, $6)
ON CONFLICT (name) DO UPDATE SET
    digest = excluded.digest, schema = excluded.schema, defaults = excluded.defaults, source = excluded.source, doc = excluded.doc,
    published_at = clock_timestamp();

-- name: handlers
SELECT name, digest, schema::text AS schema, defaults::text AS defaults, source, doc, paused_at IS NOT NULL AS paused
FROM noria.handler ORDER BY name;

-- name: paused
SELECT name FROM noria.handler WHERE paused_at IS NOT NULL ORDER BY name;

-- name: set_paused
-- $1 name text, $2 paused bool
UPDATE noria.handler SET paused_at = CASE WHEN $2 THEN coalesce(paused_at, clock_timestamp()) END WHERE name = $1
RETURNING name;

-- name: now
SELECT clock_timestamp();
