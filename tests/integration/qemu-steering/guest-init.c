/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The first process of the virtual machine: runs /test, says how it ended, switches the machine
 * off. Linked statically; the rest of the initramfs is the test and its libraries.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static int run_test(void)
{
        char name[] = "/test", output[] = "CMOCKA_MESSAGE_OUTPUT=TAP";
        char *const argv[] = { name, NULL };
        char *const environment[] = { output, NULL };
        int status = -1;
        pid_t pid = fork();

        if (pid == 0) {
                execve(argv[0], argv, environment);
                perror("/test");
                _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void)
{
        struct utsname name = { 0 };

        (void)mkdir("/proc", 0755);
        (void)mkdir("/sys", 0755);
        if (mount("proc", "/proc", "proc", 0, NULL) < 0 ||
                mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
                perror("mount");
        (void)uname(&name);
        printf("guest-begin %s\n", name.release);
        fflush(stdout);
        printf("guest-end %d\n", run_test());
        fflush(stdout);
        sync();
        (void)reboot(RB_POWER_OFF);
        return 1;
}
