-- Leases. Every instant is clock_timestamp(): a statement that waited for the row must judge by the time after it.

-- name: join
-- $1 node text, $2 lease_s double precision, $3 about text
INSERT INTO noria.lease (node, about, lease_s, alive_until, unbroken_since, server)
VALUES ($1, ($3::text)::jsonb, $2, clock_timestamp() + $2 * interval '1 second', clock_timestamp(),
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint)
RETURNING incarnation;

-- name: renew
-- $1 incarnation bigint, $2 lease_s double precision, $3 load text
-- The unbroken time starts anew where this renewal proves that something was wrong which may have held up the
-- others too: less than 3/8 of the lease was left, more was left than was granted (the clock stepped back), or it is
-- another PostgreSQL than last time (restart, failover).
-- Why 3/8: members renew at least every L/3, so one without a fault loses its lease only if PostgreSQL stood still for
-- 2L/3 or longer. Whoever renews after that has L/3 left at most, and buries nobody before all had a lease's time.
UPDATE noria.lease
   SET unbroken_since = CASE
           WHEN alive_until < clock_timestamp() + lease_s * 0.375 * interval '1 second'
             OR alive_until > clock_timestamp() + lease_s * interval '1 second'
             OR server <> (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
           THEN clock_timestamp() ELSE unbroken_since END,
       server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
       alive_until = clock_timestamp() + $2 * interval '1 second',
       lease_s = $2,
       load = coalesce(($3::text)::jsonb, load)
 WHERE incarnation = $1 AND state < 8
RETURNING $2::double precision AS granted_s;

-- name: set_state
-- $1 incarnation bigint, $2 state smallint
UPDATE noria.lease
   SET state = $2::smallint, ended_at = CASE WHEN $2::smallint >= 8 THEN clock_timestamp() END
 WHERE incarnation = $1 AND state < 8
RETURNING state;

-- name: member
-- $1 incarnation bigint
SELECT node, state FROM noria.lease WHERE incarnation = $1;

-- name: bury
-- $1 by bigint, $2 lease_s double precision
-- Only a member whose own renewals have come in time for a whole lease (the longer of its and the victim's), to this
-- very PostgreSQL, may declare another dead. A row that is being renewed right now is locked, so it is skipped; a
-- renewal that came in between is seen, because the locked row is judged again.
WITH witness AS MATERIALIZED (
    SELECT clock_timestamp() - me.unbroken_since AS unbroken_for
      FROM noria.lease me
     WHERE me.incarnation = $1 AND me.state < 8
       AND me.alive_until >= clock_timestamp() + me.lease_s * 0.375 * interval '1 second'
       AND me.alive_until <= clock_timestamp() + me.lease_s * interval '1 second'
       AND me.unbroken_since <= clock_timestamp() - $2 * interval '1 second'
       AND me.server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
), expired AS MATERIALIZED (
    SELECT l.incarnation
      FROM noria.lease l, witness w
     WHERE l.state < 8 AND l.incarnation <> $1
       AND (l.alive_until < clock_timestamp()
            OR l.alive_until > clock_timestamp() + l.lease_s * interval '1 second')
       AND w.unbroken_for >= l.lease_s * interval '1 second'
     ORDER BY l.incarnation
       FOR UPDATE OF l SKIP LOCKED
)
UPDATE noria.lease l
   SET state = 9, ended_at = clock_timestamp()
  FROM expired e
 WHERE l.incarnation = e.incarnation
RETURNING l.incarnation;

-- name: request_drain
-- $1 node text
-- Asking again changes nothing more. A later start of the node is another incarnation, which nobody has asked.
WITH living AS MATERIALIZED (
    SELECT incarnation FROM noria.lease WHERE node = $1 AND state < 8 ORDER BY incarnation FOR UPDATE
)
UPDATE noria.lease l
   SET drain_requested_at = coalesce(l.drain_requested_at, clock_timestamp())
  FROM living
 WHERE l.incarnation = living.incarnation
RETURNING l.incarnation;

-- name: nodes
SELECT node, incarnation, state, started_at,
       extract(epoch FROM alive_until - clock_timestamp())::double precision AS alive_for_s, about,
       drain_requested_at IS NOT NULL AS drain_requested, load
  FROM noria.lease
 WHERE ended_at IS NULL OR ended_at >= clock_timestamp() - interval '1 hour'
 ORDER BY incarnation;
