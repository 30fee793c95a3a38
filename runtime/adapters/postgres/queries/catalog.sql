-- Names that all nodes share.

-- name: lock_bands
-- Ids are committed in the order in which they were drawn: who reads "all after n" must never miss one.
LOCK TABLE noria.band IN SHARE ROW EXCLUSIVE MODE;

-- name: insert_bands
-- $1 handlers text[], $2 lanes smallint[], $3 tenants text[], $4 requires text[], $5 keyed boolean[]
INSERT INTO noria.band (handler, lane, tenant, requires, keyed)
SELECT k.handler, k.lane, k.tenant, k.requires::text[], k.keyed
  FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::boolean[])
       AS k(handler, lane, tenant, requires, keyed)
ON CONFLICT DO NOTHING;

-- name: find_bands
-- $1 handlers text[], $2 lanes smallint[], $3 tenants text[], $4 requires text[], $5 keyed boolean[]
SELECT b.id, b.handler, b.lane, b.tenant, b.requires, b.keyed
  FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::boolean[])
       AS k(handler, lane, tenant, requires, keyed)
  JOIN noria.band b ON b.handler = k.handler AND b.lane = k.lane AND b.tenant = k.tenant
                   AND b.requires = k.requires::text[] AND b.keyed = k.keyed;

-- name: bands
-- $1 after integer
SELECT id, handler, lane, tenant, requires, keyed FROM noria.band WHERE id > $1 ORDER BY id;

-- name: bands_of
-- $1 handler text, $2 tenant text, $3 not_lane smallint
-- Null means any.
SELECT id, tenant
  FROM noria.band
 WHERE ($1::text IS NULL OR handler = $1) AND ($2::text IS NULL OR tenant = $2)
   AND ($3::smallint IS NULL OR lane <> $3);

-- name: publish
-- $1 names text[], $2 digests text[], $3 schemas text[], $4 defaults text[], $5 sources text[], $6 docs text[]
-- Sorted by name. Paused stays paused; the same again writes nothing.
INSERT INTO noria.handler AS h (name, digest, schema, defaults, source, doc)
SELECT e.name, e.digest, e.schema::json, e.defaults::json, e.source, e.doc
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
       AS e(name, digest, schema, defaults, source, doc)
ON CONFLICT (name) DO UPDATE
   SET digest = excluded.digest, schema = excluded.schema, defaults = excluded.defaults, source = excluded.source,
       doc = excluded.doc, published_at = clock_timestamp()
 WHERE (h.digest, h.source, h.doc) IS DISTINCT FROM (excluded.digest, excluded.source, excluded.doc);

-- name: handlers
SELECT name, digest, schema, defaults, source, doc, paused_at IS NOT NULL AS paused FROM noria.handler ORDER BY name;

-- name: paused
SELECT name, false AS is_tenant FROM noria.handler WHERE paused_at IS NOT NULL
UNION ALL
SELECT name, true FROM noria.tenant_pause;

-- name: pause_tenant
-- $1 name text
-- The first pause's time stays.
INSERT INTO noria.tenant_pause (name) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: resume_tenant
-- $1 name text
DELETE FROM noria.tenant_pause WHERE name = $1;

-- name: tenant_weights
SELECT name, weight FROM noria.tenant ORDER BY name;

-- name: weigh_tenant
-- $1 name text, $2 weight integer
INSERT INTO noria.tenant (name, weight) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET weight = excluded.weight, changed_at = statement_timestamp();

-- name: weigh_tenant_as_usual
-- $1 name text
DELETE FROM noria.tenant WHERE name = $1;

-- name: set_paused
-- $1 name text, $2 paused boolean
UPDATE noria.handler
   SET paused_at = CASE WHEN $2 THEN coalesce(paused_at, clock_timestamp()) END
 WHERE name = $1
RETURNING name;
