/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/db.h"

#include "lib/base/file.h"
#include "lib/store/store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <sqlite3.h>

#define BUSY_TIMEOUT_MS 5000
#define FOLDER_MODE 0750

struct Db {
        sqlite3 *handle;
};

static int map_cannot_open(sqlite3 *handle)
{
        int code = sqlite3_system_errno(handle);

        return code > 0 ? -code : -EIO;
}

int db_map_result(sqlite3 *handle, int result)
{
        if (result == SQLITE_IOERR_NOMEM)
                return -ENOMEM;
        switch (result & 0xff) {
        case SQLITE_OK:
        case SQLITE_ROW:
        case SQLITE_DONE:
                return 0;
        case SQLITE_NOMEM:
                return -ENOMEM;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return -EBUSY;
        case SQLITE_FULL:
                return -ENOSPC;
        case SQLITE_CONSTRAINT:
                return -EEXIST;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return -EUCLEAN;
        case SQLITE_READONLY:
                return -EROFS;
        case SQLITE_PERM:
        case SQLITE_AUTH:
                return -EACCES;
        case SQLITE_TOOBIG:
                return -EFBIG;
        case SQLITE_INTERRUPT:
                return -EINTR;
        case SQLITE_CANTOPEN:
                return map_cannot_open(handle);
        case SQLITE_ERROR:
        case SQLITE_MISUSE:
        case SQLITE_RANGE:
        case SQLITE_MISMATCH:
                return -EINVAL;
        default:
                return -EIO;
        }
}

static int map_error(const Db *db, int result)
{
        return db_map_result(db->handle, result);
}

char *db_object_path(const char *objects, const char *unique_key, const char *id_text)
{
        char *path;

        if (asprintf(&path, "%s/%s/%.2s/%s.sqlite", objects, unique_key, id_text, id_text) < 0)
                return NULL;
        return path;
}

/* The folder that holds path, malloc'd; NULL when memory is out. */
static char *parent_of(const char *path)
{
        const char *slash = strrchr(path, '/');

        if (!slash)
                return strdup(".");
        return slice_dup(slice_of(path, slash == path ? 1 : (size_t)(slash - path)));
}

static int sync_folder(const char *path)
{
        _cleanup_(close_p) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        return fsync(fd) ? -errno : 0;
}

/* Creates a folder and its missing parents, and syncs the parent of each that it creates. */
static int create_folder(const char *path)
{
        _cleanup_(free_p) char *parent = NULL;
        int r;

        if (mkdir(path, FOLDER_MODE)) {
                if (errno == EEXIST)
                        return 0;
                if (errno != ENOENT)
                        return -errno;
        }
        parent = parent_of(path);
        if (!parent)
                return -ENOMEM;
        if (access(path, F_OK)) {
                r = strcmp(parent, path) == 0 ? -ENOENT : create_folder(parent);
                if (r)
                        return r;
                if (mkdir(path, FOLDER_MODE) && errno != EEXIST)
                        return -errno;
        }
        return sync_folder(parent);
}

static int create_parent(const char *path)
{
        _cleanup_(free_p) char *parent = parent_of(path);

        return parent ? create_folder(parent) : -ENOMEM;
}

static int get_column(sqlite3_stmt *statement, int i, DbValue *ret)
{
        int type = sqlite3_column_type(statement, i);
        const void *data = NULL;

        switch (type) {
        case SQLITE_NULL:
                *ret = (DbValue){ .type = DB_NULL };
                return 0;
        case SQLITE_INTEGER:
                *ret = DB_INT(sqlite3_column_int64(statement, i));
                return 0;
        default:
                /* A float becomes text here. */
                data = type == SQLITE_BLOB ? sqlite3_column_blob(statement, i)
                                           : sqlite3_column_text(statement, i);
        }
        *ret = (DbValue){
                .type = type == SQLITE_BLOB ? DB_BLOB : DB_TEXT,
                .bytes = slice_of(data ?: "", (size_t)sqlite3_column_bytes(statement, i)),
        };
        return !data && ret->bytes.len ? -ENOMEM : 0;
}

/* Steps through a statement; its rows go to fn where there is one. */
static int step_all(Db *db, sqlite3_stmt *statement, DbRowFn fn, void *data)
{
        size_t n = (size_t)sqlite3_column_count(statement);
        _cleanup_(free_p) DbValue *values = calloc(n + 1, sizeof *values);
        int result, r = 0;

        if (!values)
                return -ENOMEM;
        while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
                for (size_t i = 0; fn && i < n && !r; i++)
                        r = get_column(statement, (int)i, &values[i]);
                if (fn && !r)
                        r = fn(values, n, data);
                if (r)
                        return r;
        }
        return map_error(db, result);
}

static int bind_all(Db *db, sqlite3_stmt *statement, const DbValue *values, size_t n)
{
        int result = SQLITE_OK;

        if ((size_t)sqlite3_bind_parameter_count(statement) != n)
                return -EINVAL;
        for (size_t i = 0; i < n && result == SQLITE_OK; i++) {
                Slice bytes = values[i].bytes;
                int at = (int)i + 1;

                /* SQLite takes a NULL pointer for an SQL NULL, whatever its length. */
                if (!bytes.data)
                        bytes.data = "";
                switch (values[i].type) {
                case DB_NULL:
                        result = sqlite3_bind_null(statement, at);
                        break;
                case DB_INTEGER:
                        result = sqlite3_bind_int64(statement, at, values[i].integer);
                        break;
                case DB_TEXT:
                        result = sqlite3_bind_text64(
                                statement, at, bytes.data, bytes.len, SQLITE_STATIC, SQLITE_UTF8);
                        break;
                case DB_BLOB:
                        result = sqlite3_bind_blob64(
                                statement, at, bytes.data, bytes.len, SQLITE_STATIC);
                        break;
                }
        }
        return map_error(db, result);
}

static void finalize_p(sqlite3_stmt **statement)
{
        /* Its error was step's error, which has been taken. */
        sqlite3_finalize(*statement);
}

static bool is_only_space(const char *sql)
{
        return sql[strspn(sql, " \t\r\n;")] == '\0';
}

int db_run(Db *db, const char *sql, const DbValue *values, size_t n, DbRowFn fn, void *data)
{
        _cleanup_(finalize_p) sqlite3_stmt *statement = NULL;
        const char *tail;
        int r;

        r = map_error(db, sqlite3_prepare_v2(db->handle, sql, -1, &statement, &tail));
        if (r)
                return r;
        if (!statement || !is_only_space(tail))
                return -EINVAL;
        r = bind_all(db, statement, values, n);
        return r ?: step_all(db, statement, fn, data);
}

static int execute(Db *db, const char *sql)
{
        return map_error(db, sqlite3_exec(db->handle, sql, NULL, NULL, NULL));
}

int db_begin(Db *db)
{
        return execute(db, "BEGIN IMMEDIATE");
}

int db_commit(Db *db)
{
        return execute(db, "COMMIT");
}

void db_rollback(Db *db)
{
        /* Some errors have rolled it back already; what fails here leaves it for db_close(). */
        if (!sqlite3_get_autocommit(db->handle))
                execute(db, "ROLLBACK");
}

const char *db_get_error(const Db *db)
{
        return sqlite3_errmsg(db->handle);
}

Db *db_close(Db *db)
{
        db_rollback(db);
        /* Statements are finalized where they are made, so nothing can hold it open. */
        sqlite3_close_v2(db->handle);
        free(db);
        return NULL;
}

static int open_handle(const char *path, Db **ret)
{
        _cleanup_(db_close_p) Db *db = calloc(1, sizeof *db);
        int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                    SQLITE_OPEN_EXRESCODE;
        int r;

        if (!db)
                return -ENOMEM;
        r = sqlite3_open_v2(path, &db->handle, flags, NULL);
        if (!db->handle) {
                free(TAKE_PTR(db));
                return -ENOMEM;
        }
        r = map_error(db, r);
        if (r)
                return r;
        sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
        /* The schema is a guest's: its triggers and views must not reach what can do harm. */
        sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        *ret = TAKE_PTR(db);
        return 0;
}

static int check_mode(const DbValue *values, size_t n, void *data)
{
        return n == 1 && slice_equal(values[0].bytes, SLICE("wal")) ? 0 : -ENOTSUP;
}

/* The page size counts for a file that is still empty alone. */
static int set_mode(Db *db)
{
        int r = execute(db, "PRAGMA page_size = 4096");

        r = r ?: db_run(db, "PRAGMA journal_mode = WAL", NULL, 0, check_mode, NULL);
        return r ?: execute(db, "PRAGMA synchronous = FULL");
}

typedef struct Metadata {
        bool exists, has_name, differs;
        Slice name;
} Metadata;

static int see_table(const DbValue *values, size_t n, void *data)
{
        ((Metadata *)data)->exists = true;
        return 0;
}

static int see_name(const DbValue *values, size_t n, void *data)
{
        Metadata *metadata = data;

        metadata->has_name = true;
        metadata->differs = !slice_equal(values[0].bytes, metadata->name);
        return 0;
}

static int read_metadata(Db *db, Slice name, Metadata *ret)
{
        Metadata metadata = { .name = name };
        int r = db_run(db,
                "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_cf_METADATA'", NULL,
                0, see_table, &metadata);

        if (!r && metadata.exists)
                r = db_run(db, "SELECT value FROM _cf_METADATA WHERE key = 'name'", NULL, 0,
                        see_name, &metadata);
        if (!r)
                *ret = metadata;
        return r;
}

static int write_metadata(Db *db, Slice name)
{
        DbValue value = DB_STR(name);
        int r = db_begin(db);

        if (r)
                return r;
        r = execute(db, "CREATE TABLE IF NOT EXISTS _cf_METADATA(key TEXT PRIMARY KEY, value)");
        if (!r && name.len)
                r = db_run(db, "INSERT INTO _cf_METADATA(key, value) VALUES('name', ?)", &value, 1,
                        NULL, NULL);
        r = r ?: db_commit(db);
        if (r)
                db_rollback(db);
        return r;
}

static int prepare_object(Db *db, Slice name)
{
        Metadata metadata;
        int r = set_mode(db);

        r = r ?: read_metadata(db, name, &metadata);
        if (r)
                return r;
        if (metadata.exists && (metadata.has_name || name.len == 0))
                return name.len && metadata.differs ? -EUCLEAN : 0;
        return write_metadata(db, name);
}

typedef struct Text {
        char *to;
        size_t size;
} Text;

static int take_text(const DbValue *values, size_t n, void *data)
{
        const Text *text = data;
        Slice bytes = values[0].bytes;

        if (values[0].type == DB_TEXT && bytes.len < text->size) {
                memcpy(text->to, bytes.data, bytes.len);
                text->to[bytes.len] = '\0';
        }
        return 0;
}

int db_read_metadata(Db *db, const char *key, char *ret, size_t size)
{
        DbValue value = DB_STR(slice_from(key));

        ret[0] = '\0';
        return db_run(db, "SELECT value FROM _cf_METADATA WHERE key = ?", &value, 1, take_text,
                &(Text){ ret, size });
}

static void remove_file(const char *path)
{
        static const char *const suffixes[] = { "-wal", "-shm", "-journal" };

        unlink(path);
        for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) {
                _cleanup_(free_p) char *beside = NULL;

                if (asprintf(&beside, "%s%s", path, suffixes[i]) < 0)
                        beside = NULL;
                else
                        unlink(beside);
        }
}

int db_open_object(const char *path, Slice name, Db **ret)
{
        Db *db = NULL;
        bool created;
        int r = vfs_check_folders(path);

        r = r ?: create_parent(path);
        if (r)
                return r;
        created = access(path, F_OK) && errno == ENOENT;
        r = open_handle(path, &db);
        r = r ?: prepare_object(db, name);
        if (r) {
                if (db)
                        db_close(db);
                /* On the VFS "durable" what to remove is the engine's to know. */
                if (created && !sqlite3_vfs_find("durable"))
                        remove_file(path);
                return r;
        }
        *ret = db;
        return 0;
}

static int take_version(const DbValue *values, size_t n, void *data)
{
        *(int64_t *)data = values[0].integer;
        return 0;
}

/* One script and the number of the version that it leads to, or neither. */
static int migrate_once(Db *db, const char *script, size_t version)
{
        char pragma[64];
        int r = db_begin(db);

        if (r)
                return r;
        snprintf(pragma, sizeof pragma, "PRAGMA user_version = %zu", version);
        r = execute(db, script);
        r = r ?: execute(db, pragma);
        r = r ?: db_commit(db);
        if (r)
                db_rollback(db);
        return r;
}

int db_open_own(const char *path, const char *const *scripts, size_t n_scripts, Db **ret)
{
        _cleanup_(db_close_p) Db *db = NULL;
        int64_t version = 0;
        int r = create_parent(path);

        r = r ?: open_handle(path, &db);
        r = r ?: db_run(db, "PRAGMA user_version", NULL, 0, take_version, &version);
        if (!r && (version < 0 || (uint64_t)version > n_scripts))
                r = -ENOTSUP;
        r = r ?: set_mode(db);
        r = r ?: execute(db, "PRAGMA foreign_keys = ON");
        for (size_t i = (size_t)version; !r && i < n_scripts; i++)
                r = migrate_once(db, scripts[i], i + 1);
        if (r)
                return r;
        *ret = TAKE_PTR(db);
        return 0;
}
