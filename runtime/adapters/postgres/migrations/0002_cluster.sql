-- What a cluster agrees on: the present view, and every view that there was; and who is asked to drain.

ALTER TABLE noria.lease ADD COLUMN drain_requested_at timestamptz;  -- somebody asked this incarnation to drain

-- One row, from the start: proposing is an update of it under the condition that its number is one less.
CREATE TABLE noria.view (
    number bigint NOT NULL,
    id     smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    view   jsonb NOT NULL  -- as runtime.core.view.view_to_json writes it
) WITH (fillfactor = 50);
INSERT INTO noria.view (number, view) VALUES (0, '{"number": 0, "by": 0, "reason": "", "members": []}');

-- Written in the same statement as the view: it has no gap. The oldest are trimmed by whoever adds a new one.
CREATE TABLE noria.view_log (
    number bigint PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    view   jsonb NOT NULL
);
