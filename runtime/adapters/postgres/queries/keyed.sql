-- Turns of keyed actors. The lock of a key is its row in noria.actor, held only while a turn begins and while it
-- commits; between the two, the turn's running rows say that it is under way.

-- name: mail
-- $1 after uuid, $2 limit bigint
-- One step of the index per lane of a key, however much waits there (IS NOT NULL, or the planner does not see that the
-- partial index serves a comparison of rows). What is busy, or has nothing that is due, is
-- told too: the caller goes on from the last key it was told of.
WITH RECURSIVE lanes AS (
    (SELECT w.actor, w.lane FROM noria.waiting w WHERE w.actor > $1 ORDER BY w.actor, w.lane LIMIT 1)
    UNION ALL
    SELECT n.actor, n.lane
      FROM lanes k
     CROSS JOIN LATERAL (SELECT w.actor, w.lane
                           FROM noria.waiting w
                          WHERE w.actor IS NOT NULL AND (w.actor, w.lane) > (k.actor, k.lane)
                          ORDER BY w.actor, w.lane
                          LIMIT 1) n
)
SELECT k.actor, k.lane, coalesce(h.slot, 0::smallint) AS slot, coalesce(h.band, 0) AS band,
       coalesce(a.state_version, 0) AS state_version,
       r.actor IS NOT NULL AS busy
  FROM (SELECT lanes.actor, lanes.lane FROM lanes LIMIT $2) k
  LEFT JOIN LATERAL (SELECT w.slot, w.band
                       FROM noria.waiting w
                      WHERE w.actor = k.actor AND w.lane = k.lane AND w.due <= statement_timestamp()
                      ORDER BY w.seq
                      LIMIT 1) h ON true
  LEFT JOIN noria.actor a ON a.id = k.actor
  LEFT JOIN LATERAL (SELECT running.actor FROM noria.running WHERE running.actor = k.actor LIMIT 1) r ON true
 ORDER BY k.actor, k.lane;

-- name: lock_actors
-- $1 ids uuid[]
-- Never waits: a key that somebody else holds is left to the next try.
SELECT a.id
  FROM unnest($1::uuid[]) AS i(id)
  JOIN noria.actor a ON a.id = i.id
 ORDER BY a.id
   FOR UPDATE OF a SKIP LOCKED;

-- name: make_actors
-- $1 ids uuid[]
-- The row of a key is made when its first turn begins, and is then ours until we commit.
INSERT INTO noria.actor (id, slot, tenant, type, key)
SELECT i.id, t.slot, t.tenant, t.actor_type, t.actor_key
  FROM unnest($1::uuid[]) AS i(id)
 CROSS JOIN LATERAL (SELECT w.id FROM noria.waiting w WHERE w.actor = i.id LIMIT 1) w
  JOIN noria.task t ON t.id = w.id
 WHERE NOT EXISTS (SELECT FROM noria.actor a WHERE a.id = i.id)
 ORDER BY i.id
    ON CONFLICT DO NOTHING
RETURNING id;

-- name: begin_turns
-- $1 actors uuid[], $2 limits integer[], $3 known bigint[], $4 loads integer[], $5 passes boolean[],
-- $6 bands integer[], $7 incarnation bigint, $8 alone boolean
-- Runs while the rows of these keys are locked, in a statement of its own: its snapshot must be younger than the
-- locks, or it would not see what the turn before has just put back. A message that may not run now (it waits for a
-- retry, is a suspect, or of a band that is not served here) holds up its lane, unless the class lets others pass; one
-- whose first due time is in the future does not. What a crash has met has a turn of its own, so that its neighbours
-- do not share the next one. Rows are locked in id order, and never skipped.
WITH free AS MATERIALIZED (
    SELECT a.id, a.version, a.state_version, a.version <> i.known AS tell, i.n, i.passes,
           nextval('noria.fence_seq') AS fence
      FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::integer[], $5::boolean[])
        AS i(id, n, known, loads, passes)
      JOIN noria.actor a ON a.id = i.id
     WHERE a.state_version <= i.loads
       AND NOT EXISTS (SELECT FROM noria.running r WHERE r.actor = i.id)
       AND EXISTS (SELECT FROM noria.lease l
                    WHERE l.incarnation = $7 AND l.state < 8 AND l.alive_until > statement_timestamp())
), mail AS MATERIALIZED (
    SELECT m.id, l.lane, f.id AS actor, f.fence, f.version, f.state_version, f.tell,
           bool_and(m.ready) OVER line AND (m.seq = min(m.seq) OVER line OR max(m.crashes) OVER line = 0) AS clear
      FROM free f
     CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS l(lane)
     CROSS JOIN LATERAL (
           SELECT w.id, w.seq, w.crashes, w.due <= statement_timestamp() AND w.band = ANY ($6) AS ready
             FROM noria.waiting w
            WHERE w.actor = f.id AND w.lane = l.lane
              AND (w.due <= statement_timestamp() OR w.reason <> 0)
              AND (NOT f.passes OR w.due <= statement_timestamp() AND w.band = ANY ($6))
            ORDER BY w.seq
            LIMIT f.n) m
    WINDOW line AS (PARTITION BY f.id, l.lane ORDER BY m.seq)
), clear AS MATERIALIZED (
    SELECT m.*, min(m.lane) OVER (PARTITION BY m.actor) AS first FROM mail m WHERE m.clear
), held AS MATERIALIZED (
    SELECT w.id, c.fence, c.version, c.state_version, c.tell
      FROM clear c
      JOIN noria.waiting w ON w.id = c.id
     WHERE c.lane = c.first
     ORDER BY w.id
       FOR UPDATE OF w
), moved AS (
    DELETE FROM noria.waiting w USING held h WHERE w.id = h.id
    RETURNING w.id, w.due, w.seq, w.expires_at, w.band, w.attempt, w.failures, w.crashes, w.slot, w.actor, w.lane,
              w.awaited, h.fence, h.version, h.state_version, h.tell
), begun AS (
    INSERT INTO noria.running (id, incarnation, seq, started_at, expires_at, band, attempt, failures, crashes, slot,
                               alone, actor, lane, awaited)
    SELECT id, $7, seq, statement_timestamp(), expires_at, abs(band), attempt, failures, crashes, slot, $8, actor, lane,
           awaited
      FROM moved
), counted AS (
    SELECT m.*, row_number() OVER (PARTITION BY m.actor ORDER BY m.seq) AS nth FROM moved m
)
SELECT m.id, m.attempt, abs(m.band) AS band, m.slot, m.seq, m.failures, m.crashes, t.payload, t.payload_codec,
       t.max_attempts, t.timeout_s, statement_timestamp() AS started_at,
       extract(epoch FROM statement_timestamp() - m.due)::double precision AS waited_s, t.created_at,
       t.idempotency_key, t.actor_key, t.metadata, t.trace_context, t.created_by,
       coalesce(m.expires_at <= statement_timestamp(), false) AS expired, $8::boolean AS alone,
       t.workflow_id, t.parents, m.actor, m.fence, m.version, m.state_version,
       CASE WHEN m.nth = 1 AND m.tell THEN (SELECT a.state FROM noria.actor a WHERE a.id = m.actor) END AS state
  FROM counted m
  JOIN noria.task t ON t.id = m.id
 ORDER BY m.actor, m.seq;

-- name: write_states
-- $1 actors uuid[], $2 versions bigint[], $3 states bytea[], $4 state_versions integer[]
-- The fence of a key: who worked from an older state writes nothing. Before the outcomes, in the same transaction.
WITH held AS MATERIALIZED (
    SELECT i.*
      FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::integer[]) AS i(id, version, state, state_version)
      JOIN noria.actor a ON a.id = i.id
     WHERE a.version = i.version
     ORDER BY a.id
       FOR UPDATE OF a
)
UPDATE noria.actor a
   SET version = a.version + 1, state = h.state, state_version = h.state_version, changed_at = statement_timestamp()
  FROM held h
 WHERE a.id = h.id
RETURNING a.id;

-- name: adopt
-- $1 limit bigint
-- Messages that a node of a version without keyed actors has put back into the order of their keys.
WITH stray AS MATERIALIZED (
    SELECT w.id, noria.actor_id(t.tenant, t.actor_type, t.actor_key) AS actor, b.lane
      FROM noria.waiting w
      JOIN noria.band b ON b.id = abs(w.band)
      JOIN noria.task t ON t.id = w.id
     WHERE w.actor IS NULL AND b.keyed AND t.actor_type IS NOT NULL AND t.actor_key IS NOT NULL
     ORDER BY w.id
     LIMIT $1
       FOR UPDATE OF w SKIP LOCKED
)
UPDATE noria.waiting w SET actor = s.actor, lane = s.lane FROM stray s WHERE w.id = s.id
RETURNING w.id;
