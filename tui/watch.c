/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/watch.h"

#include "lib/base/file.h"
#include "tui/command.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#define FOLDERS_MAX 4096u
#define EVENTS (IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR)

struct Watch {
        int fd;
        const char *const *skip;
        char **folders; /* by watch descriptor */
        size_t n_folders;
};

static bool is_ignored(const char *name)
{
        size_t len = strlen(name);

        return *name == '.' || strcmp(name, "__pycache__") == 0 ||
               strcmp(name, "node_modules") == 0 || (len && name[len - 1] == '~') ||
               strcmp(name, "4913") == 0 || slice_has_suffix(slice_from(name), SLICE(".pyc"));
}

static bool is_skipped(const Watch *watch, const char *path)
{
        for (const char *const *skip = watch->skip; *skip; skip++)
                if (strcmp(*skip, path) == 0)
                        return true;
        return false;
}

static int watch_remember(Watch *watch, int descriptor, char *path)
{
        if ((size_t)descriptor >= watch->n_folders) {
                size_t n = (size_t)descriptor + 64;
                char **folders = realloc(watch->folders, n * sizeof *folders);

                if (!folders)
                        return -ENOMEM;
                memset(folders + watch->n_folders, 0, (n - watch->n_folders) * sizeof *folders);
                watch->folders = folders;
                watch->n_folders = n;
        }
        free(watch->folders[descriptor]);
        watch->folders[descriptor] = path;
        return 0;
}

static int watch_add(Watch *watch, const char *path)
{
        _cleanup_(free_p) char *copy = strdup(path);
        struct dirent *entry;
        int descriptor, r = 0;
        DIR *folder;

        descriptor = copy ? inotify_add_watch(watch->fd, path, EVENTS) : -1;
        if (descriptor < 0)
                return copy ? -errno : -ENOMEM;
        if ((unsigned)descriptor > FOLDERS_MAX) {
                complain(
                        "more than %u folders: changes in '%s' are not noticed", FOLDERS_MAX, path);
                inotify_rm_watch(watch->fd, descriptor);
                return 0;
        }
        r = watch_remember(watch, descriptor, copy);
        if (r)
                return r;
        copy = NULL;
        folder = opendir(path);
        while (folder && !r && (entry = readdir(folder))) {
                _cleanup_(free_p) char *below = NULL;

                if (entry->d_type != DT_DIR || is_ignored(entry->d_name))
                        continue;
                below = path_join(path, entry->d_name);
                if (!below)
                        r = -ENOMEM;
                else if (!is_skipped(watch, below))
                        r = watch_add(watch, below);
        }
        if (folder)
                closedir(folder);
        /* A folder that vanished meanwhile is no error. */
        return r == -ENOENT ? 0 : r;
}

int watch_new(const char *folder, const char *const *skip, Watch **ret)
{
        _cleanup_(watch_free_p) Watch *watch = calloc(1, sizeof *watch);
        int r;

        if (!watch)
                return -ENOMEM;
        watch->skip = skip;
        watch->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (watch->fd < 0)
                return -errno;
        r = watch_add(watch, folder);
        if (r)
                return r;
        *ret = TAKE_PTR(watch);
        return 0;
}

Watch *watch_free(Watch *watch)
{
        if (!watch)
                return NULL;
        close_p(&watch->fd);
        for (size_t i = 0; i < watch->n_folders; i++)
                free(watch->folders[i]);
        free(watch->folders);
        free(watch);
        return NULL;
}

int watch_get_fd(const Watch *watch)
{
        return watch->fd;
}

static bool watch_take(Watch *watch, const struct inotify_event *event)
{
        _cleanup_(free_p) char *path = NULL;
        const char *folder;

        if (event->mask & IN_Q_OVERFLOW)
                return true;
        if (!event->len || is_ignored(event->name) || (size_t)event->wd >= watch->n_folders)
                return false;
        folder = watch->folders[event->wd];
        path = folder ? path_join(folder, event->name) : NULL;
        if (!path || is_skipped(watch, path))
                return false;
        if (!(event->mask & IN_ISDIR))
                /* A file being created is told again when it is closed. */
                return !(event->mask & IN_CREATE);
        if (event->mask & (IN_CREATE | IN_MOVED_TO))
                (void)watch_add(watch, path);
        return true;
}

bool watch_read(Watch *watch, char *name, size_t name_size)
{
        _Alignas(struct inotify_event) char bytes[8192];
        bool changed = false;
        ssize_t n;

        while ((n = read(watch->fd, bytes, sizeof bytes)) > 0) {
                for (char *at = bytes; at < bytes + n;) {
                        const struct inotify_event *event = (const void *)at;

                        if (watch_take(watch, event)) {
                                changed = true;
                                snprintf(name, name_size, "%s", event->len ? event->name : "");
                        }
                        at += sizeof *event + event->len;
                }
        }
        return changed;
}
