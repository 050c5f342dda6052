/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/spawn.h"

#include "daemon/core/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the supervisor's manager told it is not the worker's business. */
static const char *const hidden_variables[] = { "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_",
        "CREDENTIALS_DIRECTORY=", "MAINPID=" };

static bool variable_is_hidden(const char *variable)
{
        for (size_t i = 0; i < ELEMENTSOF(hidden_variables); i++)
                if (strncmp(variable, hidden_variables[i], strlen(hidden_variables[i])) == 0)
                        return true;
        return false;
}

/* A list of borrowed strings; NULL when memory is out. */
static char **environment_new(void)
{
        size_t n = 0, kept = 0;
        char **list;

        while (environ && environ[n])
                n++;
        list = calloc(n + 1, sizeof(*list));
        for (size_t i = 0; list && i < n; i++)
                if (!variable_is_hidden(environ[i]))
                        list[kept++] = environ[i];
        return list;
}

/* Root without SECBIT_NOROOT would get all capabilities of the bounding set back at exec. Where
 * the supervisor may not change these sets it has no capability to lose. */
static int child_drop_capabilities(void)
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = { 0 };
        const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                   SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                   SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        (void)prctl(PR_SET_SECUREBITS, bits, 0, 0, 0);
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for (unsigned long capability = 0; capability < 64; capability++)
                (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
        if (syscall(SYS_capset, &header, none) < 0)
                return -errno;
        return 0;
}

/* After fork: async-signal-safe calls alone. Returns a negative errno when it cannot go on. */
static int child_exec(
        const char *path, char *const argv[], char **environment, int boot_fd, int *report_fd)
{
        sigset_t all;
        int null, r;

        for (int signal_number = 1; signal_number < NSIG; signal_number++)
                (void)signal(signal_number, SIG_DFL);
        sigemptyset(&all);
        (void)sigprocmask(SIG_SETMASK, &all, NULL);
        (void)setpgid(0, 0);
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null < 0 || dup2(null, STDIN_FILENO) < 0)
                return -errno;
        /* Both out of the way first: either may stand where the other has to go. */
        boot_fd = fcntl(boot_fd, F_DUPFD, BOOT_FD + 2);
        r = fcntl(*report_fd, F_DUPFD_CLOEXEC, BOOT_FD + 2);
        if (boot_fd < 0 || r < 0)
                return -errno;
        *report_fd = r;
        if (dup2(boot_fd, BOOT_FD) < 0 || dup3(*report_fd, BOOT_FD + 1, O_CLOEXEC) < 0)
                return -errno;
        *report_fd = BOOT_FD + 1;
        (void)syscall(SYS_close_range, BOOT_FD + 2, ~0U, 0);
        r = child_drop_capabilities();
        if (r < 0)
                return r;
        execve(path, argv, environment);
        return -errno;
}

int spawn_worker(const char *path, char *const argv[], int boot_fd, pid_t *ret_pid, int *ret_pidfd)
{
        _cleanup_(free_p) char **environment = environment_new();
        _cleanup_(close_p) int pidfd = -1, report = -1, report_child = -1;
        int pipes[2], error = 0;
        pid_t pid;
        ssize_t n;

        if (!environment)
                return -ENOMEM;
        if (pipe2(pipes, O_CLOEXEC) < 0)
                return -errno;
        report = pipes[0];
        report_child = pipes[1];
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                error = child_exec(path, argv, environment, boot_fd, &report_child);
                (void)!write(report_child, &error, sizeof(error));
                _exit(127);
        }
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0)
                error = -errno;
        close(TAKE_FD(report_child));
        do
                n = read(report, &error, sizeof(error));
        while (n < 0 && errno == EINTR);
        if (error < 0) {
                (void)kill(pid, SIGKILL);
                (void)waitpid(pid, NULL, 0);
                return error;
        }
        *ret_pid = pid;
        *ret_pidfd = TAKE_FD(pidfd);
        return 0;
}
