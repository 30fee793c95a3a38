-- Waiting rows that become running rows. Whoever is not alive claims nothing; SKIP LOCKED never waits, so these
-- statements can take their locks in any order.

-- name: claim
-- $1 ids uuid[], $2 attempts integer[], $3 incarnation bigint
-- Suspects (negative bands) are only pulled; messages to keyed actors have turns (keyed.sql).
WITH picked AS MATERIALIZED (
    SELECT w.id
      FROM unnest($1::uuid[], $2::integer[]) AS o(id, attempt)
      JOIN noria.waiting w ON w.id = o.id
     WHERE w.attempt = o.attempt AND w.due <= statement_timestamp() AND w.band > 0
       AND w.actor IS NULL
       AND EXISTS (SELECT FROM noria.lease l
                    WHERE l.incarnation = $3 AND l.state < 8 AND l.alive_until > statement_timestamp())
     ORDER BY w.id
       FOR UPDATE OF w SKIP LOCKED
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id
    RETURNING w.id, w.due, w.seq, w.expires_at, w.band, w.attempt, w.failures, w.crashes, w.slot,
              w.limiter, w.awaited
), begun AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, failures, crashes, slot,
                               limiter, awaited)
    SELECT id, $3, seq, statement_timestamp(), expires_at, band, attempt, failures, crashes, slot, limiter, awaited
      FROM moved
)
SELECT m.id, m.attempt, m.band, m.slot, m.seq, m.failures, m.crashes, t.payload, t.payload_codec, t.max_attempts,
       t.timeout_s, statement_timestamp() AS started_at,
       extract(epoch FROM statement_timestamp() - m.due)::double precision AS waited_s, t.created_at,
       t.idempotency_key, t.actor_key, t.metadata, t.trace_context, t.created_by,
       coalesce(m.expires_at <= statement_timestamp(), false) AS expired, false AS alone, t.workflow_id,
       t.parents
  FROM moved m
  JOIN noria.task t ON t.id = m.id;

-- name: pull
-- $1 bands integer[], $2 limits integer[], $3 since timestamptz[], $4 incarnation bigint, $5 alone boolean
-- One range of the index (band, due, seq) per band: what is paused, limited or not loaded is not even looked at.
-- statement_timestamp(), because a volatile clock is never an index condition.
WITH picked AS MATERIALIZED (
    SELECT w.id
      FROM unnest($1::integer[], $2::integer[], $3::timestamptz[]) AS take(band, n, since)
     CROSS JOIN LATERAL (
           SELECT waiting.id
             FROM noria.waiting
            WHERE waiting.band = take.band AND waiting.due <= statement_timestamp()
              AND waiting.due >= coalesce(take.since, '-infinity') AND waiting.actor IS NULL
            ORDER BY waiting.due, waiting.seq
            LIMIT take.n
              FOR UPDATE SKIP LOCKED) w
     WHERE EXISTS (SELECT FROM noria.lease l
                    WHERE l.incarnation = $4 AND l.state < 8 AND l.alive_until > statement_timestamp())
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id
    RETURNING w.id, w.due, w.seq, w.expires_at, w.band, w.attempt, w.failures, w.crashes, w.slot,
              w.limiter, w.awaited
), begun AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, failures, crashes, slot,
                               alone, limiter, awaited)
    SELECT id, $4, seq, statement_timestamp(), expires_at, abs(band), attempt, failures, crashes, slot, $5, limiter,
           awaited
      FROM moved
)
SELECT m.id, m.attempt, abs(m.band) AS band, m.slot, m.seq, m.failures, m.crashes, t.payload, t.payload_codec,
       t.max_attempts, t.timeout_s, statement_timestamp() AS started_at,
       extract(epoch FROM statement_timestamp() - m.due)::double precision AS waited_s, t.created_at,
       t.idempotency_key, t.actor_key, t.metadata, t.trace_context, t.created_by,
       coalesce(m.expires_at <= statement_timestamp(), false) AS expired, $5::boolean AS alone,
       t.workflow_id, t.parents
  FROM moved m
  JOIN noria.task t ON t.id = m.id
 ORDER BY m.due, m.seq;
