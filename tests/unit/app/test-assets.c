/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <cmocka.h>

#define BIG_SIZE ((1u << 20) + 4321)

typedef struct Site {
        char root[64]; /* holds site/, the folder, and secret.txt beside it */
        char folder[80];
        Ring *ring;
        Assets *assets;
} Site;

static Site site;

static void put(const char *name, const void *data, size_t len)
{
        char path[256];
        int fd;

        snprintf(path, sizeof path, "%s/%s", site.folder, name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(fd_write_all(fd, data, len), 0);
        close(fd);
}

static void put_text(const char *name, const char *text)
{
        put(name, text, strlen(text));
}

static void make_folder(const char *name)
{
        char path[256];

        snprintf(path, sizeof path, "%s/%s", site.folder, name);
        assert_int_equal(dir_create(path, 0755), 0);
}

static void link_to(const char *target, const char *name)
{
        char path[256];

        snprintf(path, sizeof path, "%s/%s", site.folder, name);
        assert_int_equal(symlink(target, path), 0);
}

static char big_byte(size_t i)
{
        return (char)(i * 31 + i / 4096);
}

static int set_up(void **state)
{
        AssetsOptions options = { .directory = site.folder, .revalidate_ns = 1 };
        char *big = malloc(BIG_SIZE);

        strcpy(site.root, "/tmp/durabled-assets-XXXXXX");
        assert_non_null(mkdtemp(site.root));
        snprintf(site.folder, sizeof site.folder, "%s/site", site.root);
        make_folder("css");
        make_folder("docs");
        make_folder(".git");
        make_folder(".well-known");
        put_text("index.html", "<h1>home</h1>");
        put_text("docs/index.html", "<h1>docs</h1>");
        put_text("css/site.css", "body{}");
        put_text("css/site.css.br", "BR");
        put_text("css/site.css.gz", "GZIP");
        put_text("css/site.5af66c1b1797.css", "body{}");
        put_text("a b.txt", "spaces");
        put_text("empty.txt", "");
        put_text("digits.txt", "0123456789");
        put_text(".env", "SECRET=1");
        put_text(".git/config", "secret");
        put_text(".well-known/security.txt", "mail us");
        put_text("../secret.txt", "secret");
        for (size_t i = 0; i < BIG_SIZE; i++)
                big[i] = big_byte(i);
        put("big.bin", big, BIG_SIZE);
        free(big);
        link_to("../secret.txt", "out.txt");
        link_to("/etc/passwd", "absolute.txt");
        link_to("..", "up");
        link_to("css/site.css", "inside.css");
        link_to("/proc/self/root", "magic");
        link_to("loop", "loop");
        assert_int_equal(ring_new(&(RingOptions){ 0 }, &site.ring), 0);
        options.ring = site.ring;
        assert_int_equal(assets_new(&options, &site.assets), 0);
        return 0;
}

static int tear_down(void **state)
{
        char command[128];

        assets_free(site.assets);
        ring_free(site.ring);
        snprintf(command, sizeof command, "rm -rf '%s'", site.root);
        return system(command);
}

typedef struct Got {
        unsigned status; /* 0: no file */
        Response *response;
        Buf body;
        bool aborted;
} Got;

static void got_done(Got *got)
{
        response_unref(got->response);
        buf_done(&got->body);
}

static Request *make_request(const char *method, const char *path, const char *const *headers)
{
        HttpHeader list[8];
        RequestParts parts = { .method = slice_from(method),
                .path = slice_from(path),
                .query = SLICE("q=1"),
                .headers = list,
                .body_fd = -1 };
        Request *request;

        for (; headers && headers[0]; headers += 2)
                list[parts.n_headers++] =
                        (HttpHeader){ slice_from(headers[0]), slice_from(headers[1]) };
        assert_int_equal(request_new(&parts, &request), 0);
        return request;
}

/* Time has to pass for the cache to look again, and the ring's clock moves by iterations. */
static void tick(void)
{
        assert_int_equal(ring_run_once(site.ring, 1), 0);
}

static Got get_full(const char *method, const char *path, const char *const *headers)
{
        _cleanup_(request_unref_p) Request *request = make_request(method, path, headers);
        Got got = { .body = BUF_INIT(0) };

        tick();
        assert_int_equal(assets_serve(site.assets, request, &got.response), 0);
        assert_int_equal(
                assets_has(site.assets, request->method, request->path), got.response != NULL);
        if (!got.response)
                return got;
        for (;;) {
                Chunk *chunk = response_pop(got.response);

                if (chunk) {
                        assert_int_equal(buf_append(&got.body, chunk->data, chunk->len), 0);
                        chunk_free(chunk);
                } else if (response_is_drained(got.response)) {
                        break;
                } else if (response_get_state(got.response) == RESPONSE_ABORTED) {
                        got.aborted = true;
                        break;
                } else {
                        assert_int_equal(ring_run_once(site.ring, NSEC_PER_SEC), 0);
                }
        }
        got.status = response_get_head(got.response)->status;
        return got;
}

static Got get(const char *path)
{
        return get_full("GET", path, NULL);
}

static Got get_with(const char *path, const char *name, const char *value)
{
        return get_full("GET", path, (const char *const[]){ name, value, NULL });
}

static const char *header(const Got *got, const char *name)
{
        static char text[4][256];
        static unsigned at;
        const ResponseHead *head = response_get_head(got->response);

        for (size_t i = 0; i < head->n_headers; i++)
                if (slice_equal_case(head->headers[i].name, slice_from(name))) {
                        char *to = text[at++ % 4];

                        snprintf(to, sizeof text[0], "%.*s", SLICE_FMT(head->headers[i].value));
                        return to;
                }
        return "";
}

static void check_body(Got *got, unsigned status, const char *body)
{
        assert_int_equal(got->status, status);
        assert_false(got->aborted);
        assert_true(slice_equal(buf_slice(&got->body), slice_from(body)));
        got_done(got);
}

static void check_absent(const char *path)
{
        Got got = get(path);

        if (got.response)
                fail_msg("%s is served", path);
        got_done(&got);
}

static void a_file_is_served_with_its_headers(void **state)
{
        Got got = get("/digits.txt");

        assert_string_equal(header(&got, "Content-Type"), "text/plain; charset=utf-8");
        assert_string_equal(header(&got, "Cache-Control"), "public, max-age=0, must-revalidate");
        assert_string_equal(header(&got, "X-Content-Type-Options"), "nosniff");
        assert_string_equal(header(&got, "Accept-Ranges"), "bytes");
        assert_string_equal(header(&got, "Vary"), "");
        assert_int_equal(strlen(header(&got, "Last-Modified")), 29);
        assert_int_equal(header(&got, "ETag")[0], '"');
        assert_int_equal(response_get_head(got.response)->content_length, 10);
        check_body(&got, 200, "0123456789");
        got = get("/a%20b.txt");
        check_body(&got, 200, "spaces");
        got = get("/empty.txt");
        check_body(&got, 200, "");
        got = get("/.well-known/security.txt");
        check_body(&got, 200, "mail us");
        got = get("/inside.css");
        check_body(&got, 200, "body{}");
}

static void names_with_a_hash_never_change(void **state)
{
        Got got = get("/css/site.5af66c1b1797.css");

        assert_string_equal(header(&got, "Cache-Control"), "public, max-age=31536000, immutable");
        check_body(&got, 200, "body{}");
        put_text("report.20261122.pdf", "%PDF");
        got = get("/report.20261122.pdf");
        assert_string_equal(header(&got, "Cache-Control"), "public, max-age=0, must-revalidate");
        assert_string_equal(header(&got, "Content-Type"), "application/pdf");
        check_body(&got, 200, "%PDF");
}

static void folders_mean_their_index(void **state)
{
        Got got = get("/");

        assert_string_equal(header(&got, "Content-Type"), "text/html; charset=utf-8");
        check_body(&got, 200, "<h1>home</h1>");
        got = get("/docs/");
        check_body(&got, 200, "<h1>docs</h1>");
        got = get("/docs");
        assert_string_equal(header(&got, "Location"), "/docs/?q=1");
        check_body(&got, 307, "");
        check_absent("/css");
        check_absent("/css/");
        check_absent("/digits.txt/");
        check_absent("//docs");
}

static void nothing_leads_out_of_the_folder(void **state)
{
        static const char *const paths[] = { "/../secret.txt", "/%2e%2e/secret.txt",
                "/%2E%2E/secret.txt", "/css/../../secret.txt", "/css/%2e%2e/%2e%2e/secret.txt",
                "/..%2fsecret.txt", "/%2e%2e%2fsecret.txt", "/css%2fsite.css", "/css%2Fsite.css",
                "/..\\secret.txt", "/%2e%2e%5csecret.txt", "/out.txt", "/absolute.txt",
                "/up/secret.txt", "/magic/etc/passwd", "/loop", "//etc/passwd", "/%2fetc/passwd",
                "/%00", "/digits.txt%00.html", "/digits.txt%", "/digits.txt%2", "/./digits.txt",
                "/css/./site.css", "/css//site.css", "etc/passwd", "", "*",
                "/%252e%252e/secret.txt" };
        char with_nul[] = "/digits.txt\0.html";
        char *longest = malloc(20001);

        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                check_absent(paths[i]);
#ifndef WITHOUT_OPENAT2
        check_absent("/up/site/index.html"); /* out and in again */
#endif
        assert_false(
                assets_has(site.assets, SLICE("GET"), slice_of(with_nul, sizeof with_nul - 1)));
        memset(longest, '/', 20000);
        longest[20000] = '\0';
        check_absent(longest);
        memset(longest + 1, 'a', 19999);
        check_absent(longest);
        longest[900] = '\0';
        check_absent(longest);
        free(longest);
}

static void hidden_files_and_other_methods_are_not_served(void **state)
{
        Got got;

        check_absent("/.env");
        check_absent("/%2eenv");
        check_absent("/.git/config");
        check_absent("/css/.well-known/x");
        got = get_full("POST", "/digits.txt", NULL);
        assert_null(got.response);
        got_done(&got);
}

static void things_that_are_no_files_are_not_served(void **state)
{
        char path[256];

        snprintf(path, sizeof path, "%s/pipe", site.folder);
        assert_int_equal(mkfifo(path, 0644), 0);
        check_absent("/pipe");
}

static void head_has_no_body(void **state)
{
        Got got = get_full("HEAD", "/digits.txt", NULL);

        assert_int_equal(response_get_head(got.response)->content_length, 10);
        check_body(&got, 200, "");
        got = get_full("HEAD", "/big.bin", NULL);
        assert_int_equal(response_get_head(got.response)->content_length, BIG_SIZE);
        check_body(&got, 200, "");
}

static void conditions_are_answered_by_304(void **state)
{
        Got got = get("/digits.txt");
        char etag[64], weak[80], modified[64];

        snprintf(etag, sizeof etag, "%s", header(&got, "ETag"));
        snprintf(weak, sizeof weak, "\"x\", W/%s", etag);
        snprintf(modified, sizeof modified, "%s", header(&got, "Last-Modified"));
        got_done(&got);
        got = get_with("/digits.txt", "If-None-Match", etag);
        assert_string_equal(header(&got, "ETag"), etag);
        check_body(&got, 304, "");
        got = get_with("/digits.txt", "If-None-Match", weak);
        check_body(&got, 304, "");
        got = get_with("/digits.txt", "If-None-Match", "*");
        check_body(&got, 304, "");
        got = get_with("/digits.txt", "If-None-Match", "\"other\"");
        check_body(&got, 200, "0123456789");
        got = get_with("/digits.txt", "If-Modified-Since", modified);
        check_body(&got, 304, "");
        got = get_with("/digits.txt", "If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT");
        check_body(&got, 200, "0123456789");
        got = get_with("/digits.txt", "If-Modified-Since", "yesterday");
        check_body(&got, 200, "0123456789");
        got = get_full("GET", "/digits.txt",
                (const char *const[]){
                        "If-None-Match", "\"other\"", "If-Modified-Since", modified, NULL });
        check_body(&got, 200, "0123456789");
}

static void check_range(
        const char *range, unsigned status, const char *content_range, const char *body)
{
        Got got = get_with("/digits.txt", "Range", range);

        assert_string_equal(header(&got, "Content-Range"), content_range);
        assert_int_equal(response_get_head(got.response)->content_length, strlen(body));
        check_body(&got, status, body);
}

static void ranges_are_parts_of_the_file(void **state)
{
        check_range("bytes=0-3", 206, "bytes 0-3/10", "0123");
        check_range("bytes=4-", 206, "bytes 4-9/10", "456789");
        check_range("bytes=-3", 206, "bytes 7-9/10", "789");
        check_range("bytes=-30", 206, "bytes 0-9/10", "0123456789");
        check_range("bytes=9-9", 206, "bytes 9-9/10", "9");
        check_range("bytes=5-1000", 206, "bytes 5-9/10", "56789");
        check_range("bytes=10-", 416, "bytes */10", "");
        check_range("bytes=-0", 416, "bytes */10", "");
        check_range("bytes=5-4", 200, "", "0123456789");
        check_range("bytes=0-1,3-4", 200, "", "0123456789");
        check_range("lines=0-1", 200, "", "0123456789");
        check_range("bytes=a-b", 200, "", "0123456789");
        check_range("bytes=-", 200, "", "0123456789");
        check_range("bytes=99999999999999999999-", 200, "", "0123456789");
}

static void if_range_holds_for_the_same_file_alone(void **state)
{
        Got got = get("/digits.txt");
        char etag[64], modified[64];

        snprintf(etag, sizeof etag, "%s", header(&got, "ETag"));
        snprintf(modified, sizeof modified, "%s", header(&got, "Last-Modified"));
        got_done(&got);
        got = get_full("GET", "/digits.txt",
                (const char *const[]){ "Range", "bytes=1-2", "If-Range", etag, NULL });
        check_body(&got, 206, "12");
        got = get_full("GET", "/digits.txt",
                (const char *const[]){ "Range", "bytes=1-2", "If-Range", modified, NULL });
        check_body(&got, 206, "12");
        got = get_full("GET", "/digits.txt",
                (const char *const[]){ "Range", "bytes=1-2", "If-Range", "\"old\"", NULL });
        check_body(&got, 200, "0123456789");
}

static void a_big_file_streams_under_back_pressure(void **state)
{
        _cleanup_(request_unref_p) Request *request = make_request("GET", "/big.bin", NULL);
        Response *response;
        Got got;

        tick();
        assert_int_equal(assets_serve(site.assets, request, &response), 0);
        for (size_t i = 0; i < 50; i++)
                assert_int_equal(ring_run_once(site.ring, NSEC_PER_MSEC), 0);
        /* Nobody takes anything: it waits with the queue full. */
        assert_true(response_is_full(response));
        assert_int_equal(response_get_state(response), RESPONSE_STARTED);
        response_cancel(response);
        response_unref(response);
        got = get("/big.bin");
        assert_int_equal(got.body.len, BIG_SIZE);
        for (size_t i = 0; i < BIG_SIZE; i++)
                if (buf_data(&got.body)[i] != big_byte(i))
                        fail_msg("byte %zu differs", i);
        got_done(&got);
        got = get_with("/big.bin", "Range", "bytes=70000-270000");
        assert_int_equal(got.status, 206);
        assert_int_equal(got.body.len, 200001);
        for (size_t i = 0; i < got.body.len; i++)
                if (buf_data(&got.body)[i] != big_byte(i + 70000))
                        fail_msg("byte %zu differs", i);
        got_done(&got);
}

static void a_stream_that_nobody_wants_ends_while_it_reads(void **state)
{
        _cleanup_(request_unref_p) Request *request = make_request("GET", "/big.bin", NULL);
        Response *response;

        tick();
        assert_int_equal(assets_serve(site.assets, request, &response), 0);
        response_cancel(response);
        response_unref(response);
        for (size_t i = 0; i < 20; i++)
                assert_int_equal(ring_run_once(site.ring, NSEC_PER_MSEC), 0);
}

static void a_file_that_shrinks_while_it_is_sent_is_aborted(void **state)
{
        _cleanup_(request_unref_p) Request *request = NULL;
        char path[256], *data = calloc(1, BIG_SIZE);
        Response *response;
        Chunk *chunk;

        put("shrink.bin", data, BIG_SIZE);
        free(data);
        request = make_request("GET", "/shrink.bin", NULL);
        tick();
        assert_int_equal(assets_serve(site.assets, request, &response), 0);
        snprintf(path, sizeof path, "%s/shrink.bin", site.folder);
        assert_int_equal(truncate(path, 100000), 0);
        for (size_t i = 0; i < 100 && response_get_state(response) == RESPONSE_STARTED; i++) {
                assert_int_equal(ring_run_once(site.ring, 10 * NSEC_PER_MSEC), 0);
                while ((chunk = response_pop(response)))
                        chunk_free(chunk);
        }
        assert_int_equal(response_get_state(response), RESPONSE_ABORTED);
        response_unref(response);
}

static void check_coding(const char *accept, const char *coding, const char *body)
{
        Got got = get_with("/css/site.css", "Accept-Encoding", accept);

        assert_string_equal(header(&got, "Content-Encoding"), coding);
        assert_string_equal(header(&got, "Content-Type"), "text/css; charset=utf-8");
        assert_string_equal(header(&got, "Vary"), "Accept-Encoding");
        check_body(&got, 200, body);
}

static void precompressed_files_are_sent_where_the_client_likes_them(void **state)
{
        Got got;

        check_coding("gzip, deflate, br", "br", "BR");
        check_coding("gzip", "gzip", "GZIP");
        check_coding("GZIP;q=1.0, br;q=0.5", "gzip", "GZIP");
        check_coding("br;q=0, gzip;q=0.001", "gzip", "GZIP");
        check_coding("br;q=0,gzip;q=0", "", "body{}");
        check_coding("*", "br", "BR");
        check_coding("*;q=0.5, br;q=0", "gzip", "GZIP");
        check_coding("identity, gzip;q=0.5", "", "body{}");
        check_coding("identity;q=0, gzip;q=0.5", "gzip", "GZIP");
        check_coding("br;q=x", "", "body{}");
        check_coding("", "", "body{}");
        check_coding("zstd", "", "body{}");
        got = get_full("GET", "/css/site.css",
                (const char *const[]){ "Accept-Encoding", "br", "Range", "bytes=0-1", NULL });
        assert_string_equal(header(&got, "Content-Encoding"), "");
        check_body(&got, 206, "bo");
        got = get("/css/site.css.gz");
        assert_string_equal(header(&got, "Content-Type"), "application/gzip");
        check_body(&got, 200, "GZIP");
}

static void changes_are_seen(void **state)
{
        char path[256];
        Got got = get("/changes.txt");

        assert_null(got.response);
        put_text("changes.txt", "one");
        got = get("/changes.txt");
        check_body(&got, 200, "one");
        put_text("changes.txt", "three");
        got = get("/changes.txt");
        check_body(&got, 200, "three");
        put_text("changes.txt.br", "BR");
        got = get_with("/changes.txt", "Accept-Encoding", "br");
        check_body(&got, 200, "BR");
        snprintf(path, sizeof path, "%s/changes.txt", site.folder);
        assert_int_equal(unlink(path), 0);
        check_absent("/changes.txt");
}

static void the_cache_keeps_within_its_memory(void **state)
{
        AssetsOptions options = { .ring = site.ring,
                .directory = site.folder,
                .memory_max = 300000,
                .revalidate_ns = 3600 * NSEC_PER_SEC };
        Assets *outer = site.assets;
        char *data = malloc(100000), name[32];
        Got got;

        assert_int_equal(assets_new(&options, &site.assets), 0);
        for (unsigned round = 0; round < 2; round++)
                for (unsigned i = 0; i < 8; i++) {
                        memset(data, 'a' + (int)i, 100000);
                        snprintf(name, sizeof name, "/cache%u.bin", i);
                        if (round == 0)
                                put(name + 1, data, 100000);
                        got = get(name);
                        assert_int_equal(got.body.len, 100000);
                        assert_memory_equal(buf_data(&got.body), data, 100000);
                        got_done(&got);
                        assert_in_range(site.assets->memory, 100000, 300000);
                }
        /* Far more names that are no files than it remembers. */
        for (unsigned i = 0; i < 20000; i++) {
                snprintf(name, sizeof name, "/none%u", i);
                assert_false(assets_has(site.assets, SLICE("GET"), slice_from(name)));
        }
        assert_in_range(site.assets->n_absent, 1000, 4096);
        assets_free(site.assets);
        site.assets = outer;
        free(data);
}

static void what_is_no_file_is_settled_by_its_first_segment(void **state)
{
        AssetsOptions options = {
                .ring = site.ring, .directory = site.folder, .revalidate_ns = 3600 * NSEC_PER_SEC
        };
        Assets *assets;
        char path[64];
        uint64_t start;
        double each;

        assert_int_equal(assets_new(&options, &assets), 0);
        start = clock_monotonic_ns();
        for (unsigned i = 0; i < 100000; i++) {
                int n = snprintf(path, sizeof path, "/posts/%u/comments/", i);

                assert_false(assets_has(assets, SLICE("GET"), slice_of(path, (size_t)n)));
        }
        each = (double)(clock_monotonic_ns() - start) / 100000;
        print_message("# %.0f ns a request, snprintf included\n", each);
        /* One look at the disk for all of them. */
        assert_int_equal(assets->map.len, 1);
        assets_free(assets);
}

static void a_folder_that_is_not_there_is_an_error(void **state)
{
        AssetsOptions options = { .ring = site.ring, .directory = "/nonexistent/folder" };
        Assets *assets = NULL;

        assert_int_equal(assets_new(&options, &assets), -ENOENT);
        assert_null(assets);
}

/* As systemd's RestrictSUIDSGID= does it. */
static void refuse_openat2(void)
{
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { ELEMENTSOF(code), code };

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
                prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
                abort();
        if (syscall(SYS_openat2, AT_FDCWD, "/", NULL, 0) != -1 || errno != ENOSYS)
                abort();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_file_is_served_with_its_headers),
                cmocka_unit_test(names_with_a_hash_never_change),
                cmocka_unit_test(folders_mean_their_index),
                cmocka_unit_test(nothing_leads_out_of_the_folder),
                cmocka_unit_test(hidden_files_and_other_methods_are_not_served),
                cmocka_unit_test(things_that_are_no_files_are_not_served),
                cmocka_unit_test(head_has_no_body),
                cmocka_unit_test(conditions_are_answered_by_304),
                cmocka_unit_test(ranges_are_parts_of_the_file),
                cmocka_unit_test(if_range_holds_for_the_same_file_alone),
                cmocka_unit_test(a_big_file_streams_under_back_pressure),
                cmocka_unit_test(a_stream_that_nobody_wants_ends_while_it_reads),
                cmocka_unit_test(a_file_that_shrinks_while_it_is_sent_is_aborted),
                cmocka_unit_test(precompressed_files_are_sent_where_the_client_likes_them),
                cmocka_unit_test(changes_are_seen),
                cmocka_unit_test(the_cache_keeps_within_its_memory),
                cmocka_unit_test(what_is_no_file_is_settled_by_its_first_segment),
                cmocka_unit_test(a_folder_that_is_not_there_is_an_error),
        };

#ifdef WITHOUT_OPENAT2
        refuse_openat2();
#else
        (void)refuse_openat2;
#endif
        return cmocka_run_group_tests_name("assets", tests, set_up, tear_down);
}
