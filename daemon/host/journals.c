/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/host/journals.h"

#include "daemon/core/log.h"
#include "lib/base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>

static bool is_slot(const char *name)
{
        for (const char *at = name; *at; at++)
                if (!isdigit((unsigned char)*at))
                        return false;
        return *name != '\0';
}

/* A process of its own: the supervisor opens no object's database. */
static int empty_one(const JournalsOptions *options, const char *journal)
{
        int status;
        pid_t pid;

        log_note("app '%s' had another number of workers: emptying the journal '%s'", options->app,
                journal);
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                execl(options->worker_path, options->worker_path, "--recover", journal,
                        options->objects, (char *)NULL);
                _exit(127);
        }
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : JOURNALS_E_RECOVERY;
}

static int empty_all(const JournalsOptions *options, const char *folder)
{
        struct dirent *entry;
        DIR *dir = opendir(folder);
        int r = 0;

        if (!dir)
                return errno == ENOENT ? 0 : -errno;
        while (!r && (entry = readdir(dir))) {
                _cleanup_(free_p) char *journal = NULL;

                if (!is_slot(entry->d_name))
                        continue;
                journal = path_join(folder, entry->d_name);
                r = journal ? empty_one(options, journal) : -ENOMEM;
        }
        closedir(dir);
        return r;
}

/* The number of the start before, or 0. */
static int read_slots(const char *path, uint64_t *ret)
{
        Buf text = BUF_INIT(0);
        int r = file_read(path, 64, &text);

        *ret = 0;
        if (r == 0 &&
                !slice_to_u64(slice_head(buf_slice(&text), strcspn(buf_data(&text), "\n")), ret))
                r = 0; /* unreadable: as if it were another number */
        buf_done(&text);
        return r == -ENOENT ? 0 : r;
}

int journals_prepare(const JournalsOptions *options)
{
        _cleanup_(free_p) char *folder = NULL, *path = NULL;
        uint64_t before;
        char text[32];
        int r;

        if (asprintf(&folder, "%s/journal/%s", options->state, options->app) < 0) {
                folder = NULL;
                return -ENOMEM;
        }
        path = path_join(folder, "slots");
        if (!path)
                return -ENOMEM;
        r = dir_create(folder, 0700);
        if (!r)
                r = read_slots(path, &before);
        if (r || before == options->n_slots)
                return r;
        r = empty_all(options, folder);
        if (r)
                return r;
        snprintf(text, sizeof text, "%u\n", options->n_slots);
        return file_write_atomic(path, slice_from(text), 0600);
}
