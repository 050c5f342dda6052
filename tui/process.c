/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/process.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static _noreturn_ void child_exec(const char *const *argv, const char *folder,
        const char *const *environment, int out, int errors)
{
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        if (folder && chdir(folder)) {
                dprintf(errors, "cannot enter '%s': %s\n", folder, strerror(errno));
                _exit(127);
        }
        for (; environment && *environment; environment++)
                putenv((char *)(uintptr_t)*environment);
        if (dup2(out, STDOUT_FILENO) < 0 || dup2(errors, STDERR_FILENO) < 0)
                _exit(127);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        dprintf(STDERR_FILENO, "cannot run '%s': %s\n", argv[0], strerror(errno));
        _exit(127);
}

/* Keeps what fits, drops the rest: a chatty child must not be stopped by a full pipe. */
static bool drain(int fd, Buf *buf)
{
        char bytes[4096];
        ssize_t n = read(fd, bytes, sizeof bytes);

        if (n < 0)
                return errno == EINTR || errno == EAGAIN;
        if (n > 0 && buf)
                (void)buf_append(buf, bytes, (size_t)n);
        return n > 0;
}

static int wait_for(pid_t pid)
{
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int process_run(const char *const *argv, const char *folder, const char *const *environment,
        Buf *out, Buf *errors)
{
        int out_pipe[2], error_pipe[2];
        struct pollfd wait[2];
        pid_t pid;

        if (pipe2(out_pipe, O_CLOEXEC))
                return -errno;
        if (pipe2(error_pipe, O_CLOEXEC)) {
                close(out_pipe[0]);
                close(out_pipe[1]);
                return -errno;
        }
        pid = fork();
        if (pid == 0)
                child_exec(argv, folder, environment, out_pipe[1], error_pipe[1]);
        close(out_pipe[1]);
        close(error_pipe[1]);
        wait[0] = (struct pollfd){ .fd = out_pipe[0], .events = POLLIN };
        wait[1] = (struct pollfd){ .fd = error_pipe[0], .events = POLLIN };
        while (pid > 0 && (wait[0].fd >= 0 || wait[1].fd >= 0)) {
                if (poll(wait, 2, -1) < 0 && errno != EINTR)
                        break;
                if (wait[0].revents && !drain(out_pipe[0], out ? out : errors))
                        wait[0].fd = -1;
                if (wait[1].revents && !drain(error_pipe[0], errors))
                        wait[1].fd = -1;
        }
        close(out_pipe[0]);
        close(error_pipe[0]);
        return pid < 0 ? -EAGAIN : wait_for(pid);
}

pid_t process_start(const char *const *argv)
{
        pid_t parent = getpid(), pid = fork();

        if (pid < 0)
                return -errno;
        if (pid > 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
                _exit(127);
        child_exec(argv, NULL, NULL, STDOUT_FILENO, STDERR_FILENO);
}

/* Where each companion may be, relative to the folder of this program. */
static const struct {
        const char *name;
        const char *places[4];
} companions[] = {
        { "durabled", { "durabled", "../daemon/durabled", "../lib/durabled/durabled" } },
        { "prepare-python",
                { "prepare-python", "../libexec/durabled/prepare-python",
                        "../lib/durabled/prepare-python", DURABLED_SOURCE "/tui/prepare-python" } },
        { "modules",
                { "../share/durabled/modules", DURABLED_SOURCE "/daemon/runtime/python/modules" } },
        { "template",
                { "../share/durabled/templates/django", DURABLED_SOURCE "/templates/django" } },
};

static int companion_try(const char *folder, const char *place, char **ret)
{
        char real[PATH_MAX];
        _cleanup_(free_p) char *path = *place == '/' ? strdup(place) : path_join(folder, place);

        if (!path)
                return -ENOMEM;
        if (!realpath(path, real))
                return -ENOENT;
        *ret = strdup(real);
        return *ret ? 0 : -ENOMEM;
}

int companion_find(const char *name, char **ret)
{
        const char *given = getenv("DURABLED_LIBEXEC");
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        char *slash;
        int r = -ENOENT;

        if (given && *given && companion_try(given, name, ret) == 0)
                return 0;
        if (n < 0)
                return -errno;
        self[n] = '\0';
        slash = strrchr(self, '/');
        *slash = '\0';
        for (size_t i = 0; i < ELEMENTSOF(companions) && r; i++) {
                if (strcmp(companions[i].name, name) != 0)
                        continue;
                for (size_t j = 0; j < ELEMENTSOF(companions[i].places) && r; j++)
                        if (companions[i].places[j])
                                r = companion_try(self, companions[i].places[j], ret);
        }
        return r;
}
