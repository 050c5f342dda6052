-- SPDX-License-Identifier: Apache-2.0
-- The catalog's first schema: apps, their classes and the migrations that have been played.

CREATE TABLE apps(
        name TEXT PRIMARY KEY,
        created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

-- A row is never deleted: its unique_key names a folder of objects and is never given again.
CREATE TABLE classes(
        id INTEGER PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps(name),
        class_name TEXT NOT NULL,
        unique_key TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'deleted')),
        created_at INTEGER NOT NULL DEFAULT (unixepoch()),
        deleted_at INTEGER
) STRICT;

CREATE UNIQUE INDEX classes_live ON classes(app, class_name) WHERE state = 'live';

-- steps: one line for each, sorted; a tag that comes again must say the same.
CREATE TABLE migrations(
        app TEXT NOT NULL REFERENCES apps(name),
        position INTEGER NOT NULL,
        tag TEXT NOT NULL,
        steps TEXT NOT NULL,
        played_at INTEGER NOT NULL DEFAULT (unixepoch()),
        PRIMARY KEY (app, position),
        UNIQUE (app, tag)
) STRICT;
