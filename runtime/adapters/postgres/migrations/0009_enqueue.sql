-- Enqueueing by SQL, in the caller's own transaction: the task is there if that commits, and never was if it does not.
-- noria_api is all that an application may touch:
--
--   GRANT USAGE ON SCHEMA noria_api TO app; GRANT EXECUTE ON FUNCTION noria_api.enqueue TO app;
CREATE SCHEMA noria_api;
REVOKE ALL ON SCHEMA noria_api FROM PUBLIC;

-- Tasks of a combination that has no band yet: the task's band is 0, and it has no waiting row, until a node gives it
-- one. Made in the caller's transaction, a band would hold everybody who needs the same one until that ends.
CREATE TABLE noria.unbanded (
    id       uuid PRIMARY KEY,
    lane     smallint NOT NULL,
    keyed    boolean NOT NULL,
    awaited  boolean,  -- other tasks depend on it
    handler  text NOT NULL COLLATE "C",
    tenant   text NOT NULL COLLATE "C",
    requires text[] NOT NULL
);

-- As runtime.core.canonical.canonical writes it. From text to text, because jsonb takes 1e2 for 100 and 1.0 for 1.
-- Numbers: integers as they stand, all others as Python's repr writes the double.
CREATE FUNCTION noria.canonical(value json) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
DECLARE
    written  text;
    shorter  text;
    exponent integer;
BEGIN
    CASE json_typeof(value)
    WHEN 'object' THEN
        RETURN '{' || coalesce((
            SELECT string_agg(to_json(last.key)::text || ':' || noria.canonical(last.value), ',' ORDER BY last.key COLLATE "C")
              FROM (SELECT DISTINCT ON (m.key COLLATE "C") m.key, m.value
                      FROM json_each(value) WITH ORDINALITY AS m(key, value, nth)
                     ORDER BY m.key COLLATE "C", m.nth DESC) AS last), '') || '}';
    WHEN 'array' THEN
        RETURN '[' || coalesce((
            SELECT string_agg(noria.canonical(e.value), ',' ORDER BY e.nth)
              FROM json_array_elements(value) WITH ORDINALITY AS e(value, nth)), '') || ']';
    WHEN 'string' THEN
        RETURN to_json(value #>> '{}')::text;
    WHEN 'number' THEN
        written := trim(value::text, E' \t\r\n');
        IF written !~ '[.eE]' THEN
            RETURN CASE written WHEN '-0' THEN '0' ELSE written END;
        END IF;
        written := written::double precision::text;
        IF length(translate(split_part(written, 'e', 1), '-.', '')) > 15 AND written NOT LIKE '%e+308' THEN
            -- PostgreSQL avoids what lies right in the middle between two doubles, Python takes the shortest
            shorter := split_part(written, 'e', 1);
            shorter := trim_scale(round(shorter::numeric, scale(shorter::numeric) - 1));
            exponent := nullif(split_part(written, 'e', 2), '');
            IF exponent IS NOT NULL AND abs(shorter::numeric) = 10 THEN
                shorter := shorter::numeric::integer / 10;
                exponent := exponent + 1;
            END IF;
            shorter := shorter || coalesce(CASE WHEN exponent < 0 THEN 'e-' ELSE 'e+' END
                                           || lpad(abs(exponent)::text, greatest(2, length(abs(exponent)::text)), '0'), '');
            IF shorter::double precision = written::double precision THEN
                written := shorter;
            END IF;
        END IF;
        IF written LIKE '%e+15' THEN  -- Python begins to write exponents one later
            written := trim_scale(written::numeric)::text;
        END IF;
        RETURN CASE WHEN written ~ '[.e]' THEN written ELSE written || '.0' END;
    ELSE
        RETURN trim(value::text, E' \t\r\n');
    END CASE;
END
$body$;

-- Version 7, with microseconds: those of one session ascend.
CREATE FUNCTION noria.new_task_id() RETURNS uuid LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    us bigint := floor(extract(epoch FROM clock_timestamp()) * 1000000);
BEGIN
    RETURN (lpad(to_hex(us / 1000), 12, '0') || '7' || lpad(to_hex(us % 1000 * 4096 / 1000), 3, '0')
            || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid;
END
$body$;

-- What is wrong with an idempotency key, an actor key or a tag; null: nothing. Limits: actors.authoring.limits.
CREATE FUNCTION noria.key_fault(key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT CASE WHEN NOT char_length(key) BETWEEN 1 AND 255
                THEN char_length(key) || ' characters; 1 to 255 are allowed'
                WHEN octet_length(key) > 512
                THEN octet_length(key) || ' bytes as UTF-8; at most 512 are allowed' END
$body$;

CREATE FUNCTION noria.tags_fault(tags text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT CASE WHEN cardinality(tags) > 16 THEN cardinality(tags) || ' tags; at most 16 are allowed' ELSE (
        SELECT 'tag ' || coalesce(quote_literal(t.tag), 'null') || ': '
               || coalesce(noria.key_fault(t.tag), 'is not text, or begins with noria:, which are Noria''s own')
          FROM unnest(tags) AS t(tag)
         WHERE t.tag IS NULL OR noria.key_fault(t.tag) IS NOT NULL OR t.tag LIKE 'noria:%'
         LIMIT 1) END
$body$;

CREATE FUNCTION noria.instant_fault(instant timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $body$
    SELECT CASE WHEN NOT instant BETWEEN '1970-01-01 00:00:00Z' AND '8999-12-31 23:59:59Z'
                THEN instant || ' is not within the years 1970 to 8999' END
$body$;

-- As Task.to_request writes it.
CREATE FUNCTION noria.instant_json(instant timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $body$
    SELECT '"' || to_char(instant AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
           || CASE WHEN date_part('microseconds', instant AT TIME ZONE 'UTC')::bigint % 1000000 <> 0
                   THEN to_char(instant AT TIME ZONE 'UTC', '.US') ELSE '' END || 'Z"'
$body$;

-- One task. Arguments as in POST /v1/tasks; what is left out or null is the handler's default. The payload is checked
-- against the handler's arguments by the node that runs it. request_digest: SHA-256 of the canonical request, where
-- the caller has it; else it is made here of what was given.
-- Errors: 22023 a value is not allowed, NO001 the key is that of a different request, NO002 no such handler.
CREATE FUNCTION noria_api.enqueue(
    handler         text,
    payload         json DEFAULT '{}',
    idempotency_key text DEFAULT NULL,
    actor_key       text DEFAULT NULL,
    limit_key       text DEFAULT NULL,
    priority        text DEFAULT NULL,
    requires        text[] DEFAULT NULL,
    prefers         text[] DEFAULT NULL,
    delay_s         double precision DEFAULT NULL,
    run_at          timestamptz DEFAULT NULL,
    expires_at      timestamptz DEFAULT NULL,
    timeout_s       double precision DEFAULT NULL,
    max_attempts    integer DEFAULT NULL,
    metadata        json DEFAULT NULL,
    tenant          text DEFAULT 'default',
    trace_context   text DEFAULT NULL,
    request_digest  bytea DEFAULT NULL
) RETURNS uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off  -- rows are found by key, whatever the statistics say
    SET enable_bitmapscan = off
    SET extra_float_digits = 1
AS $body$
<<made>>
DECLARE
    known     json;
    fault     text;
    actor     uuid;
    limiter   uuid;
    lane      smallint;
    tags      text[];
    band      integer;
    digest    bytea;
    hashed    bytea;
    slot      smallint;
    due       timestamptz;
    seq       bigint;
    task_id   uuid;
    existing  record;
BEGIN
    payload := coalesce(payload, '{}');
    tenant := coalesce(tenant, 'default');
    SELECT h.defaults INTO known FROM noria.handler h WHERE h.name = enqueue.handler;
    IF known IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'NO002', MESSAGE = format('noria: no handler is named %L', handler),
            HINT = format('Nodes publish theirs when they start. Known are: %s.', coalesce((
                SELECT string_agg(listed.name, ', ')
                  FROM (SELECT h.name FROM noria.handler h ORDER BY h.name LIMIT 10) AS listed), 'none'));
    END IF;

    fault := CASE
        WHEN json_typeof(payload) <> 'object' THEN 'payload: must be an object; got ' || json_typeof(payload)
        WHEN octet_length(payload::text) > 1048576
        THEN format('payload: %s bytes as JSON; at most 1048576 are allowed', octet_length(payload::text))
        WHEN noria.key_fault(idempotency_key) IS NOT NULL THEN 'idempotency_key: ' || noria.key_fault(idempotency_key)
        WHEN noria.key_fault(actor_key) IS NOT NULL THEN 'actor_key: ' || noria.key_fault(actor_key)
        WHEN actor_key IS NULL AND known ->> 'actor' IS NOT NULL
        THEN format('actor_key: is required: %s is a message to a keyed actor', handler)
        WHEN actor_key IS NOT NULL AND known ->> 'limit_per' IS NOT NULL
        THEN format('actor_key: %s has a limit, which does not count messages to a key; leave one of them out', handler)
        WHEN noria.key_fault(limit_key) IS NOT NULL THEN 'limit_key: ' || noria.key_fault(limit_key)
        WHEN limit_key IS NULL AND known ->> 'limit_per' = 'key'
        THEN format('limit_key: is required: %s is limited for each key', handler)
        WHEN limit_key IS NOT NULL AND known ->> 'limit_per' IS DISTINCT FROM 'key'
        THEN format('limit_key: %s has no limit for each key; declare one with limit_per=''key''', handler)
        WHEN priority NOT IN ('high', 'medium', 'low')
        THEN format('priority: %L is not one of high, medium, low', priority)
        WHEN noria.tags_fault(requires) IS NOT NULL THEN 'requires: ' || noria.tags_fault(requires)
        WHEN noria.tags_fault(prefers) IS NOT NULL THEN 'prefers: ' || noria.tags_fault(prefers)
        WHEN NOT delay_s BETWEEN 0 AND 31622400
        THEN format('delay_s: %s is not a number of seconds within 0…31622400', delay_s)
        WHEN delay_s IS NOT NULL AND run_at IS NOT NULL THEN 'run_at: give delay_s or run_at, not both'
        WHEN noria.instant_fault(run_at) IS NOT NULL THEN 'run_at: ' || noria.instant_fault(run_at)
        WHEN noria.instant_fault(expires_at) IS NOT NULL THEN 'expires_at: ' || noria.instant_fault(expires_at)
        WHEN NOT (timeout_s > 0 AND timeout_s <= 604800)
        THEN format('timeout_s: %s is not a number of seconds above 0 and at most 604800', timeout_s)
        WHEN NOT max_attempts BETWEEN 1 AND 1000
        THEN format('max_attempts: %s is not a whole number within 1…1000', max_attempts)
        WHEN json_typeof(metadata) <> 'object' THEN 'metadata: must be an object; got ' || json_typeof(metadata)
        WHEN octet_length(metadata::text) > 4096
        THEN format('metadata: %s bytes as JSON; at most 4096 are allowed', octet_length(metadata::text))
        WHEN noria.key_fault(tenant) IS NOT NULL THEN 'tenant: ' || noria.key_fault(tenant)
        WHEN octet_length(request_digest) <> 32
        THEN format('request_digest: %s bytes; a SHA-256 has 32', octet_length(request_digest))
    END;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'noria: ' || fault;
    END IF;

    IF idempotency_key IS NOT NULL THEN
        digest := coalesce(request_digest, sha256(convert_to('{' || concat_ws(',',
            '"actor_key":' || to_json(actor_key)::text,
            '"delay_s":' || delay_s::text,
            '"expires_at":' || noria.instant_json(expires_at),
            '"handler":' || to_json(handler)::text,
            '"limit_key":' || to_json(limit_key)::text,
            '"max_attempts":' || max_attempts::text,
            '"payload":' || noria.canonical(payload),
            '"prefers":' || to_json(nullif(prefers, '{}'))::text,
            '"priority":' || to_json(priority)::text,
            '"requires":' || to_json(nullif(requires, '{}'))::text,
            '"run_at":' || noria.instant_json(run_at),
            '"timeout_s":' || timeout_s::text) || '}', 'UTF8')));
    END IF;

    lane := array_position(ARRAY['high', 'medium', 'low'], coalesce(priority, known ->> 'priority')) - 1;
    tags := ARRAY(SELECT DISTINCT t.tag COLLATE "C" FROM unnest(requires) AS t(tag) ORDER BY 1);
    SELECT b.id INTO band
      FROM noria.band b
     WHERE b.handler = enqueue.handler AND b.lane = made.lane AND b.tenant = enqueue.tenant AND b.requires = made.tags
       AND b.keyed = (enqueue.actor_key IS NOT NULL);
    actor := noria.actor_id(tenant, coalesce(known ->> 'actor', handler), actor_key);
    limiter := noria.actor_id(tenant, handler, limit_key);
    due := coalesce(run_at, statement_timestamp() + coalesce(delay_s, 0) * interval '1 second');

    LOOP
        task_id := noria.new_task_id();
        seq := nextval('noria.task_seq');
        hashed := sha256(convert_to(coalesce(actor_key, idempotency_key, task_id::text), 'UTF8'));
        slot := (get_byte(hashed, 0) << 8 | get_byte(hashed, 1)) & 4095;
        INSERT INTO noria.task (id, seq, created_at, run_at, expires_at, timeout_s, band, max_attempts, slot, tenant,
                                idempotency_key, digest, actor_type, actor_key, limit_key, limiter, payload, prefers,
                                metadata, created_by, trace_context)
        VALUES (task_id, seq, statement_timestamp(), due, expires_at,
                coalesce(timeout_s, (known ->> 'timeout_s')::double precision), coalesce(band, 0),
                coalesce(max_attempts, (known ->> 'max_attempts')::integer), slot, tenant, idempotency_key, digest,
                CASE WHEN actor IS NOT NULL THEN coalesce(known ->> 'actor', handler) END, actor_key,
                limit_key, limiter, convert_to(payload::text, 'UTF8'), nullif(prefers, '{}'), metadata,
                'sql:' || session_user,
                CASE WHEN trace_context ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' THEN trace_context END)
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT t.id, t.digest INTO existing
          FROM noria.task t
         WHERE t.tenant = enqueue.tenant AND t.idempotency_key = enqueue.idempotency_key;
        IF existing.digest = digest THEN
            RETURN existing.id;
        ELSIF existing.id IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'NO001',
                MESSAGE = format('noria: idempotency_key: %L belongs to task %s, which was asked for differently',
                                 idempotency_key, existing.id);
        END IF;  -- what was in the way is gone again (retention)
    END LOOP;

    IF band IS NULL THEN
        INSERT INTO noria.unbanded (id, lane, keyed, handler, tenant, requires)
        VALUES (task_id, lane, actor IS NOT NULL, handler, tenant, tags);
    ELSE
        INSERT INTO noria.waiting (id, due, seq, expires_at, band, attempt, slot, actor, lane, limiter)
        VALUES (task_id, due, seq, expires_at, band, 1, slot, actor, CASE WHEN actor IS NOT NULL THEN lane END, limiter);
    END IF;
    RETURN task_id;
END
$body$;
REVOKE ALL ON FUNCTION noria_api.enqueue FROM PUBLIC;
