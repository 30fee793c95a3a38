-- name: accept
-- $1 id uuid[], $2 band int[], $3 slot int2[], $4 payload bytea[], $5 max_attempts int[], $6 timeout_s float8[], $7 tenant text[],
-- $8 idempotency_key text[], $9 digest bytea[], $10 actor_type text[], $11 actor_key text[], $12 delay_s float8[], $13 run_at timestamptz[],
-- $14 expires_at timestamptz[], $15 metadata text[], $16 created_by text[], $17 trace_context text[], $18 workflow_id uuid[],
-- $19 payload_codec int2[], $20 payload_key text[], $21 payload_ref text[], $22 born_on int8[], $23 prefers text[] (each a JSON array)
-- One row per task; an array that would hold nothing but nulls may be null itself.
-- No joins, so there is no plan to go wrong. `seq` is drawn in the order of the arrays (the order of submission), rows are
-- inserted in the order of their keys (two batches with the same keys never wait for each other crosswise).
WITH input AS MATERIALIZED (
    SELECT nextval('noria.task_seq') AS seq, t.*
    FROM unnest(
        $1::uuid[], $2::int[], $3::int2[], $4::bytea[], $5::int[], $6::float8[], $7::text[], $8::text[], $9::bytea[], $10::text[],
        $11::text[], $12::float8[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::text[], $17::text[], $18::uuid[],
        $19::int2[], $20::text[], $21::text[], $22::int8[], $23::text[]
    ) AS t (
        id, band, slot, payload, max_attempts, timeout_s, tenant, idempotency_key, digest, actor_type, actor_key, delay_s, run_at,
        expires_at, metadata, created_by, trace_context, workflow_id, payload_codec, payload_key, payload_ref, born_on, prefers
    )
), inserted AS (
    INSERT INTO noria.task (
        id, workflow_id, seq, created_at, run_at, expires_at, born_on, timeout_s, band, max_attempts, slot, payload_codec, tenant,
        idempotency_key, digest, actor_type, actor_key, payload, payload_key, payload_ref, prefers, metadata, created_by, trace_context
    )
    SELECT
        id, workflow_id, seq, statement_timestamp(),
        coalesce(run_at, statement_timestamp() + make_interval(secs => coalesce(delay_s, 0))), expires_at,
        CASE WHEN born_on IN (
            SELECT incarnation FROM noria.lease WHERE state < 8 AND alive_until > statement_timestamp()
        ) THEN born_on END,
        timeout_s, band, max_attempts, slot, coalesce(payload_codec, 0), tenant, idempotency_key, digest, actor_type, actor_key, payload,
        payload_key, payload_ref,
        CASE WHEN prefers IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(prefers::jsonb)) END,
        metadata::json, created_by, trace_context
    FROM input
    ORDER BY tenant, idempotency_key, id
    ON CONFLICT DO NOTHING
    RETURNING id, seq, created_at, run_at, expires_at, born_on, band, slot
), waits AS (
    INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, slot)
    SELECT id, run_at, seq, expires_at, band, 1, slot FROM inserted WHERE born_on IS NULL
), runs AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, slot)
    SELECT id, born_on, seq, created_at, expires_at, band, 1, slot FROM inserted WHERE born_on IS NOT NULL
)
SELECT id, seq, created_at, run_at FROM inserted;

-- name: accept_existing
-- $1 id uuid[], $2 tenant text[], $3 idempotency_key text[]
-- What was there before: by id (an earlier commit of the same batch whose answer was lost) and by key. A statement of its
-- own, because a key that was committed after the insert's snapshot is visible only to a later one.
SELECT id, tenant, idempotency_key, digest, seq, created_at, run_at
FROM noria.task WHERE id = ANY ($1::uuid[])
UNION ALL
SELECT t.id, t.tenant, t.idempotency_key, t.digest, t.seq, t.created_at, t.run_at
FROM unnest($2::text[], $3::text[]) AS k (tenant, idempotency_key)
JOIN noria.task t ON t.tenant = k.tenant AND t.idempotency_key = k.idempotency_key;
