/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/notify.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

typedef struct Manager {
        int socket;
        char folder[64], path[96], message[1024];
        int fd; /* the descriptor that came with the last message, or -1 */
} Manager;

static int manager_new(void **state)
{
        Manager *manager = calloc(1, sizeof *manager);
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(manager->folder, sizeof manager->folder, "/tmp/durabled-notify-XXXXXX");
        if (!mkdtemp(manager->folder))
                return -1;
        snprintf(manager->path, sizeof manager->path, "%s/s", manager->folder);
        snprintf(address.sun_path, sizeof address.sun_path, "%s", manager->path);
        manager->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (bind(manager->socket, (struct sockaddr *)&address, sizeof address) < 0)
                return -1;
        setenv("NOTIFY_SOCKET", manager->path, 1);
        manager->fd = -1;
        *state = manager;
        return 0;
}

static int manager_free(void **state)
{
        Manager *manager = *state;

        unsetenv("NOTIFY_SOCKET");
        unsetenv("WATCHDOG_USEC");
        unsetenv("WATCHDOG_PID");
        close(manager->socket);
        unlink(manager->path);
        rmdir(manager->folder);
        free(manager);
        return 0;
}

/* The next message, "" when there is none. */
static const char *manager_receive(Manager *manager)
{
        union {
                struct cmsghdr header;
                char bytes[256];
        } control;
        struct iovec vector = { manager->message, sizeof manager->message - 1 };
        struct msghdr header = { .msg_iov = &vector,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof control };
        ssize_t n = recvmsg(manager->socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        manager->message[n > 0 ? n : 0] = '\0';
        manager->fd = -1;
        if (n < 0)
                return manager->message;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
                        memcpy(&manager->fd, CMSG_DATA(c), sizeof manager->fd);
        return manager->message;
}

static void states_arrive_as_systemd_expects_them(void **state)
{
        Manager *manager = *state;

        assert_true(notify_is_wanted());
        assert_int_equal(notify_ready("%d apps", 2), 0);
        assert_string_equal(manager_receive(manager), "READY=1\nSTATUS=2 apps");
        assert_int_equal(notify_ready(NULL), 0);
        assert_string_equal(manager_receive(manager), "READY=1");
        assert_int_equal(notify_status("draining %s", "blog/0"), 0);
        assert_string_equal(manager_receive(manager), "STATUS=draining blog/0");
        assert_int_equal(notify_reloading("version %d", 2), 0);
        assert_memory_equal(manager_receive(manager), "RELOADING=1\nMONOTONIC_USEC=", 27);
        assert_non_null(strstr(manager->message, "\nSTATUS=version 2"));
        assert_int_equal(notify_stopping("asked to"), 0);
        assert_string_equal(manager_receive(manager), "STOPPING=1\nSTATUS=asked to");
        assert_int_equal(notify_extend(UINT64_C(3000000000)), 0);
        assert_string_equal(manager_receive(manager), "EXTEND_TIMEOUT_USEC=3000000");
        assert_int_equal(notify_watchdog(), 0);
        assert_string_equal(manager_receive(manager), "WATCHDOG=1");
        assert_string_equal(manager_receive(manager), "");
}

static void a_status_cannot_carry_another_assignment(void **state)
{
        Manager *manager = *state;

        assert_int_equal(notify_status("app %s failed", "x\nMAINPID=1"), 0);
        assert_string_equal(manager_receive(manager), "STATUS=app x MAINPID=1 failed");
}

static void descriptors_are_stored_and_removed_by_name(void **state)
{
        Manager *manager = *state;
        struct stat sent, got;
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        assert_int_equal(notify_store_fd("map", fds[0], false), 0);
        assert_string_equal(manager_receive(manager), "FDSTORE=1\nFDNAME=map\nFDPOLL=0");
        assert_true(manager->fd >= 0);
        assert_int_equal(fstat(fds[0], &sent), 0);
        assert_int_equal(fstat(manager->fd, &got), 0);
        assert_true(sent.st_ino == got.st_ino);
        close(manager->fd);
        assert_int_equal(notify_store_fd("listener", fds[1], true), 0);
        assert_string_equal(manager_receive(manager), "FDSTORE=1\nFDNAME=listener");
        close(manager->fd);
        assert_int_equal(notify_remove_fds("map"), 0);
        assert_string_equal(manager_receive(manager), "FDSTOREREMOVE=1\nFDNAME=map");
        close(fds[0]);
        close(fds[1]);
}

static void the_watchdog_is_due_at_half_its_time_for_this_process_alone(void **state)
{
        char pid[32];

        assert_true(notify_watchdog_ns() == 0);
        setenv("WATCHDOG_USEC", "2000000", 1);
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        setenv("WATCHDOG_PID", pid, 1);
        assert_true(notify_watchdog_ns() == UINT64_C(1000000000));
        setenv("WATCHDOG_PID", "1", 1);
        assert_true(notify_watchdog_ns() == 0);
}

static void outside_systemd_nothing_happens(void **state)
{
        unsetenv("NOTIFY_SOCKET");
        setenv("WATCHDOG_USEC", "2000000", 1);
        assert_false(notify_is_wanted());
        assert_int_equal(notify_ready("x"), 0);
        assert_int_equal(notify_watchdog(), 0);
        assert_int_equal(notify_store_fd("x", 0, true), 0);
        assert_int_equal(notify_remove_fds("x"), 0);
        assert_true(notify_watchdog_ns() == 0);
}

static void a_manager_that_is_gone_is_an_error(void **state)
{
        Manager *manager = *state;

        unlink(manager->path);
        assert_int_equal(notify_status("x"), -ENOENT);
}

#define with_manager(_test) cmocka_unit_test_setup_teardown(_test, manager_new, manager_free)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                with_manager(states_arrive_as_systemd_expects_them),
                with_manager(a_status_cannot_carry_another_assignment),
                with_manager(descriptors_are_stored_and_removed_by_name),
                with_manager(the_watchdog_is_due_at_half_its_time_for_this_process_alone),
                with_manager(outside_systemd_nothing_happens),
                with_manager(a_manager_that_is_gone_is_an_error),
        };

        return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
