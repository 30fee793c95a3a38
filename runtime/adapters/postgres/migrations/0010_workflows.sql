-- Tasks that wait for others. A blocked task is a waiting row that is due in the year 9999 and counts its open parents,
-- so that no pull and no claim sees it, while cancel, expiry and the order of its actor key do.

ALTER TABLE noria.task
    ADD COLUMN parents uuid[],  -- tasks it depends on, in the order that was asked for
    ADD COLUMN name text COLLATE "C",  -- within its workflow
    ADD COLUMN on_parent_failure smallint,  -- runtime.core.task.OnParentFailure
    ADD COLUMN awaited boolean;  -- tasks that were accepted with it depend on it
ALTER TABLE noria.waiting ADD COLUMN open_parents integer, ADD COLUMN awaited boolean;
ALTER TABLE noria.running ADD COLUMN awaited boolean;

-- Who depends on whom, until the child has ended: so long its parents are kept.
CREATE TABLE noria.dependence (
    parent uuid NOT NULL,
    child  uuid NOT NULL,
    done   boolean NOT NULL DEFAULT false,  -- the parent's end was counted
    PRIMARY KEY (parent, child)
) WITH (
    fillfactor = 80,  -- counted in place
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1
);

-- Ends that others wait for. Written by the statement that writes the outcome, and taken by whoever passes them on: in
-- a transaction of its own, which therefore sees every child that was inserted before the outcome was written.
CREATE TABLE noria.parent_end (
    seq    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id     uuid NOT NULL,
    status smallint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1
);
