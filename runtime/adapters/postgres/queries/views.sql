-- The agreed view, and the log of all views.

-- name: present_view
SELECT view FROM noria.view WHERE id = 1;

-- name: newer_view
-- $1 number bigint
SELECT view FROM noria.view WHERE id = 1 AND number > $1;

-- name: propose_view
-- $1 number bigint, $2 view text, $3 kept bigint
-- One row is the arbiter: who comes second waits for its lock, judges the row anew and finds another number. The log
-- is written by the same statement, so it has every view that was ever the present one.
WITH changed AS (
    UPDATE noria.view SET number = $1::bigint, view = ($2::text)::jsonb
     WHERE id = 1 AND number = $1::bigint - 1
    RETURNING number, view
), logged AS (
    INSERT INTO noria.view_log (number, view) SELECT number, view FROM changed
    RETURNING number
), trimmed AS (
    DELETE FROM noria.view_log l USING logged WHERE l.number <= logged.number - $3
)
SELECT number FROM logged;

-- name: logged_view
-- $1 number bigint
SELECT view FROM noria.view_log WHERE number = $1;

-- name: view_history
-- $1 most bigint
SELECT view FROM noria.view_log ORDER BY number DESC LIMIT $1;
