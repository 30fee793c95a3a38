-- Storing new tasks, and finding those that are there.

-- name: accept
-- $1 ids uuid[], $2 bands integer[], $3 slots smallint[], $4 payloads bytea[], $5 max_attempts integer[],
-- $6 timeouts_s double precision[], $7 tenants text[], $8 idempotency_keys text[], $9 digests bytea[],
-- $10 delays_s double precision[], $11 born_on bigint[], $12 created_by text[], $13 trace_contexts text[],
-- $14 actor_types text[], $15 actor_keys text[], $16 prefers text[], $17 run_at timestamptz[],
-- $18 expires_at timestamptz[], $19 metadata bytea[], $20 workflow_ids uuid[], $21 payload_codecs smallint[],
-- $22 payload_keys text[], $23 payload_refs text[], $24 limit_keys text[], $25 limiters uuid[],
-- $26 parents text[], $27 names text[], $28 on_parent_failure smallint[], $29 awaited boolean[]
-- Arrays of columns that no row of the batch sets are empty; $2, $5, $6, $7 and $11 are arrays of one where all rows
-- have the same. unnest fills both with nulls. `seq` follows the order of the batch; rows are inserted by key, so that batches that share keys cannot deadlock. What the insert skips
-- (same id or same key) is not returned and is looked up by `existing`, under a snapshot of its own.
-- One row comes back, because a row of each task costs both sides: in the order of the batch their `seq`, when they
-- were made, where not all were stored which were, where some are due at another time when, and who was born (one
-- where all are alike).
-- What has parents is blocked until they have ended (workflow.sql).
WITH input AS MATERIALIZED (
    SELECT i.id, coalesce(i.band, ($2::integer[])[1]) AS band, i.slot, i.payload,
           coalesce(i.max_attempts, ($5::integer[])[1]) AS max_attempts,
           coalesce(i.timeout_s, ($6::double precision[])[1]) AS timeout_s,
           coalesce(i.tenant, ($7::text[])[1]) AS tenant, i.idempotency_key, i.digest, i.delay_s,
           CASE cardinality($11::bigint[]) WHEN 1 THEN ($11::bigint[])[1] ELSE i.born_on END AS born_on,
           i.created_by, i.trace_context, i.actor_type, i.actor_key, i.prefers, i.run_at, i.expires_at, i.metadata,
           i.workflow_id, i.payload_codec, i.payload_key, i.payload_ref, i.limit_key, i.limiter,
           i.parents, i.name, i.on_parent_failure, i.awaited,
           nextval('noria.task_seq') AS seq
      FROM unnest($1::uuid[], $2::integer[], $3::smallint[], $4::bytea[], $5::integer[], $6::double precision[],
                  $7::text[], $8::text[], $9::bytea[], $10::double precision[], $11::bigint[], $12::text[],
                  $13::text[], $14::text[], $15::text[], $16::text[], $17::timestamptz[], $18::timestamptz[],
                  $19::bytea[], $20::uuid[], $21::smallint[], $22::text[], $23::text[],
                  $24::text[], $25::uuid[], $26::text[], $27::text[], $28::smallint[], $29::boolean[])
        AS i(id, band, slot, payload, max_attempts, timeout_s, tenant, idempotency_key, digest, delay_s, born_on,
             created_by, trace_context, actor_type, actor_key, prefers, run_at, expires_at, metadata, workflow_id,
             payload_codec, payload_key, payload_ref, limit_key, limiter, parents, name, on_parent_failure, awaited)
), inserted AS (
    INSERT INTO noria.task (id, workflow_id, seq, created_at, run_at, expires_at, born_on, timeout_s, band,
                            max_attempts, slot, payload_codec, tenant, idempotency_key, digest, actor_type,
                            actor_key, payload, payload_key, payload_ref, prefers, metadata, created_by,
                            trace_context, limit_key, limiter, parents, name, on_parent_failure, awaited)
    SELECT id, workflow_id, seq, statement_timestamp(),
           coalesce(run_at, statement_timestamp() + coalesce(delay_s, 0) * interval '1 second'),
           expires_at, born_on, timeout_s, band, max_attempts, slot, coalesce(payload_codec, 0::smallint),
           tenant, idempotency_key, digest, actor_type, actor_key, payload, payload_key, payload_ref,
           prefers::text[], convert_from(metadata, 'UTF8')::json, created_by, trace_context, limit_key, limiter,
           parents::uuid[], name, on_parent_failure, awaited
      FROM input
     ORDER BY tenant COLLATE "C", idempotency_key COLLATE "C", id
    ON CONFLICT DO NOTHING
    RETURNING id, seq, created_at, run_at, expires_at, born_on, band, slot, tenant, actor_type, actor_key, limiter,
              cardinality(parents) AS open_parents, awaited
), placed AS (
    SELECT n.*, l.incarnation AS home, noria.actor_id(n.tenant, n.actor_type, n.actor_key) AS actor
      FROM inserted n
      LEFT JOIN noria.lease l ON l.incarnation = n.born_on AND l.state < 8
                             AND l.alive_until > statement_timestamp() AND n.run_at <= statement_timestamp()
                             AND (n.actor_type IS NULL OR n.actor_key IS NULL) AND n.open_parents IS NULL
), waits AS (
    INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, slot, reason, actor, lane, limiter, open_parents,
                               awaited)
    SELECT id, CASE WHEN open_parents IS NULL THEN run_at ELSE '9999-01-01 00:00:00+00' END, seq, expires_at, band, 1,
           slot, CASE WHEN open_parents IS NULL THEN 0 ELSE 5 END, actor,
           CASE WHEN actor IS NOT NULL THEN (SELECT b.lane FROM noria.band b WHERE b.id = band) END, limiter,
           open_parents, awaited
      FROM placed
     WHERE home IS NULL
), runs AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, slot, limiter,
                               awaited)
    SELECT id, home, seq, created_at, expires_at, band, 1, slot, limiter, awaited FROM placed WHERE home IS NOT NULL
)
SELECT CASE WHEN stored < cardinality($1::uuid[]) THEN ARRAY(SELECT id FROM placed ORDER BY seq) END AS ids,
       ARRAY(SELECT seq FROM placed ORDER BY seq) AS seqs, at AS created_at,
       CASE WHEN some_apart THEN ARRAY(SELECT run_at FROM placed ORDER BY seq) END AS dues,
       CASE WHEN some_born AND NOT all_born THEN ARRAY(SELECT home IS NOT NULL FROM placed ORDER BY seq)
            ELSE ARRAY[all_born] END AS born
  FROM (SELECT count(*) AS stored, min(created_at) AS at, bool_or(run_at <> created_at) AS some_apart,
               bool_or(home IS NOT NULL) AS some_born, bool_and(home IS NOT NULL) AS all_born
          FROM placed) AS n;

-- name: existing
-- $1 ids uuid[], $2 tenants text[], $3 idempotency_keys text[]
-- LATERAL with LIMIT: one index look-up each, whatever the statistics say. `born` matters for ids only: an earlier
-- commit of ours whose answer was lost.
SELECT t.id, t.tenant, t.idempotency_key, t.digest, t.seq, t.created_at, t.run_at,
       (SELECT r.attempt = 1 AND r.incarnation = t.born_on
          FROM noria.running r WHERE r.id = t.id LIMIT 1) IS TRUE AS born
  FROM unnest($1::uuid[]) AS i(id)
 CROSS JOIN LATERAL (SELECT * FROM noria.task WHERE task.id = i.id LIMIT 1) t
UNION ALL
SELECT t.id, t.tenant, t.idempotency_key, t.digest, t.seq, t.created_at, t.run_at, false AS born
  FROM unnest($2::text[], $3::text[]) AS k(tenant, idempotency_key)
 CROSS JOIN LATERAL (SELECT * FROM noria.task
                      WHERE task.tenant = k.tenant AND task.idempotency_key = k.idempotency_key LIMIT 1) t;
