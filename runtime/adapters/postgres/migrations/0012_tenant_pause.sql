-- Tenants of which nothing is started until somebody resumes them.
CREATE TABLE noria.tenant_pause (
    name      text PRIMARY KEY COLLATE "C",
    paused_at timestamptz NOT NULL DEFAULT statement_timestamp()
);
