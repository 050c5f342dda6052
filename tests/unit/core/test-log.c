/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/log.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#define LINE_BYTES ((size_t)16384) /* log.h */

static int saved_stderr = -1, capture_fd = -1;

static void capture_begin(void)
{
        capture_fd = memfd_create("stderr", MFD_CLOEXEC);
        saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        assert_true(capture_fd >= 0 && saved_stderr >= 0);
        assert_true(dup2(capture_fd, STDERR_FILENO) >= 0);
}

/* What was written since, NUL-terminated, malloc'd. */
static char *capture_end(void)
{
        off_t size = lseek(capture_fd, 0, SEEK_END);
        char *text = calloc(1, (size_t)size + 1);

        assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
        assert_true(pread(capture_fd, text, (size_t)size, 0) == size);
        close(saved_stderr);
        close(capture_fd);
        return text;
}

static void lines_name_the_program_and_what_is_bad(void **state)
{
        static const char *const fields[] = { "APP", "blog", "OBJECT_ID", "00ff", NULL };
        _cleanup_(free_p) char *text = NULL;

        capture_begin();
        log_open("durabled", LOG_INFO);
        log_error("cannot open %s: %s", "/x", "No such file");
        log_warn("slow");
        log_note("ready");
        log_info("hello");
        log_debug("not shown");
        log_fields(LOG_INFO, fields, "opened");
        log_set_max(LOG_DEBUG_);
        log_debug("shown");
        log_open("blog/0", LOG_ERROR);
        log_warn("not shown");
        log_error("shown");
        text = capture_end();
        assert_string_equal(text, "durabled: error: cannot open /x: No such file\n"
                                  "durabled: warning: slow\n"
                                  "durabled: ready\n"
                                  "durabled: hello\n"
                                  "durabled: opened [APP=blog OBJECT_ID=00ff]\n"
                                  "durabled: shown\n"
                                  "blog/0: error: shown\n");
        log_close();
}

static void a_client_cannot_forge_a_line_or_steer_a_terminal(void **state)
{
        static const char *const fields[] = { "PATH", "/\ndurabled: z", NULL };
        _cleanup_(free_p) char *text = NULL;

        capture_begin();
        log_open("durabled", LOG_INFO);
        log_info("path '%s'", "/x\ndurabled: error: all is lost\x1b[2J\r\x7f\tok \xc3\xa9");
        log_fields(LOG_INFO, fields, "y");
        text = capture_end();
        assert_string_equal(text,
                "durabled: path '/x\n    durabled: error: all is lost?[2J??\tok \xc3\xa9'\n"
                "durabled: y [PATH=/\n    durabled: z]\n");
}

static void a_long_line_is_cut_between_characters_and_marked(void **state)
{
        _cleanup_(free_p) char *text = NULL;
        static char longest[LINE_BYTES + 1], longer[2 * LINE_BYTES];
        size_t len;

        memset(longest, 'a', LINE_BYTES);
        longest[LINE_BYTES] = '\0';
        for (size_t i = 0; i < sizeof longer - 2; i += 2)
                memcpy(longer + i, "\xc3\xa9", 2);
        longer[sizeof longer - 2] = '\0';
        capture_begin();
        log_open("d", LOG_INFO);
        log_info("%s", longest);
        log_info("x%s", longer);
        text = capture_end();
        len = strlen(text);
        assert_int_equal(text[3 + LINE_BYTES], '\n');
        assert_memory_equal(text + 3, longest, LINE_BYTES);
        /* The second: "d: x", whole characters, the mark. */
        assert_string_equal(text + len - 9, "\xc3\xa9 [cut]\n");
        assert_true(len - (3 + LINE_BYTES + 1) <= 3 + LINE_BYTES + 1);
        assert_true(len - (3 + LINE_BYTES + 1) >= 3 + LINE_BYTES - 1);
}

static void errno_is_left_as_it_was(void **state)
{
        _cleanup_(free_p) char *text = NULL;
        int fd;

        capture_begin();
        log_open("d", LOG_INFO);
        fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
        assert_true(dup2(fd, STDERR_FILENO) >= 0);
        errno = ENOTTY;
        log_info("nobody reads this");
        assert_int_equal(errno, ENOTTY);
        close(fd);
        text = capture_end();
        assert_string_equal(text, "");
}

static void *write_lines(void *data)
{
        for (int i = 0; i < 500; i++)
                log_info("thread %s line %d of many", (const char *)data, i);
        return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
        static const char *const names[] = { "aaaa", "bbbb", "cccc" };
        _cleanup_(free_p) char *text = NULL;
        pthread_t threads[ELEMENTSOF(names)];
        int next[ELEMENTSOF(names)] = {};
        Slice rest;

        capture_begin();
        assert_true(fcntl(STDERR_FILENO, F_SETFL, O_APPEND) == 0);
        log_open("d", LOG_INFO);
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                assert_int_equal(
                        pthread_create(&threads[i], NULL, write_lines, (void *)(uintptr_t)names[i]),
                        0);
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                pthread_join(threads[i], NULL);
        text = capture_end();
        rest = slice_from(text);
        while (rest.len) {
                Slice line = slice_cut(&rest, '\n');
                char expected[64];
                size_t i = line.len > 10 ? (size_t)(line.data[10] - 'a') : 3;

                if (i >= ELEMENTSOF(names)) {
                        fail_msg("no such thread: %.*s", SLICE_FMT(line));
                        return;
                }
                snprintf(expected, sizeof expected, "d: thread %s line %d of many", names[i],
                        next[i]++);
                assert_true(slice_equal(line, slice_from(expected)));
        }
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                assert_int_equal(next[i], 500);
}

/* In a child with a /run of its own: a journal socket that we hold. Exit status, 77: not possible.
 */
static int child_with_journal(void)
{
        static const char *const fields[] = { "OBJECT_ID", "00ff", NULL };
        struct sockaddr_un address = { .sun_family = AF_UNIX,
                .sun_path = "/run/systemd/journal/socket" };
        char got[8192] = {}, stream[64];
        struct stat st;
        int fd, file;
        ssize_t n;

        if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) < 0 ||
                mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
                return 77;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        file = memfd_create("stderr", MFD_CLOEXEC);
        if (mkdir("/run/systemd", 0755) < 0 || mkdir("/run/systemd/journal", 0755) < 0 ||
                bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
                dup2(file, STDERR_FILENO) < 0 || fstat(STDERR_FILENO, &st) < 0)
                return 77;
        snprintf(stream, sizeof stream, "%lu:%lu", (unsigned long)st.st_dev,
                (unsigned long)st.st_ino);
        setenv("JOURNAL_STREAM", stream, 1);
        log_open("blog/0", LOG_INFO);
        log_fields(LOG_WARN, fields, "two\nlines");
        n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
        if (n <= 0 || fstat(file, &st) < 0 || st.st_size != 0)
                return 1;
        if (!memmem(got, (size_t)n, "PRIORITY=4\n", 11) ||
                !memmem(got, (size_t)n, "SYSLOG_IDENTIFIER=blog/0\n", 25) ||
                !memmem(got, (size_t)n, "OBJECT_ID=00ff\n", 15) ||
                !memmem(got, (size_t)n, "MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n", 26))
                return 2;
        /* A stream that is another file than standard error: not the journal. */
        setenv("JOURNAL_STREAM", "1:1", 1);
        log_open("blog/0", LOG_INFO);
        log_info("plain");
        if (recv(fd, got, sizeof got - 1, MSG_DONTWAIT) >= 0 || fstat(file, &st) < 0 ||
                st.st_size != sizeof "blog/0: plain\n" - 1)
                return 3;
        return 0;
}

static void the_journal_gets_priority_name_and_fields(void **state)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(child_with_journal());
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
                skip();
        assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(lines_name_the_program_and_what_is_bad),
                cmocka_unit_test(a_client_cannot_forge_a_line_or_steer_a_terminal),
                cmocka_unit_test(a_long_line_is_cut_between_characters_and_marked),
                cmocka_unit_test(errno_is_left_as_it_was),
                cmocka_unit_test(lines_of_threads_do_not_mix),
                cmocka_unit_test(the_journal_gets_priority_name_and_fields),
        };

        return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
