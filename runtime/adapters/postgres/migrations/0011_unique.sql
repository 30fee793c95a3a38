-- Unique tasks: one row per unique id (runtime.core.unique), which is the lock of whoever accepts under it and names
-- the newest task that was. What that one does is looked up where tasks are; the row goes with it.
CREATE TABLE noria.unique_task (
    id         uuid PRIMARY KEY,
    task_id    uuid,  -- null only within the transaction that makes the row
    first_at   timestamptz,  -- since when something waits under this id without a break
    kept_until timestamptz  -- retention leaves the task alone until then
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX unique_task_of ON noria.unique_task (task_id);
