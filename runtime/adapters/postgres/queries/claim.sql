-- name: claim
-- $1 id uuid[], $2 attempt int[] (both sorted by id), $3 incarnation int8
-- Offers never take suspects (band < 0): those are only pulled. A row that somebody else locks is skipped: it is being
-- claimed, cancelled or moved, and the sweep looks again.
WITH picked AS MATERIALIZED (
    SELECT w.id
    FROM unnest($1::uuid[], $2::int[]) AS o (id, attempt)
    JOIN noria.waiting w ON w.id = o.id AND w.attempt = o.attempt
    WHERE w.due <= statement_timestamp() AND w.band > 0
      AND EXISTS (SELECT FROM noria.lease WHERE incarnation = $3 AND state < 8 AND alive_until > statement_timestamp())
    FOR UPDATE OF w SKIP LOCKED
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id
    RETURNING w.id, w.due, w.seq, w.expires_at, w.band, w.attempt, w.failures, w.crashes, w.slot
), runs AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, failures, crashes, slot)
    SELECT id, $3, seq, statement_timestamp(), expires_at, band, attempt, failures, crashes, slot FROM moved
)
SELECT
    m.id, m.attempt, m.band, m.slot, m.seq, m.failures, m.crashes, t.payload, t.payload_codec, t.max_attempts, t.timeout_s,
    statement_timestamp() AS started_at, extract(epoch FROM statement_timestamp() - m.due)::float8 AS waited_s, t.created_at,
    t.idempotency_key, t.actor_key, t.metadata::text AS metadata, t.trace_context, t.created_by,
    m.expires_at <= statement_timestamp() AS expired, false AS alone
FROM moved m JOIN noria.task t ON t.id = m.id;

-- name: pull
-- $1 band int[], $2 limit int[], $3 since timestamptz[] (null: from the oldest), $4 incarnation int8, $5 alone bool
-- LATERAL per band, each a short walk along (band, due, seq). Bands are chosen before; nothing here filters rows.
WITH picked AS MATERIALIZED (
    SELECT w.id
    FROM unnest($1::int[], $2::int[], $3::timestamptz[]) AS b (band, n, since)
    CROSS JOIN LATERAL (
        SELECT w.id FROM noria.waiting w
        WHERE w.band = b.band AND w.due <= statement_timestamp() AND w.due >= coalesce(b.since, '-infinity')
        ORDER BY w.due, w.seq LIMIT b.n
        FOR UPDATE SKIP LOCKED
    ) w
    WHERE EXISTS (SELECT FROM noria.lease WHERE incarnation = $4 AND state < 8 AND alive_until > statement_timestamp())
), moved AS (
    DELETE FROM noria.waiting w USING picked p WHERE w.id = p.id
    RETURNING w.id, w.due, w.seq, w.expires_at, abs(w.band) AS band, w.attempt, w.failures, w.crashes, w.slot
), runs AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, failures, crashes, slot, alone)
    SELECT id, $4, seq, statement_timestamp(), expires_at, band, attempt, failures, crashes, slot, $5 FROM moved
)
SELECT
    m.id, m.attempt, m.band, m.slot, m.seq, m.failures, m.crashes, t.payload, t.payload_codec, t.max_attempts, t.timeout_s,
    statement_timestamp() AS started_at, extract(epoch FROM statement_timestamp() - m.due)::float8 AS waited_s, t.created_at,
    t.idempotency_key, t.actor_key, t.metadata::text AS metadata, t.trace_context, t.created_by,
    m.expires_at <= statement_timestamp() AS expired, $5 AS alone
FROM moved m JOIN noria.task t ON t.id = m.id
ORDER BY m.due, m.seq;
