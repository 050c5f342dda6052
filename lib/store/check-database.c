/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/check-private.h"
#include "lib/store/journal-format.h"
#include "lib/store/sound.h"

#include <errno.h>
#include <stdio.h>

#include <sqlite3.h>

/*
 * A database: its header by our rules, its content by SQLite's own check, its name by the owner's
 */

#define HEADER_SIZE 100u
#define FAULTS_MAX 20
#define CACHE_KIB 8192

typedef struct Subject {
        Check *check;
        const char *path;
        sqlite3 *db;
} Subject;

static void close_db_p(sqlite3 **db)
{
        sqlite3_close_v2(*db);
}

static void finalize_p(sqlite3_stmt **statement)
{
        sqlite3_finalize(*statement);
}

static unsigned get_be16(const unsigned char *data)
{
        return (unsigned)data[0] << 8 | data[1];
}

/* 0: a database; 1: it was told what is wrong; else an errno. */
static int check_header(Check *check, const char *path, DiskFile *file, uint64_t size)
{
        unsigned char head[HEADER_SIZE];
        uint32_t page_size, n_pages;
        size_t got;
        int r = disk_read(file, head, sizeof head, 0, &got);

        if (r)
                return r;
        if (got < sizeof head || memcmp(head, "SQLite format 3", 16) != 0) {
                check_tell(check, CHECK_DAMAGE, "database-header", path, 0,
                        "no SQLite database: it does not begin with 'SQLite format 3'");
                return 1;
        }
        page_size = get_be16(head + 16) == 1 ? 65536 : get_be16(head + 16);
        if (page_size < 512 || page_size & (page_size - 1)) {
                check_tell(check, CHECK_DAMAGE, "database-header", path, 16,
                        "a page size of %u bytes: expected a power of two from 512 to 65536",
                        page_size);
                return 1;
        }
        if (head[18] != head[19] || head[18] < 1 || head[18] > 2) {
                check_tell(check, CHECK_DAMAGE, "database-header", path, 18,
                        "versions of the file format %u and %u: expected 2 and 2 (WAL) or 1 and 1",
                        head[18], head[19]);
                return 1;
        }
        /* Only then does SQLite believe it, too. */
        n_pages = memcmp(head + 24, head + 92, 4) == 0 ? get_be32(head + 28) : 0;
        if (size % page_size || (n_pages && size != (uint64_t)n_pages * page_size)) {
                check_tell(check, CHECK_DAMAGE, "database-size", path,
                        MIN(size, (uint64_t)n_pages * page_size),
                        "the file has %llu bytes; its header says %u pages of %u bytes",
                        (unsigned long long)size, n_pages, page_size);
                return size < (uint64_t)n_pages * page_size || size < page_size;
        }
        return 0;
}

static int tell_error(Subject *subject, const char *doing)
{
        int code = sqlite3_extended_errcode(subject->db);

        if ((code & 0xff) == SQLITE_NOMEM)
                return -ENOMEM;
        if ((code & 0xff) == SQLITE_IOERR)
                check_tell(subject->check, CHECK_DAMAGE, "database-corrupt", subject->path,
                        CHECK_NOWHERE, "it cannot be read: %s (%s)", sqlite3_errmsg(subject->db),
                        doing);
        else
                check_tell(subject->check, CHECK_DAMAGE, "database-corrupt", subject->path,
                        CHECK_NOWHERE, "%s: %s", doing, sqlite3_errmsg(subject->db));
        return 1;
}

static void take_fault(const char *text, void *data)
{
        const Subject *subject = data;

        check_tell(subject->check, CHECK_DAMAGE, "database-corrupt", subject->path, CHECK_NOWHERE,
                "%s", text);
}

static int check_content(Subject *subject)
{
        bool quick = subject->check->options.quick;
        Sound sound = { .quick = quick, .most = FAULTS_MAX, .fault = take_fault, .data = subject };
        int result = sound_check(&sound, subject->db);

        if (sound.unchecked[0])
                check_tell(subject->check, CHECK_ODD, "database-unchecked", subject->path,
                        CHECK_NOWHERE, "what needs it is not checked, nor are indexes: %s",
                        sound.unchecked);
        if (result != SQLITE_OK)
                return tell_error(subject, quick ? "quick_check" : "integrity_check");
        return sound.n_faults ? 1 : 0;
}

/* One value as text in the first row's only column; *ret_has when there is a row. */
static int ask(
        Subject *subject, const char *sql, char *out, size_t len, size_t *ret_len, bool *ret_has)
{
        _cleanup_(finalize_p) sqlite3_stmt *statement = NULL;
        int result = sqlite3_prepare_v2(subject->db, sql, -1, &statement, NULL);

        *ret_has = false;
        *ret_len = 0;
        if (result == SQLITE_OK)
                result = sqlite3_step(statement);
        if (result == SQLITE_ROW) {
                const void *data = sqlite3_column_blob(statement, 0);

                *ret_has = true;
                *ret_len = MIN((size_t)sqlite3_column_bytes(statement, 0), len);
                if (data)
                        memcpy(out, data, *ret_len);
                return 0;
        }
        return result == SQLITE_DONE ? 0 : tell_error(subject, "metadata");
}

static int check_name(Subject *subject, Slice name)
{
        const CheckOptions *options = &subject->check->options;
        Slice path = slice_from(subject->path);
        Slice key, shard, id;

        if (!options->name_fits)
                return 0;
        path = slice_skip(path, strlen(subject->check->objects) + 1);
        key = slice_cut(&path, '/');
        shard = slice_cut(&path, '/');
        id = slice_cut(&path, '.');
        if (!shard.len || options->name_fits(key, id, name, options->data))
                return 0;
        check_tell(subject->check, CHECK_DAMAGE, "database-name", subject->path, CHECK_NOWHERE,
                "it remembers the name '%.*s', which is another object's: the file was moved or "
                "copied here",
                (int)MIN(name.len, (size_t)200), name.data);
        return 1;
}

static int check_metadata(Subject *subject)
{
        char name[2048] = "";
        size_t len;
        bool has;
        int r;

        /* The daemon's own have none. */
        if (!slice_has_prefix(slice_from(subject->path), slice_from(subject->check->objects)))
                return 0;
        r = ask(subject, "SELECT count(*) FROM sqlite_schema WHERE name = '_cf_METADATA'", name,
                sizeof name, &len, &has);

        if (r)
                return r;
        if (has && len == 1 && name[0] == '0') {
                r = ask(subject, "SELECT 1 FROM sqlite_schema LIMIT 1", name, sizeof name, &len,
                        &has);
                if (!r && has)
                        check_tell(subject->check, CHECK_ODD, "database-metadata", subject->path,
                                CHECK_NOWHERE,
                                "it has tables, but no _cf_METADATA: durabled did not make it");
                return r;
        }
        r = ask(subject, "SELECT value FROM _cf_METADATA WHERE key = 'name'", name, sizeof name,
                &len, &has);
        return r || !has ? r : check_name(subject, slice_of(name, len));
}

static int open_db(Check *check, const char *path, sqlite3 **ret)
{
        int result = sqlite3_open_v2(path, ret,
                SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, CHECK_VFS);
        char pragma[40];

        if (!*ret)
                return -ENOMEM;
        if (result != SQLITE_OK)
                return result == SQLITE_NOMEM ? -ENOMEM : -EIO;
        /* The schema is a guest's. */
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        snprintf(pragma, sizeof pragma, "PRAGMA cache_size = -%d", CACHE_KIB);
        sqlite3_exec(*ret, pragma, NULL, NULL, NULL);
        return 0;
}

int check_database(Check *check, const char *path)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        _cleanup_(close_db_p) sqlite3 *db = NULL;
        Subject subject = { .check = check, .path = path };
        uint64_t size;
        int r = disk_open(check->disk, path, DISK_READ_ONLY, &file);

        r = r ?: disk_get_size(file, &size);
        if (r == -EIO || r == -EACCES || r == -ELOOP) {
                check_tell(check, CHECK_DAMAGE, "database-corrupt", path, CHECK_NOWHERE,
                        "it cannot be opened: %s", strerror(-r));
                return 0;
        }
        /* An object that was made and never acknowledged. */
        if (r || size == 0)
                return r;
        r = check_header(check, path, file, size);
        r = r ?: open_db(check, path, &db);
        subject.db = db;
        r = r ?: check_content(&subject);
        r = r ?: check_metadata(&subject);
        return r > 0 ? 0 : r;
}
