-- Large results, which lie outside of this database.

-- name: identity
SELECT id FROM noria.record;

-- name: results_in_use
-- $1 ids uuid[], $2 attempts integer[]
-- One snapshot: an attempt that commits at this moment is seen running or ended, never gone. LIMIT keeps the plan at
-- one look by primary key for each.
SELECT i.id, i.attempt
  FROM unnest($1::uuid[], $2::integer[]) AS i(id, attempt)
  LEFT JOIN LATERAL (SELECT attempt FROM noria.running WHERE running.id = i.id LIMIT 1) r ON true
  LEFT JOIN LATERAL (SELECT attempt, result_codec FROM noria.outcome WHERE outcome.id = i.id LIMIT 1) o ON true
 WHERE r.attempt = i.attempt OR (o.attempt = i.attempt AND o.result_codec >= 2);
