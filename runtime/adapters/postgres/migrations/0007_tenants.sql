-- Tenants to whom an operator gave another share than the usual one; all others have the weight 1.
CREATE TABLE noria.tenant (
    name       text PRIMARY KEY COLLATE "C",
    changed_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    weight     integer NOT NULL CHECK (weight BETWEEN 2 AND 100)
);
