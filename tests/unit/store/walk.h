/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Going back over an object's records, as journal-format.h says that it can be done
 */

#include "lib/store/journal-format.h"
#include "tests/unit/store/world.h"

typedef struct Content {
        unsigned char *data;
        size_t size;
} Content;

/* What SQLite sees of the database. */
Content content_of(sqlite3 *db);
void content_free(Content *content);
/* Fails the test with the first page that differs. */
void content_check(const Content *is, const Content *want, uint64_t lsn);

/* What an object was after each of its commits. */
typedef struct Noted {
        uint64_t lsn;
        Content content;
} Noted;

typedef struct Notes {
        Noted commits[2000];
        size_t n;
} Notes;

/* Of what the object is now, once for each commit. */
void notes_take(Notes *notes, World *world, const char *name, sqlite3 *db);
void notes_forget(Notes *notes, size_t kept);
/* A number below limit, of the world's seed. */
unsigned world_draw(World *world, unsigned limit);

typedef struct Walk {
        Record *records; /* of one object, the oldest first; payloads are copies */
        size_t n, room;
        bool is_absent; /* gone back before CREATE */
} Walk;

void walk_done(Walk *walk);
void walk_add(Walk *walk, const Record *record);
/* The records that are in the segments' files now, of the epoch that is. */
void walk_read_journal(World *world, const char *name, Walk *walk);

/* The pages before of a record with flag SPILL: calls fn for each. */
typedef void (*PastFn)(uint32_t number, const unsigned char *page, void *data);
typedef void (*ReadPastFn)(World *world, const Record *record, PastFn fn, void *data);
void walk_read_spill(World *world, const Record *record, PastFn fn, void *data);
/* Makes the content what it was after LSN `lsn`: takes back the records beyond it. */
void walk_back(World *world, Walk *walk, uint64_t lsn, Content *content, ReadPastFn read_past);
