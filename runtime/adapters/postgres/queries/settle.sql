-- name: finish
-- $1 id uuid[] (sorted), $2 attempt int[], $3 incarnation int8[], $4 status int2[], $5 result bytea[], $6 result_codec int2[],
-- $7 error text[] (JSON), $8 failures int[], $9 crashes int[]
-- The fence is the DELETE: a row that no longer runs under (attempt, incarnation) is not there. What it returns is all that
-- is written, so a late or foreign commit writes nothing.
WITH gone AS (
    DELETE FROM noria.running r
    USING unnest(
        $1::uuid[], $2::int[], $3::int8[], $4::int2[], $5::bytea[], $6::int2[], $7::text[], $8::int[], $9::int[]
    ) AS m (id, attempt, incarnation, status, result, result_codec, error, failures, crashes)
    WHERE r.id = m.id AND r.attempt = m.attempt AND r.incarnation = m.incarnation
    RETURNING m.*, r.started_at
)
INSERT INTO noria.outcome (
    id, incarnation, started_at, finished_at, attempt, failures, crashes, status, result_codec, result, error
)
SELECT
    id, incarnation, started_at, statement_timestamp(), attempt, failures, crashes, status, coalesce(result_codec, 0), result, error::jsonb
FROM gone
RETURNING id, attempt, incarnation;

-- name: requeue
-- $1 id uuid[] (sorted), $2 attempt int[], $3 incarnation int8[], $4 kind int2[], $5 delay_s float8[], $6 reason int2[],
-- $7 failures int[], $8 crashes int[], $9 suspect bool[], $10 error text[] (JSON)
-- Back to waiting under the next attempt. A request to cancel survives the attempt that it met: then it ends cancelled.
WITH gone AS (
    DELETE FROM noria.running r
    USING unnest(
        $1::uuid[], $2::int[], $3::int8[], $4::int2[], $5::float8[], $6::int2[], $7::int[], $8::int[], $9::bool[], $10::text[]
    ) AS m (id, attempt, incarnation, kind, delay_s, reason, failures, crashes, suspect, error)
    WHERE r.id = m.id AND r.attempt = m.attempt AND r.incarnation = m.incarnation
    RETURNING m.*, r.started_at, r.seq, r.expires_at, r.band, r.slot, r.cancel_requested_at
), noted AS (
    INSERT INTO noria.attempt (id, incarnation, started_at, ended_at, attempt, kind, error)
    SELECT id, incarnation, started_at, statement_timestamp(), attempt, kind, error::jsonb FROM gone
    ON CONFLICT DO NOTHING
), back AS (
    INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, failures, crashes, slot, reason)
    SELECT
        id, statement_timestamp() + make_interval(secs => delay_s), seq, expires_at, CASE WHEN suspect THEN -band ELSE band END,
        attempt + 1, failures, crashes, slot, reason
    FROM gone WHERE cancel_requested_at IS NULL
), ended AS (
    INSERT INTO noria.outcome (id, incarnation, started_at, finished_at, attempt, failures, crashes, status)
    SELECT id, incarnation, started_at, statement_timestamp(), attempt, failures, crashes, 2
    FROM gone WHERE cancel_requested_at IS NOT NULL
)
SELECT id, attempt, incarnation FROM gone;

-- name: settled_before
-- $1 id uuid[]
-- How attempts ended that no longer run: tells a repeat after a lost answer from a late commit.
SELECT id, attempt, incarnation, status AS finished, NULL::int2 AS kind FROM noria.outcome WHERE id = ANY ($1::uuid[])
UNION ALL
SELECT id, attempt, incarnation, NULL::int2, kind FROM noria.attempt WHERE id = ANY ($1::uuid[]);

-- name: orphans
-- $1 limit int
SELECT r.id, r.attempt, r.incarnation, r.failures, r.crashes, t.max_attempts, r.alone, r.band, coalesce(l.state = 8, false) AS "left"
FROM noria.running r
JOIN noria.task t ON t.id = r.id
LEFT JOIN noria.lease l ON l.incarnation = r.incarnation
WHERE l.incarnation IS NULL OR l.state >= 8
ORDER BY r.started_at, r.seq LIMIT $1;

-- name: held
-- $1 incarnation int8
SELECT r.id, r.attempt, r.incarnation, r.failures, r.crashes, t.max_attempts, r.alone, r.band, coalesce(l.state = 8, false) AS "left"
FROM noria.running r
JOIN noria.task t ON t.id = r.id
LEFT JOIN noria.lease l ON l.incarnation = r.incarnation
WHERE r.incarnation = $1;

-- name: expire
-- $1 limit int
WITH gone AS (
    DELETE FROM noria.waiting WHERE id IN (
        SELECT id FROM noria.waiting WHERE expires_at <= statement_timestamp() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, attempt, failures, crashes
)
INSERT INTO noria.outcome (id, finished_at, attempt, failures, crashes, status, error)
SELECT id, statement_timestamp(), attempt - 1, failures, crashes, 2,
       jsonb_build_object('type', 'Expired', 'message', 'not started before its expires_at', 'traceback', '')
FROM gone
RETURNING id;

-- name: report_progress
-- $1 id uuid[] (sorted), $2 attempt int[], $3 progress text[] (JSON), $4 incarnation int8
UPDATE noria.running r SET progress = m.progress::jsonb
FROM unnest($1::uuid[], $2::int[], $3::text[]) AS m (id, attempt, progress)
WHERE r.id = m.id AND r.attempt = m.attempt AND r.incarnation = $4;

-- name: cancel_requests
-- $1 incarnation int8
SELECT id, attempt FROM noria.running WHERE cancel_requested_at IS NOT NULL AND incarnation = $1;
