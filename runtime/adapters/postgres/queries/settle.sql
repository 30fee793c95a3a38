-- Running rows that end: an outcome, or back to waiting.

-- name: settle
-- $1 ids uuid[], $2 attempts integer[], $3 incarnations bigint[], $4 failures integer[], $5 crashes integer[],
-- $6 statuses smallint[], $7 results bytea[], $8 result_codecs smallint[], $9 errors text[], $10 kinds smallint[],
-- $11 delays_s double precision[], $12 reasons smallint[], $13 suspects boolean[], $14 leave_to integer[],
-- $15 began_ago_s double precision[], $16 ended_ago_s double precision[]
-- $2 to $6 and $8 are arrays of one where all rows have the same: most batches are so, and each column of full length
-- costs both sides. Those of $7 and $9 to $16 that no row sets are empty. unnest fills both with nulls.
-- The fence is the DELETE: it waits for whoever holds the row, and matches only what still runs under this attempt
-- and incarnation. The arrays are sorted by id, and the join is a nested loop over them, so locks are taken in id
-- order. A requeue of what somebody asked to cancel ends it: a crash must not lose the request.
-- One row comes back: how many rows matched and, if not all, which; and which ended that others wait for.
WITH input AS MATERIALIZED (
    SELECT i.id, coalesce(i.attempt, ($2::integer[])[1]) AS attempt,
           coalesce(i.incarnation, ($3::bigint[])[1]) AS incarnation,
           coalesce(i.failures, ($4::integer[])[1]) AS failures,
           coalesce(i.crashes, ($5::integer[])[1]) AS crashes,
           CASE WHEN i.kind IS NULL THEN coalesce(i.status, ($6::smallint[])[1]) END AS status, i.result,
           coalesce(i.result_codec, ($8::smallint[])[1]) AS result_codec, i.error, i.kind, i.delay_s, i.reason,
           i.suspect, i.leave_to, i.began_ago_s, i.ended_ago_s, i.nth
      FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::integer[], $5::integer[], $6::smallint[],
                  $7::bytea[], $8::smallint[], $9::text[], $10::smallint[], $11::double precision[],
                  $12::smallint[], $13::boolean[], $14::integer[], $15::double precision[],
                  $16::double precision[]) WITH ORDINALITY
        AS i(id, attempt, incarnation, failures, crashes, status, result, result_codec, error, kind, delay_s,
             reason, suspect, leave_to, began_ago_s, ended_ago_s, nth)
), fenced AS (
    DELETE FROM noria.running r USING input i
     WHERE r.id = i.id AND r.attempt = i.attempt AND r.incarnation = i.incarnation
    RETURNING i.*, r.seq, r.expires_at, r.band, r.slot, r.actor, r.lane, r.limiter, r.awaited,
              greatest(r.started_at, statement_timestamp() - i.began_ago_s * interval '1 second') AS started_at,
              greatest(r.started_at, statement_timestamp() - coalesce(i.ended_ago_s, 0) * interval '1 second')
                  AS ended_at,
              CASE WHEN i.kind IS NULL THEN i.status
                   WHEN r.cancel_requested_at IS NOT NULL THEN 2::smallint END AS ends_as
), ended AS (
    INSERT INTO noria.outcome (id, incarnation, started_at, finished_at, attempt, failures, crashes, status,
                               result_codec, result, error)
    SELECT id, incarnation, started_at, ended_at, attempt, failures, crashes, ends_as,
           result_codec, result, CASE WHEN kind IS NULL THEN error::jsonb END
      FROM fenced
     WHERE ends_as IS NOT NULL
), told AS (
    INSERT INTO noria.parent_end (id, status) SELECT id, ends_as FROM fenced WHERE awaited AND ends_as IS NOT NULL
), noted AS (
    INSERT INTO noria.attempt (id, incarnation, started_at, ended_at, attempt, kind, error)
    SELECT id, incarnation, started_at, ended_at, attempt, kind, error::jsonb
      FROM fenced
     WHERE kind IS NOT NULL
    ON CONFLICT DO NOTHING
), waits AS (
    INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, failures, crashes, slot, reason, actor, lane,
                               limiter, awaited)
    SELECT id, statement_timestamp() + delay_s * interval '1 second', seq, expires_at,
           coalesce(leave_to, band) * CASE WHEN suspect THEN -1 ELSE 1 END, attempt + 1, failures, crashes, slot, reason,
           actor, lane, limiter, awaited
      FROM fenced
     WHERE ends_as IS NULL
)
SELECT matched, CASE WHEN matched < cardinality($1::uuid[]) THEN ARRAY(SELECT nth FROM fenced) END AS which,
       CASE WHEN told THEN ARRAY(SELECT nth FROM fenced WHERE awaited AND ends_as IS NOT NULL) END AS told
  FROM (SELECT count(*) AS matched, bool_or(awaited AND ends_as IS NOT NULL) AS told FROM fenced) AS n;

-- name: on_record
-- $1 ids uuid[], $2 attempts integer[], $3 incarnations bigint[], $4 statuses smallint[], $5 kinds smallint[]
-- Settlements that did not match, because an earlier COMMIT of ours whose answer was lost had done them. Runs after
-- the fence, in a statement of its own: the snapshot must be younger than the wait.
SELECT i.nth
  FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::smallint[], $5::smallint[])
       WITH ORDINALITY AS i(id, attempt, incarnation, status, kind, nth)
  LEFT JOIN LATERAL (SELECT * FROM noria.outcome WHERE outcome.id = i.id LIMIT 1) o ON true
  LEFT JOIN LATERAL (SELECT * FROM noria.attempt
                      WHERE attempt.id = i.id AND attempt.attempt = i.attempt LIMIT 1) a ON true
 WHERE (i.kind IS NULL AND o.attempt = i.attempt AND o.incarnation = i.incarnation AND o.status = i.status)
    OR (a.incarnation = i.incarnation AND a.kind = i.kind);

-- name: report_progress
-- $1 incarnation bigint, $2 ids uuid[], $3 attempts integer[], $4 progress text[]
-- Sorted by id, like every statement that locks many rows.
UPDATE noria.running r SET progress = p.progress::jsonb
  FROM unnest($2::uuid[], $3::integer[], $4::text[]) AS p(id, attempt, progress)
 WHERE r.id = p.id AND r.attempt = p.attempt AND r.incarnation = $1;
