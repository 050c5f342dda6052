/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/store/check-private.h"
#include "lib/store/disk-overlay.h"
#include "lib/store/store-private.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

/*
 * The check as a whole, and its walk through the objects folder: one thread lists, others look at
 * what it found.
 */

#define QUEUE_MAX 256u
#define THREADS_MAX 64u
#define SCRATCH_DEFAULT "/var/tmp"
#define ID_LEN 64u

void check_tell(Check *check, CheckLevel level, const char *what, const char *path, uint64_t offset,
        const char *format, ...)
{
        char text[1024];
        CheckFinding finding = {
                .level = level, .what = what, .path = path, .offset = offset, .text = text
        };
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        pthread_mutex_lock(&check->mutex);
        check->options.found(&finding, check->options.data);
        pthread_mutex_unlock(&check->mutex);
}

int check_new(const CheckOptions *options, Check **ret)
{
        _cleanup_(check_free_p) Check *check = calloc(1, sizeof *check);
        const char *scratch = options->scratch ?: getenv("TMPDIR");
        int r;

        if (!check)
                return -ENOMEM;
        pthread_mutex_init(&check->mutex, NULL);
        check->options = *options;
        check->below = options->disk ?: disk_real();
        check->objects = strdup(options->objects);
        if (!check->objects)
                return -ENOMEM;
        r = disk_overlay_new(
                check->below, scratch && *scratch ? scratch : SCRATCH_DEFAULT, &check->disk);
        r = r ?: check_vfs_register(check->disk);
        if (r)
                return r;
        check->has_vfs = true;
        *ret = TAKE_PTR(check);
        return 0;
}

Check *check_free(Check *check)
{
        CheckHeld *held;

        if (!check)
                return NULL;
        if (check->has_vfs)
                check_vfs_unregister();
        while ((held = check->held)) {
                check->held = held->next;
                store_free(held->store);
                free(held);
        }
        disk_overlay_free(check->disk);
        pthread_mutex_destroy(&check->mutex);
        free(check->objects);
        free(check);
        return NULL;
}

typedef struct Names {
        char **names;
        size_t n;
} Names;

static void names_done(Names *names)
{
        for (size_t i = 0; i < names->n; i++)
                free(names->names[i]);
        free(names->names);
}

static int add_name(const char *name, void *data)
{
        Names *names = data;
        char **more = realloc(names->names, (names->n + 1) * sizeof *more);

        if (!more)
                return -ENOMEM;
        names->names = more;
        more[names->n] = strdup(name);
        if (!more[names->n])
                return -ENOMEM;
        names->n++;
        return 0;
}

/* Numbers by their value, the rest by letters. */
static int compare_names(const void *a, const void *b)
{
        return strverscmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(Check *check, const char *folder, Names *ret)
{
        int r = disk_list(check->disk, folder, add_name, ret);

        if (!r && ret->n)
                qsort(ret->names, ret->n, sizeof *ret->names, compare_names);
        return r;
}

static int each_slot_of(
        Check *check, const char *folder, const char *app, CheckSlotFn fn, void *data)
{
        _cleanup_(names_done) Names names = {};
        int r = list_names(check, folder, &names);

        for (size_t i = 0; !r && i < names.n; i++) {
                _cleanup_(free_p) char *path = path_join(folder, names.names[i]);
                uint64_t slot;

                if (!path)
                        return -ENOMEM;
                if (slice_to_u64(slice_from(names.names[i]), &slot) && slot < UINT_MAX)
                        r = fn(app, (unsigned)slot, path, data);
                else if (strcmp(names.names[i], "slots") != 0)
                        check_tell(check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                                "no slot of an app: a slot is a number");
        }
        return r;
}

int check_each_slot(Check *check, const char *folder, const char *app, CheckSlotFn fn, void *data)
{
        _cleanup_(names_done) Names names = {};
        int r = list_names(check, folder, &names);

        if (r == -ENOENT)
                return 0;
        for (size_t i = 0; !r && i < names.n; i++) {
                _cleanup_(free_p) char *path = path_join(folder, names.names[i]);

                if (!path)
                        return -ENOMEM;
                if (app && strcmp(app, names.names[i]) != 0)
                        continue;
                r = each_slot_of(check, path, names.names[i], fn, data);
                if (r != -ENOTDIR)
                        continue;
                check_tell(check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE, "no app's folder");
                r = 0;
        }
        return r;
}

/* The threads and the one who feeds them. */
typedef struct Pool {
        Check *check;
        pthread_mutex_t mutex;
        pthread_cond_t changed;
        char *paths[QUEUE_MAX];
        unsigned first, n;
        bool ended;
        int error;
} Pool;

static void count_database(Check *check)
{
        pthread_mutex_lock(&check->mutex);
        check->n_databases++;
        if (check->options.progress)
                check->options.progress(check->n_databases, check->options.data);
        pthread_mutex_unlock(&check->mutex);
}

static void *pool_run(void *data)
{
        Pool *pool = data;

        pthread_mutex_lock(&pool->mutex);
        for (;;) {
                char *path;
                int r = 0;

                while (!pool->n && !pool->ended)
                        pthread_cond_wait(&pool->changed, &pool->mutex);
                if (!pool->n)
                        break;
                path = pool->paths[pool->first];
                pool->first = (pool->first + 1) % QUEUE_MAX;
                pool->n--;
                pthread_cond_broadcast(&pool->changed);
                if (!pool->error) {
                        pthread_mutex_unlock(&pool->mutex);
                        r = check_database(pool->check, path);
                        count_database(pool->check);
                        pthread_mutex_lock(&pool->mutex);
                }
                /* It was there a moment ago; whoever removed it did not want it. */
                if (r && r != -ENOENT && !pool->error)
                        pool->error = r;
                free(path);
        }
        pthread_mutex_unlock(&pool->mutex);
        return NULL;
}

static int pool_add(Pool *pool, const char *path)
{
        char *copy = strdup(path);
        int r;

        if (!copy)
                return -ENOMEM;
        pthread_mutex_lock(&pool->mutex);
        while (pool->n == QUEUE_MAX)
                pthread_cond_wait(&pool->changed, &pool->mutex);
        pool->paths[(pool->first + pool->n++) % QUEUE_MAX] = copy;
        pthread_cond_broadcast(&pool->changed);
        r = pool->error;
        pthread_mutex_unlock(&pool->mutex);
        return r;
}

typedef struct Walk {
        Pool *pool;
        const char *folder; /* at hand */
        const char *name;   /* of the folder */
        const char *prefix; /* of namespaces; NULL: all */
        int (*file)(struct Walk *walk, const char *path, const char *name);
        int (*folder_fn)(struct Walk *walk, const char *path, const char *name);
} Walk;

static int stray_file(Walk *walk, const char *path, const char *name)
{
        /* recover.c's mark that a journal was begun. */
        if (walk->folder == walk->pool->check->objects &&
                slice_has_prefix(slice_from(name), SLICE(".journal-")))
                return 0;
        check_tell(walk->pool->check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                "no file belongs here: objects are <namespace>/<2 digits>/<id>.sqlite");
        return 0;
}

static int stray_folder(Walk *walk, const char *path, const char *name)
{
        check_tell(walk->pool->check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                "no folder belongs here: objects are <namespace>/<2 digits>/<id>.sqlite");
        return 0;
}

static int walk_name(const char *name, void *data)
{
        Walk *walk = data;
        _cleanup_(free_p) char *path = path_join(walk->folder, name);
        uint64_t size;
        int r;

        if (!path)
                return -ENOMEM;
        r = disk_stat_size(walk->pool->check->disk, path, &size);
        if (r == -EISDIR)
                return walk->folder_fn(walk, path, name);
        return r == -ENOENT ? 0 : r ?: walk->file(walk, path, name);
}

static bool is_hex(const char *text, size_t len)
{
        return strspn(text, "0123456789abcdef") == len && strlen(text) == len;
}

static int see_object(Walk *walk, const char *path, const char *name)
{
        static const char *const logs[] = { "-wal", "-shm", "-journal" };
        Check *check = walk->pool->check;
        Slice slice = slice_from(name);
        char id[ID_LEN + 1];

        for (size_t i = 0; i < ELEMENTSOF(logs); i++)
                if (slice_has_suffix(slice, slice_from(logs[i]))) {
                        check_tell(check, CHECK_ODD, "stray-log", path, CHECK_NOWHERE,
                                "a log of another program: durabled keeps its own in the journal, "
                                "reads a -wal into the database when the object is opened, and "
                                "removes it when the journal has commits for the object");
                        return 0;
                }
        snprintf(id, sizeof id, "%s", name);
        if (slice.len != ID_LEN + 7 || !slice_has_suffix(slice, SLICE(".sqlite")) ||
                !is_hex(id, ID_LEN)) {
                check_tell(check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                        "no object's name: 64 digits 0-9 and a-f, then .sqlite");
                return 0;
        }
        if (strncmp(id, walk->name, 2) != 0)
                check_tell(check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                        "in the wrong folder, nobody finds it here: it belongs into '%.2s'", id);
        return pool_add(walk->pool, path);
}

static int see_shard(Walk *walk, const char *path, const char *name)
{
        Walk inner = { .pool = walk->pool,
                .folder = path,
                .name = name,
                .file = see_object,
                .folder_fn = stray_folder };

        if (!is_hex(name, 2))
                return stray_folder(walk, path, name);
        return disk_list(walk->pool->check->disk, path, walk_name, &inner);
}

static int see_namespace(Walk *walk, const char *path, const char *name)
{
        Walk inner = { .pool = walk->pool,
                .folder = path,
                .name = name,
                .file = stray_file,
                .folder_fn = see_shard };

        if (walk->prefix && !slice_has_prefix(slice_from(name), slice_from(walk->prefix)))
                return 0;
        return disk_list(walk->pool->check->disk, path, walk_name, &inner);
}

int check_objects(Check *check, const char *prefix, unsigned n_threads)
{
        Pool pool = { .check = check };
        Walk walk = { .pool = &pool,
                .folder = check->objects,
                .name = "",
                .prefix = prefix,
                .file = stray_file,
                .folder_fn = see_namespace };
        pthread_t threads[THREADS_MAX];
        unsigned n = 0;
        int r = 0;

        n_threads = MAX(n_threads, 1u);
        n_threads = MIN(n_threads, THREADS_MAX);
        pthread_mutex_init(&pool.mutex, NULL);
        pthread_cond_init(&pool.changed, NULL);
        while (n < n_threads && (r = -pthread_create(&threads[n], NULL, pool_run, &pool)) == 0)
                n++;
        /* Fewer will do. */
        if (n)
                r = disk_list(check->disk, check->objects, walk_name, &walk);
        pthread_mutex_lock(&pool.mutex);
        pool.ended = true;
        pthread_cond_broadcast(&pool.changed);
        pthread_mutex_unlock(&pool.mutex);
        while (n)
                pthread_join(threads[--n], NULL);
        pthread_cond_destroy(&pool.changed);
        pthread_mutex_destroy(&pool.mutex);
        return r == -ENOENT ? 0 : r ?: pool.error;
}
