/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/operator.h"

#include "daemon/core/log.h"
#include "lib/base/file.h"
#include "lib/store/db.h"
#include "lib/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SCRATCH_PREFIX "operator-"
#define COPY_SIZE (64u << 20)

typedef struct Task Task;

typedef struct Verb {
        const char *name;
        void (*run)(Task *task, const char *path);
        bool exclusive, needs_fd;
} Verb;

/* One request. Held by its event until that ends, and by its answer until it was given. */
struct Task {
        Operation operation;
        List link;             /* of those that are not answered */
        atomic_bool abandoned; /* whatever has not begun does not */
        unsigned refs;
        const Operator *host;
        const Verb *verb;
        json_int_t id;
        Response *response;
        json_t *parameters;
        int fd;              /* that came, or that goes */
        const char *error;   /* NULL: done */
        const char *message; /* of the error */
        char bookmark[STORE_BOOKMARK_LEN + 1];
        uint64_t size;
        bool created;
};

static void task_unref(Task *task)
{
        if (--task->refs)
                return;
        response_unref(task->response);
        json_decref(task->parameters);
        close_p(&task->fd);
        free(task);
}

/* Errors: a name for programs, a line for people */

static void task_fail(Task *task, const char *error, const char *message)
{
        task->error = error;
        task->message = message;
}

static void task_fail_store(Task *task, int error)
{
        static const struct {
                int error;
                const char *name, *message;
        } known[] = {
                { STORE_E_BOOKMARK, "InvalidBookmark", NULL },
                { STORE_E_PRUNED, "BookmarkPruned", NULL },
                { STORE_E_FUTURE, "BookmarkInFuture", NULL },
                { STORE_E_ABSENT, "ObjectAbsentThen", NULL },
                { STORE_E_CHANGED, "ObjectDamaged", NULL },
                { STORE_E_PAGE_SIZE, "PageSizeDiffers", NULL },
                { -ENOENT, "NoSuchObject", "there is no such object" },
                { -EBUSY, "Busy", "the object's database is in use by another transaction" },
                { -ENOSPC, "NoSpace", "there is no room for it, on the disk or in the journal" },
                { -EDQUOT, "NoSpace", "there is no room for it: the quota is used up" },
                { -EUCLEAN, "ObjectDamaged", "the object's database is damaged" },
        };

        for (size_t i = 0; i < ELEMENTSOF(known); i++) {
                if (known[i].error != error)
                        continue;
                task_fail(task, known[i].name,
                        known[i].message ? known[i].message : store_history_error(error));
                return;
        }
        task_fail(task, "Failed", store_history_error(error));
}

/* What runs on a thread of the pool */

static const char *task_get(const Task *task, const char *key)
{
        return json_string_value(json_object_get(task->parameters, key));
}

static bool task_finds(Task *task, const char *path)
{
        int r = store_find_object(task->host->store, path);

        if (r)
                task_fail_store(task, r);
        return r == 0;
}

static void run_find(Task *task, const char *path)
{
        (void)task_finds(task, path);
}

static void run_bookmark(Task *task, const char *path)
{
        const json_t *time_ns = json_object_get(task->parameters, "time_ns");
        Store *store = task->host->store;
        int r;

        if (!task_finds(task, path))
                return;
        r = json_is_integer(time_ns)
                    ? store_find_bookmark(
                              store, path, (uint64_t)json_integer_value(time_ns), task->bookmark)
                    : store_get_bookmark(store, path, task->bookmark);
        if (r)
                task_fail_store(task, r);
}

/* A name in the scratch folder that nothing has, malloc'd; NULL when memory or randomness is out.
 */
static char *scratch_path(const Task *task)
{
        uint64_t number;
        char *path;

        if (getrandom(&number, sizeof number, 0) != sizeof number ||
                asprintf(&path, "%s/" SCRATCH_PREFIX "%016llx", task->host->scratch,
                        (unsigned long long)number) < 0)
                return NULL;
        return path;
}

static void run_export(Task *task, const char *path)
{
        _cleanup_(free_p) char *file = scratch_path(task);
        const char *bookmark = task_get(task, "bookmark");
        struct stat st;
        int r;

        if (!file) {
                task_fail_store(task, -ENOMEM);
                return;
        }
        /* The past may have what the present has not. */
        if (!bookmark && !task_finds(task, path))
                return;
        r = bookmark ? store_export_past(task->host->store, path, bookmark, file)
                     : store_export(task->host->store, path, file);
        if (!r) {
                task->fd = open(file, O_RDONLY | O_CLOEXEC);
                if (task->fd < 0 || fstat(task->fd, &st))
                        r = -errno;
                else
                        task->size = (uint64_t)st.st_size;
        }
        /* Who has the descriptor has the file; nobody else can find it. */
        (void)unlink(file);
        if (r)
                task_fail_store(task, r);
}

static void run_restore(Task *task, const char *path)
{
        int r = store_restore(
                task->host->store, path, task_get(task, "bookmark"), path, task->bookmark);

        if (r)
                task_fail_store(task, r);
}

/* SQLite takes files by their names: a copy that has one while it is read. */
static int copy_to_scratch(const Task *task, const char *file)
{
        _cleanup_(close_p) int to = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        off_t at = 0;

        if (to < 0)
                return -errno;
        for (;;) {
                ssize_t n = copy_file_range(task->fd, &at, to, NULL, COPY_SIZE, 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n ? -errno : 0;
        }
}

static void run_import(Task *task, const char *path)
{
        _cleanup_(free_p) char *file = scratch_path(task);
        int r = file ? store_find_object(task->host->store, path) : -ENOMEM;

        if (!r && !json_is_true(json_object_get(task->parameters, "overwrite"))) {
                task_fail(
                        task, "ObjectExists", "there is such an object: ask for it to be replaced");
                return;
        }
        task->created = r == -ENOENT;
        if (!r || task->created)
                r = file ? copy_to_scratch(task, file) : -ENOMEM;
        r = r ?: store_import(task->host->store, file, path, task->bookmark);
        if (file)
                (void)unlink(file);
        if (r)
                task_fail_store(task, r);
}

static const Verb verbs[] = {
        { "find", run_find, false, false },
        { "bookmark", run_bookmark, false, false },
        { "export", run_export, false, false },
        { "restore", run_restore, true, false },
        { "import", run_import, true, true },
};

static void task_run(Operation *operation, const char *path)
{
        Task *task = CONTAINER_OF(operation, Task, operation);
        Store *store = task->host->store;

        if (atomic_load(&task->abandoned))
                return;
        if (store_set_current(store, path)) {
                task_fail_store(task, -ENOMEM);
                return;
        }
        task->verb->run(task, path);
        (void)store_set_current(store, NULL);
}

/* The answer */

static void task_tell(const Task *task, json_t *message, int fd)
{
        if (message)
                task->host->answer(message, fd, task->host->data);
        else
                log_error("no memory to answer an operator's request");
        json_decref(message);
}

static void task_send_error(const Task *task, const char *error, const char *message)
{
        task_tell(task,
                json_pack("{s:s, s:I, s:s, s:s}", "type", "operated", "id", task->id, "error",
                        error, "message", message),
                -1);
}

static void task_send(const Task *task)
{
        if (task->error)
                task_send_error(task, task->error, task->message);
        else
                task_tell(task,
                        json_pack("{s:s, s:I, s:s, s:I, s:b}", "type", "operated", "id", task->id,
                                "bookmark", task->bookmark, "size", (json_int_t)task->size,
                                "created", task->created),
                        task->verb && task->verb->needs_fd ? -1 : task->fd);
}

static void task_end_answer(Task *task)
{
        response_set_consumer(task->response, NULL, NULL);
        list_unlink(&task->link);
        task_unref(task);
}

static void task_on_change(Response *response, void *data)
{
        Task *task = data;
        const char *message;
        unsigned status, after;

        switch (response_get_state(response)) {
        case RESPONSE_OPEN:
        case RESPONSE_STARTED:
                return;
        case RESPONSE_ENDED:
                task_send(task);
                break;
        case RESPONSE_ABORTED:
                /* It may still run: what it has found is its own. */
                status = response_get_abort(response, &after, &message);
                task_send_error(task,
                        status == 504   ? "Timeout"
                        : status == 503 ? "Unavailable"
                                        : "Failed",
                        message);
                break;
        }
        task_end_answer(task);
}

/* The gate lets it through when all that the object has committed is durable. */
static void task_answer(Operation *operation, Response *response)
{
        response_finish_text(response, 200, "");
}

static void task_end(Operation *operation)
{
        task_unref(CONTAINER_OF(operation, Task, operation));
}

/* The question */

static const Verb *find_verb(json_t *message)
{
        const char *name = json_string_value(json_object_get(message, "verb"));

        for (size_t i = 0; name && i < ELEMENTSOF(verbs); i++)
                if (strcmp(verbs[i].name, name) == 0)
                        return &verbs[i];
        return NULL;
}

/* The object that a message names. False after task_fail(). */
static bool find_object(Task *task, unsigned *ret_class, ObjectId *ret)
{
        const Operator *host = task->host;
        const char *key = task_get(task, "class"), *id = task_get(task, "object");

        for (size_t i = 0; key && i < host->n_classes; i++) {
                if (strcmp(host->classes[i].unique_key, key) != 0)
                        continue;
                if (!id || ident_parse(slice_from(id), ret))
                        break;
                if (!host->owns(ret, host->data)) {
                        task_fail(task, "Unavailable", "the object has moved to another worker");
                        return false;
                }
                *ret_class = (unsigned)i;
                return true;
        }
        task_fail(task, "Unavailable", "the worker runs another version of the app");
        return false;
}

static char *object_path(const Task *task, unsigned class_index, const ObjectId *id)
{
        const Operator *host = task->host;
        char text[IDENT_TEXT_SIZE];

        ident_format(id, text);
        return db_object_path(host->objects, host->classes[class_index].unique_key, text);
}

static int check_bookmark(const Task *task, unsigned class_index, const ObjectId *id)
{
        _cleanup_(free_p) char *path = object_path(task, class_index, id);
        const char *bookmark = task_get(task, "bookmark");

        if (!path)
                return -ENOMEM;
        return bookmark ? store_check_bookmark(task->host->store, path, bookmark)
                        : STORE_E_BOOKMARK;
}

static int task_deliver(Operator *host, Task *task, unsigned class_index, const ObjectId *id)
{
        static const ResponseConsumer consumer = { task_on_change };
        const char *name = task_get(task, "name");
        int r;

        task->operation = (Operation){
                .run = task_run,
                .answer = task_answer,
                .end = task_end,
                .exclusive = task->verb->exclusive,
                .wait_ns = OPERATOR_WAIT_NS,
                .run_ns = OPERATOR_RUN_NS,
        };
        task->refs++; /* the event's */
        r = registry_operate(host->registry, class_index, id, name ? slice_from(name) : SLICE(""),
                &task->operation, &task->response);
        if (r) {
                task->refs--;
                return r;
        }
        task->refs++; /* the answer's */
        list_append(&host->tasks, &task->link);
        response_set_consumer(task->response, &consumer, task);
        task_on_change(task->response, task);
        return 0;
}

void operator_take(Operator *host, json_t *message, int fd)
{
        Task *task = calloc(1, sizeof *task);
        unsigned class_index;
        ObjectId id;
        int r;

        if (!task) {
                log_error("no memory for an operator's request");
                close_p(&fd);
                return;
        }
        task->refs = 1;
        list_init(&task->link);
        task->host = host;
        task->fd = fd;
        task->id = json_integer_value(json_object_get(message, "id"));
        task->parameters = json_incref(message);
        task->verb = find_verb(message);
        if (!host->registry)
                task_fail(task, "Unavailable", "the app could not be loaded");
        if (task->error || !find_object(task, &class_index, &id)) {
                task_send(task);
        } else if (!task->verb) {
                task_fail(task, "Failed", "the worker does not know how to do that");
                task_send(task);
        } else if (task->verb->needs_fd && fd < 0) {
                task_fail(task, "Failed", "the request came without its file");
                task_send(task);
        } else {
                /* What is no bookmark does not cost the object its instance. */
                r = task->verb->run == run_restore ? check_bookmark(task, class_index, &id) : 0;
                r = r ?: task_deliver(host, task, class_index, &id);
                if (r) {
                        task_fail_store(task, r);
                        task_send(task);
                }
        }
        task_unref(task);
}

void operator_abandon(Operator *host, json_int_t id)
{
        list_for_each(link, &host->tasks) {
                Task *task = list_entry(link, Task, link);
                Response *response = task->response;

                if (task->id != id)
                        continue;
                atomic_store(&task->abandoned, true);
                task_send_error(task, "Unavailable", "who asked has left");
                response_ref(response);
                task_end_answer(task);
                response_cancel(response);
                response_unref(response);
                return;
        }
}

void operator_clean(const char *scratch)
{
        DIR *folder = opendir(scratch);
        const struct dirent *entry;

        if (!folder)
                return;
        while ((entry = readdir(folder)))
                if (strncmp(entry->d_name, SCRATCH_PREFIX, strlen(SCRATCH_PREFIX)) == 0 &&
                        unlinkat(dirfd(folder), entry->d_name, 0) == 0)
                        log_debug("removed '%s/%s', which an earlier worker left", scratch,
                                entry->d_name);
        closedir(folder);
}
