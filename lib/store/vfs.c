/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include <errno.h>

/*
 * The VFS "durable": SQLite's default while a Store is open
 *
 * A file below the objects folder, by its plain path, is an object's; a restore's scratch file is a
 * plain file on the Store's disk; all else falls through to the unix VFS.
 */

#define PATH_MAX_BYTES 2048
#define UNIX_EPOCH_MS INT64_C(210866760000000) /* of the Julian day, in ms */

static sqlite3_vfs *root;
static _Thread_local char current[PATH_MAX_BYTES];
static _Thread_local bool refused, broken;
static _Thread_local int disk_error; /* see vfs_take_error() */
static _Thread_local int open_error; /* errno of the last open of a file of ours */
static Store *_Atomic open_store;    /* the one that the VFS is registered for */
static _Thread_local bool any_allowed;

static Store *get_store(sqlite3_vfs *vfs)
{
        return vfs->pAppData;
}

static bool is_plain(const char *path)
{
        return !strstr(path, "//") && !strstr(path, "/./") && !strstr(path, "/../");
}

static bool is_ours(sqlite3_vfs *vfs, const char *path)
{
        Store *store = get_store(vfs);

        return path && strncmp(path, store->objects_path, store->objects_len) == 0 &&
               path[store->objects_len] == '/' && path[store->objects_len + 1] &&
               strlen(path) < PATH_MAX_BYTES && is_plain(path);
}

int store_set_current(Store *store, const char *path)
{
        if (path && strlen(path) >= sizeof current)
                return -ENAMETOOLONG;
        snprintf(current, sizeof current, "%s", path ? path : "");
        refused = broken = false;
        return 0;
}

bool store_was_refused(void)
{
        return refused;
}

bool store_was_broken(void)
{
        return broken;
}

int vfs_take_error(void)
{
        int error = disk_error;

        disk_error = 0;
        return error;
}

int vfs_map_error(int error, int otherwise)
{
        switch (error) {
        case 0:
                return SQLITE_OK;
        case -ENOMEM:
                return SQLITE_IOERR_NOMEM;
        case -ENOSPC:
        case -EDQUOT:
        case -EFBIG:
                refused = true;
                return SQLITE_FULL;
        default:
                broken = true;
                disk_error = error;
                return otherwise;
        }
}

bool vfs_allow_any(bool allow)
{
        bool before = any_allowed;

        any_allowed = allow;
        return before;
}

static int open_main(sqlite3_vfs *vfs, const char *path, DurableFile *file, int flags)
{
        Store *store = get_store(vfs);
        Node *node;
        int r;

        if (current[0] && !any_allowed && strcmp(current, path) != 0) {
                store_log(store, LOG_WARNING, "%s: refused to an event of %s",
                        path + store->objects_len + 1, current + store->objects_len + 1);
                return SQLITE_CANTOPEN;
        }
        r = node_open_handle(store, path, flags & SQLITE_OPEN_CREATE, &node);
        open_error = -r;
        if (r == -EAGAIN)
                return SQLITE_BUSY;
        if (r && r != -ENOSPC && r != -ENOMEM && r != -ENOENT)
                store_complain(store, path, "cannot be opened: %s", strerror(-r));
        if (r)
                return vfs_map_error(r, SQLITE_CANTOPEN);
        *file = (DurableFile){ .base.pMethods = &durable_main_methods, .node = node };
        return SQLITE_OK;
}

static int open_wal(sqlite3_vfs *vfs, const char *path, DurableFile *file)
{
        char main_path[PATH_MAX_BYTES];
        size_t len = strlen(path);
        Node *node;

        if (len < 4 || strcmp(path + len - 4, "-wal") != 0)
                return SQLITE_CANTOPEN;
        snprintf(main_path, sizeof main_path, "%.*s", (int)(len - 4), path);
        node = node_find(get_store(vfs), main_path);
        if (!node)
                return SQLITE_CANTOPEN;
        *file = (DurableFile){ .base.pMethods = &durable_wal_methods, .node = node };
        return SQLITE_OK;
}

static int open_scratch(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags)
{
        int r;

        if (!(flags & SQLITE_OPEN_MAIN_DB))
                return SQLITE_CANTOPEN;
        r = vfs_open_scratch(get_store(vfs), path, file);
        open_error = -r;
        return vfs_map_error(r, SQLITE_CANTOPEN);
}

static int durable_open(
        sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *ret_flags)
{
        bool is_scratch = vfs_is_scratch(get_store(vfs), path);
        int rc;

        open_error = 0;
        if (!is_scratch && !is_ours(vfs, path))
                return root->xOpen(root, path, file, flags, ret_flags);
        file->pMethods = NULL;
        if (is_scratch)
                rc = open_scratch(vfs, path, file, flags);
        else if (flags & SQLITE_OPEN_MAIN_DB)
                rc = open_main(vfs, path, (DurableFile *)file, flags);
        else if (flags & SQLITE_OPEN_WAL)
                rc = open_wal(vfs, path, (DurableFile *)file);
        else
                rc = SQLITE_CANTOPEN;
        if (rc == SQLITE_OK && ret_flags)
                *ret_flags = flags;
        return rc;
}

/* Of our files SQLite removes a log or a rollback journal alone, and neither is there. */
static int durable_delete(sqlite3_vfs *vfs, const char *path, int sync_folder)
{
        if (is_ours(vfs, path) || vfs_is_scratch(get_store(vfs), path))
                return SQLITE_OK;
        return root->xDelete(root, path, sync_folder);
}

static bool has_suffix(const char *path, const char *suffix)
{
        return slice_has_suffix(slice_from(path), slice_from(suffix));
}

static int durable_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
        uint64_t size;

        if (!is_ours(vfs, path) && !vfs_is_scratch(get_store(vfs), path))
                return root->xAccess(root, path, flags, ret);
        *ret = !has_suffix(path, "-wal") && !has_suffix(path, "-journal") &&
               disk_stat_size(get_store(vfs)->disk, path, &size) == 0;
        return SQLITE_OK;
}

static int durable_full_path(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
        if (!is_ours(vfs, path) && !vfs_is_scratch(get_store(vfs), path))
                return root->xFullPathname(root, path, n, out);
        if (snprintf(out, (size_t)n, "%s", path) >= n)
                return SQLITE_CANTOPEN;
        return SQLITE_OK;
}

static void *durable_dl_open(sqlite3_vfs *vfs, const char *path)
{
        return root->xDlOpen(root, path);
}

static void durable_dl_error(sqlite3_vfs *vfs, int n, char *out)
{
        root->xDlError(root, n, out);
}

static void (*durable_dl_sym(sqlite3_vfs *vfs, void *library, const char *symbol))(void)
{
        return root->xDlSym(root, library, symbol);
}

static void durable_dl_close(sqlite3_vfs *vfs, void *library)
{
        root->xDlClose(root, library);
}

static int durable_random(sqlite3_vfs *vfs, int n, char *out)
{
        disk_random(get_store(vfs)->disk, out, (size_t)n);
        return n;
}

static int durable_sleep(sqlite3_vfs *vfs, int us)
{
        return root->xSleep(root, us);
}

static int durable_time(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
        uint64_t now = disk_clock_realtime(get_store(vfs)->disk);

        *ret = UNIX_EPOCH_MS + (sqlite3_int64)(now / 1000000);
        return SQLITE_OK;
}

static int durable_time_days(sqlite3_vfs *vfs, double *ret)
{
        sqlite3_int64 ms;

        durable_time(vfs, &ms);
        *ret = (double)ms / 86400000.0;
        return SQLITE_OK;
}

static int durable_last_error(sqlite3_vfs *vfs, int n, char *out)
{
        return open_error ?: root->xGetLastError(root, n, out);
}

static sqlite3_vfs durable_vfs = {
        .iVersion = 2,
        .mxPathname = PATH_MAX_BYTES,
        .zName = "durable",
        .xOpen = durable_open,
        .xDelete = durable_delete,
        .xAccess = durable_access,
        .xFullPathname = durable_full_path,
        .xDlOpen = durable_dl_open,
        .xDlError = durable_dl_error,
        .xDlSym = durable_dl_sym,
        .xDlClose = durable_dl_close,
        .xRandomness = durable_random,
        .xSleep = durable_sleep,
        .xCurrentTime = durable_time_days,
        .xGetLastError = durable_last_error,
        .xCurrentTimeInt64 = durable_time,
};

/* VACUUM attaches a temporary file, whose name is empty. */
static int authorize(
        void *data, int action, const char *name, const char *b, const char *c, const char *d)
{
        if (action != SQLITE_ATTACH)
                return SQLITE_OK;
        return name && (name[0] == '\0' || strcmp(name, ":memory:") == 0) ? SQLITE_OK : SQLITE_DENY;
}

/* Runs at the end of each open of a connection in the process. */
static int guard(sqlite3 *db, char **ret_error, const struct sqlite3_api_routines *api)
{
        sqlite3_file *file = NULL;

        sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        if (!file || file->pMethods != &durable_main_methods)
                return SQLITE_OK;
        sqlite3_set_authorizer(db, authorize, NULL);
        sqlite3_wal_autocheckpoint(db, 0);
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        return SQLITE_OK;
}

/* SQLite tells of damage by this alone where a guest keeps the error to itself. */
static void on_sqlite_log(void *data, int code, const char *message)
{
        Store *store = atomic_load(&open_store);

        if (!store || !current[0] ||
                ((code & 0xff) != SQLITE_CORRUPT && (code & 0xff) != SQLITE_NOTADB))
                return;
        broken = true;
        store_complain(store, current, "is damaged, an event of the object fails: %s", message);
}

int vfs_check_folders(const char *path)
{
        Store *store = atomic_load(&open_store);
        int r = store && is_ours(&durable_vfs, path) ? node_check_folders(store, path) : 0;

        broken |= r != 0;
        return r;
}

int vfs_register(Store *store)
{
        int rc;

        /* Many connections that do little each: no pages in advance, of which SQLite takes 20 at a
         * time else. Of no effect when SQLite is in use already. */
        sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
        /* The same. */
        (void)sqlite3_config(SQLITE_CONFIG_LOG, on_sqlite_log, NULL);
        rc = sqlite3_initialize();
        if (rc == SQLITE_OK)
                root = sqlite3_vfs_find("unix");
        if (!root)
                return -ENOSYS;
        durable_vfs.pAppData = store;
        _Static_assert(sizeof(ScratchFile) <= sizeof(DurableFile), "one room for both");
        durable_vfs.szOsFile = MAX(root->szOsFile, (int)sizeof(DurableFile));
        rc = sqlite3_vfs_register(&durable_vfs, 1);
        if (rc == SQLITE_OK)
                rc = sqlite3_auto_extension((void (*)(void))guard);
        if (rc != SQLITE_OK) {
                vfs_unregister();
                return -ENOMEM;
        }
        atomic_store(&open_store, store);
        /* What is drawn from now on comes from this store's disk. */
        sqlite3_randomness(0, NULL);
        return 0;
}

void vfs_unregister(void)
{
        atomic_store(&open_store, NULL);
        sqlite3_cancel_auto_extension((void (*)(void))guard);
        sqlite3_vfs_unregister(&durable_vfs);
        sqlite3_randomness(0, NULL);
}
