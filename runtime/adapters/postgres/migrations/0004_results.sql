-- One row, made here and never changed: what lies outside of this database (large results) is kept under this id, so
-- that two databases whose nodes share a bucket never take the other's objects for their own orphans.
CREATE TABLE noria.record (
    id  uuid NOT NULL DEFAULT gen_random_uuid(),
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
INSERT INTO noria.record DEFAULT VALUES;
