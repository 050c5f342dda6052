/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include "lib/store/sound.h"

#include <errno.h>

/*
 * Restore, snapshot and export
 *
 * The image of a moment is made in a scratch file, checked by SQLite, and copied into the object by
 * SQLite's own backup: one transaction of an ordinary connection, which the VFS captures like any
 * other.
 */

typedef struct Restore {
        Store *store;
        const char *name, *to_path;
        const char *to_file; /* of an export; NULL: a scratch file */
        Node *to_node;       /* held, so that it keeps its page size until it has a connection */
        Bookmark bookmark;
        bool has_bookmark, to_other;
        Image image;
} Restore;

static void close_db_p(sqlite3 **db)
{
        sqlite3_close(*db);
}

static void finalize_statement_p(sqlite3_stmt **statement)
{
        sqlite3_finalize(*statement);
}

static int map_result(const Restore *restore, sqlite3 *db, int rc)
{
        int r = db_map_result(db, rc);

        switch (r) {
        case 0:
        case -ENOMEM:
        case -EBUSY:
        case -ENOSPC:
                return r;
        case -EUCLEAN:
                return STORE_E_CHANGED;
        default:
                /* The rest is of no use to who asked, or says something else in store.h. */
                return store_get_failure(restore->store) ?: -EIO;
        }
}

static int say_changed(const Restore *restore, const char *what)
{
        store_log(restore->store, LOG_ERR,
                "%s: what is to be restored is no sound database, the file is damaged or was "
                "changed by another program: %s",
                restore->name, what);
        return STORE_E_CHANGED;
}

static int open_db(const Restore *restore, const char *path, int flags, sqlite3 **ret)
{
        _cleanup_(close_db_p) sqlite3 *db = NULL;
        int rc = sqlite3_open_v2(
                path, &db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, "durable");

        if (!db)
                return -ENOMEM;
        if (rc != SQLITE_OK)
                return map_result(restore, db, rc);
        /* The schema is a guest's. */
        sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
        *ret = TAKE_PTR(db);
        return 0;
}

/* A statement's first row: 0; -ENOENT when there is none. */
static int step_first(
        const Restore *restore, sqlite3 *db, const char *sql, const char *bind, sqlite3_stmt **ret)
{
        _cleanup_(finalize_statement_p) sqlite3_stmt *statement = NULL;
        int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

        if (rc == SQLITE_OK && bind)
                rc = sqlite3_bind_text(statement, 1, bind, -1, SQLITE_STATIC);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(statement);
        if (rc == SQLITE_DONE)
                return -ENOENT;
        if (rc == SQLITE_ROW && ret)
                *ret = TAKE_PTR(statement);
        return map_result(restore, db, rc);
}

typedef struct Fault {
        const Restore *restore;
        int r;
} Fault;

static void take_fault(const char *text, void *data)
{
        Fault *fault = data;
        int error = vfs_take_error();

        if (fault->r)
                return;
        if (error)
                store_log(fault->restore->store, LOG_ERR,
                        "%s: what is to be restored cannot be read to check it: %s",
                        fault->restore->name, strerror(-error));
        fault->r = error ?: say_changed(fault->restore, text);
}

static int check_image(const Restore *restore, sqlite3 *db)
{
        Fault fault = { .restore = restore };
        Sound sound = { .quick = true, .most = 1, .fault = take_fault, .data = &fault };
        int r;

        (void)vfs_take_error();
        r = map_result(restore, db, sound_check(&sound, db));
        if (!r && sound.unchecked[0])
                store_log(restore->store, LOG_NOTICE,
                        "%s: what needs functions or collations of the app is restored without a "
                        "check: %s",
                        restore->name, sound.unchecked);
        return r == STORE_E_CHANGED ? say_changed(restore, sqlite3_errmsg(db)) : r ?: fault.r;
}

#define HAS_METADATA "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_cf_METADATA'"

/* The name that the database goes by; NULL for none. */
static int read_name(const Restore *restore, sqlite3 *db, char **ret)
{
        _cleanup_(finalize_statement_p) sqlite3_stmt *statement = NULL;
        const char *text;
        int r = step_first(restore, db, HAS_METADATA, NULL, NULL);

        r = r
                    ?: step_first(restore, db, "SELECT value FROM _cf_METADATA WHERE key = 'name'",
                               NULL, &statement);
        if (r)
                return r == -ENOENT ? 0 : r;
        text = (const char *)sqlite3_column_text(statement, 0);
        *ret = text ? strdup(text) : NULL;
        return *ret || sqlite3_column_type(statement, 0) == SQLITE_NULL ? 0 : -ENOMEM;
}

/* Gives the image the destination's name in the place of its own. */
static int write_name(const Restore *restore, sqlite3 *db, const char *name)
{
        static const char create[] =
                "CREATE TABLE IF NOT EXISTS _cf_METADATA(key TEXT PRIMARY KEY, value)";
        int r = step_first(restore, db, HAS_METADATA, NULL, NULL);

        if (r == -ENOENT && !name)
                return 0;
        if (r == -ENOENT)
                r = step_first(restore, db, create, NULL, NULL);
        if (r == 0 || r == -ENOENT)
                r = step_first(
                        restore, db, "DELETE FROM _cf_METADATA WHERE key = 'name'", NULL, NULL);
        if (r == -ENOENT && name)
                r = step_first(restore, db,
                        "INSERT INTO _cf_METADATA(key, value) VALUES('name', ?)", name, NULL);
        return r == -ENOENT ? 0 : r;
}

/* A restore that a guest had asked for, and that this one is or takes the place of. */
static int drop_wish(const Restore *restore, sqlite3 *db)
{
        int r = step_first(restore, db, HAS_METADATA, NULL, NULL);

        r = r
                    ?: step_first(restore, db, "DELETE FROM _cf_METADATA WHERE key = 'restore'",
                               NULL, NULL);
        return r == -ENOENT ? 0 : r;
}

static int execute(const Restore *restore, sqlite3 *db, const char *sql)
{
        return map_result(restore, db, sqlite3_exec(db, sql, NULL, NULL, NULL));
}

/* What the host keeps in an object is the destination's own. */
static int set_metadata(const Restore *restore, sqlite3 *scratch, sqlite3 *to)
{
        _cleanup_(free_p) char *name = NULL;
        int r = restore->to_other ? read_name(restore, to, &name) : 0;

        r = r ?: execute(restore, scratch, "PRAGMA journal_mode = MEMORY");
        r = r ?: execute(restore, scratch, "BEGIN");
        r = r ?: drop_wish(restore, scratch);
        if (!r && restore->to_other)
                r = write_name(restore, scratch, name);
        return r ?: execute(restore, scratch, "COMMIT");
}

static int copy_all(const Restore *restore, sqlite3 *scratch, sqlite3 *to)
{
        sqlite3_backup *backup = sqlite3_backup_init(to, "main", scratch, "main");
        int rc, finished;

        if (!backup)
                return map_result(restore, to, sqlite3_errcode(to));
        rc = sqlite3_backup_step(backup, -1);
        /* Of a step that was busy it need not tell. */
        finished = sqlite3_backup_finish(backup);
        if (rc == SQLITE_DONE)
                rc = finished;
        if (rc == SQLITE_READONLY)
                return STORE_E_PAGE_SIZE;
        return map_result(restore, to, rc);
}

/* A database that is new takes the image's page size. */
static int adopt_page_size(Restore *restore)
{
        uint32_t page_size = restore->image.page_size;
        int r = node_open(restore->store, restore->to_path, true, &restore->to_node);
        Node *node = restore->to_node;

        if (r)
                return r;
        node_lock(node);
        if (node->is_new && !atomic_load(&node->captured) && !node_has_handles(node)) {
                node->page_size = page_size;
                node->size = page_size;
        }
        /* What is not in the file yet may have made it a database of another size. */
        if ((atomic_load(&node->captured) ? node->wal.page_size : node->page_size) != page_size)
                r = STORE_E_PAGE_SIZE;
        node_unlock(node);
        return r;
}

static int make_destination(Restore *restore)
{
        const char *slash = strrchr(restore->to_path, '/');
        _cleanup_(free_p) char *folder =
                slice_dup(slice_of(restore->to_path, (size_t)(slash - restore->to_path)));
        uint64_t size;
        int r = folder ? disk_stat_size(restore->store->disk, folder, &size) : -ENOMEM;

        if (r == -ENOENT)
                r = store_make_folder(restore->store->disk, folder);
        if (r && r != -EISDIR)
                return r;
        return adopt_page_size(restore);
}

/* The image is checked before the destination is touched. */
static int put_image(Restore *restore)
{
        _cleanup_(close_db_p) sqlite3 *scratch = NULL, *to = NULL;
        int r = open_db(restore, restore->image.path, SQLITE_OPEN_READWRITE, &scratch);

        r = r ?: check_image(restore, scratch);
        r = r ?: make_destination(restore);
        r = r
                    ?: open_db(restore, restore->to_path,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &to);
        r = r ?: set_metadata(restore, scratch, to);
        return r ?: copy_all(restore, scratch, to);
}

/* The present, and from there back; -EAGAIN: once more. */
static int find_moment(Restore *restore, const char *path)
{
        Image *image = &restore->image;
        int r = image_load(image, path);

        if (!restore->has_bookmark)
                return r;
        /* What is deleted now may have been there. */
        if (r == -ENOENT)
                r = 0;
        r = r ?: history_flush(restore->store, store_object_lsn(restore->store, path));
        return r ?: history_go_back(image, restore->name, restore->bookmark.lsn);
}

static int make_image(Restore *restore, const char *path)
{
        Image *image = &restore->image;
        int r = image_init(image, restore->store, restore->to_file);

        if (r)
                return r;
        r = -EAGAIN;
        for (int i = 0; i < HISTORY_TRIES && r == -EAGAIN; i++)
                r = find_moment(restore, path);
        if (r)
                return r == -EAGAIN ? -EUCLEAN : r;
        if (!image->exists)
                return STORE_E_ABSENT;
        r = image_finish(image);
        return r == STORE_E_CHANGED ? say_changed(restore, "it has no pages") : r;
}

static int prepare(Restore *restore, const char *path, const char *bookmark)
{
        Store *store = restore->store;
        Bookmark present;
        int r = 0;

        restore->name = history_get_name(store, path);
        if (!restore->name || !history_get_name(store, restore->to_path))
                return -EINVAL;
        restore->to_other = strcmp(path, restore->to_path) != 0;
        restore->has_bookmark = bookmark != NULL;
        if (!bookmark)
                return 0;
        r = bookmark_parse(bookmark, &restore->bookmark);
        if (r)
                return r;
        present = bookmark_of(restore->name, history_get_lsn(store, path));
        if (memcmp(present.object, restore->bookmark.object, sizeof present.object) != 0)
                return STORE_E_BOOKMARK;
        return restore->bookmark.lsn > present.lsn ? STORE_E_FUTURE : 0;
}

int store_restore(Store *store, const char *path, const char *bookmark, const char *to_path,
        char ret_undo[STORE_BOOKMARK_LEN + 1])
{
        Restore restore = { .store = store, .to_path = to_path };
        char undo[STORE_BOOKMARK_LEN + 1];
        bool any;
        int r = prepare(&restore, path, bookmark);

        r = r ?: store_get_bookmark(store, to_path, undo);
        if (r)
                return r;
        any = vfs_allow_any(true);
        r = make_image(&restore, path);
        r = r ?: put_image(&restore);
        vfs_allow_any(any);
        if (restore.to_node)
                node_unref(restore.to_node);
        image_done(&restore.image);
        if (!r)
                memcpy(ret_undo, undo, sizeof undo);
        return r;
}

int store_export(Store *store, const char *path, const char *to_file)
{
        _cleanup_(image_done_p) Image image = {};
        int r = history_get_name(store, path) ? image_init(&image, store, to_file) : -EINVAL;

        r = r ?: image_load(&image, path);
        r = r ?: image_finish(&image);
        return r == STORE_E_CHANGED ? -EUCLEAN : r;
}

/* A file that does not pass the check goes with the image. */
static int check_export(Restore *restore)
{
        _cleanup_(close_db_p) sqlite3 *db = NULL;
        int r = open_db(restore, restore->image.path, SQLITE_OPEN_READONLY, &db);

        r = r ?: check_image(restore, db);
        if (r)
                restore->image.is_kept = false;
        return r;
}

int store_export_past(Store *store, const char *path, const char *bookmark, const char *to_file)
{
        Restore restore = { .store = store, .to_path = path, .to_file = to_file };
        int r = prepare(&restore, path, bookmark);

        if (r)
                return r;
        r = make_image(&restore, path);
        r = r ?: check_export(&restore);
        image_done(&restore.image);
        return r;
}

static int read_page_size(Restore *restore)
{
        _cleanup_(close_db_p) sqlite3 *db = NULL;
        /* Behind its connection: it goes first. */
        _cleanup_(finalize_statement_p) sqlite3_stmt *statement = NULL;
        int r = open_db(restore, restore->image.path, SQLITE_OPEN_READWRITE, &db);

        r = r ?: step_first(restore, db, "PRAGMA page_size", NULL, &statement);
        if (!r)
                restore->image.page_size = (uint32_t)sqlite3_column_int(statement, 0);
        return r;
}

static int import_image(Restore *restore)
{
        int r = read_page_size(restore);

        return r ?: put_image(restore);
}

int store_import(
        Store *store, const char *file, const char *to_path, char ret_undo[STORE_BOOKMARK_LEN + 1])
{
        Restore restore = { .store = store,
                .name = history_get_name(store, to_path),
                .to_path = to_path,
                .to_other = true,
                .image = { .store = store, .path = (char *)(uintptr_t)file } };
        char undo[STORE_BOOKMARK_LEN + 1];
        bool any;
        int r = restore.name ? store_get_bookmark(store, to_path, undo) : -EINVAL;

        if (r)
                return r;
        any = vfs_allow_any(true);
        r = import_image(&restore);
        vfs_allow_any(any);
        if (restore.to_node)
                node_unref(restore.to_node);
        if (!r)
                memcpy(ret_undo, undo, sizeof undo);
        return r;
}
