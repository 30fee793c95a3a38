-- What a member tells of its work with each renewal, for people who watch (actors.load): it costs no statement of its own.
ALTER TABLE noria.lease ADD COLUMN load jsonb NOT NULL DEFAULT '{}';
