/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/routes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static char binding[] = "DO";

static Routes *open_routes(ManifestRoute *routes, size_t n, size_t learned_max)
{
        static Manifest manifest;
        Routes *ret;

        manifest = (Manifest){ .routes = routes, .n_routes = n };
        for (size_t i = 0; i < n; i++)
                routes[i].binding = binding;
        assert_int_equal(routes_new(&manifest, learned_max, &ret), 0);
        return ret;
}

static const char *find(Routes *routes, const char *host, const char *path)
{
        static RouteTarget target;

        if (!routes_find(routes, slice_from(host), slice_from(path), &target) || !target.route)
                return NULL;
        return target.name;
}

static int find_shard(Routes *routes, const char *host, const char *path)
{
        RouteTarget target;

        return routes_find(routes, slice_from(host), slice_from(path), &target) ? target.shard : -1;
}

static void a_segment_names_the_object(void **state)
{
        ManifestRoute list[] = { { .pattern = (char[]){ "/t/{tenant}/*" },
                .name = (char[]){ "tenant-{tenant}" } } };
        _cleanup_(routes_free_p) Routes *routes = open_routes(list, 1, 0);

        assert_string_equal(find(routes, "any:80", "/t/acme/posts/1"), "tenant-acme");
        assert_string_equal(find(routes, "any", "/t/acme/"), "tenant-acme");
        /* The app has to see it, to redirect to the one with a slash. */
        assert_string_equal(find(routes, "any", "/t/acme"), "tenant-acme");
        assert_string_equal(find(routes, "any", "/t/%61cm%65/x"), "tenant-acme");
        assert_string_equal(find(routes, "any", "/%74/a%2Fb/x"), "tenant-a/b");
        assert_null(find(routes, "any", "/t//x"));
        assert_null(find(routes, "any", "/t"));
        assert_null(find(routes, "any", "/T/acme"));
        assert_null(find(routes, "any", "/t/a%00b"));
        assert_null(find(routes, "any", "/t/a%zz"));
        assert_null(find(routes, "any", "*"));
        assert_null(find(routes, "any", ""));
}

static void a_label_of_the_host_names_the_object(void **state)
{
        ManifestRoute list[] = {
                { .pattern = (char[]){ "{tenant}.example.com/blog/{slug}" },
                        .name = (char[]){ "{slug}@{tenant}" } },
                { .pattern = (char[]){ "{tenant}.example.com:8443/*" },
                        .name = (char[]){ "secure" } },
                { .pattern = (char[]){ "{tenant}.example.com/*" }, .name = (char[]){ "{tenant}" } },
        };
        _cleanup_(routes_free_p) Routes *routes = open_routes(list, 3, 0);

        assert_string_equal(find(routes, "Acme.EXAMPLE.com:8787", "/"), "acme");
        assert_string_equal(find(routes, "acme.example.com.", "/x/y"), "acme");
        assert_string_equal(find(routes, "acme.example.com:8443", "/x"), "secure");
        assert_string_equal(find(routes, "ACME.example.com", "/blog/Hello"), "Hello@acme");
        assert_string_equal(find(routes, "acme.example.com", "/blog/Hello/"), "acme");
        assert_null(find(routes, "example.com", "/"));
        assert_null(find(routes, "a.acme.example.com", "/"));
        assert_null(find(routes, ".example.com", "/"));
        assert_null(find(routes, "acme.example.com.evil.org", "/"));
        assert_null(find(routes, "[::1]:80", "/"));
}

static void routes_are_tried_in_their_order(void **state)
{
        ManifestRoute list[] = {
                { .pattern = (char[]){ "/a/b" }, .name = (char[]){ "exact" } },
                { .pattern = (char[]){ "/a/{x}" }, .name = (char[]){ "x-{x}" } },
                { .pattern = (char[]){ "/" }, .name = (char[]){ "root" } },
                { .pattern = (char[]){ "/*" }, .name = (char[]){ "all" } },
        };
        _cleanup_(routes_free_p) Routes *routes = open_routes(list, 4, 0);

        assert_string_equal(find(routes, "h", "/a/b"), "exact");
        assert_string_equal(find(routes, "h", "/a/c"), "x-c");
        assert_string_equal(find(routes, "h", "/"), "root");
        assert_string_equal(find(routes, "h", "/a/b/"), "all");
}

static void a_name_that_is_too_long_names_nothing(void **state)
{
        ManifestRoute list[] = {
                { .pattern = (char[]){ "/{x}" }, .name = (char[]){ "t{x}" } },
        };
        _cleanup_(routes_free_p) Routes *routes = open_routes(list, 1, 0);
        char path[300] = "/";

        memset(path + 1, 'a', 254);
        assert_int_equal(strlen(find(routes, "h", path)), 255);
        path[255] = 'a';
        assert_null(find(routes, "h", path));
}

static void a_pattern_with_too_many_parts_is_refused(void **state)
{
        char pattern[256] = "";
        ManifestRoute list[] = { { .pattern = pattern, .name = (char[]){ "x" } } };
        Manifest manifest = { .routes = list, .n_routes = 1 };
        Routes *routes = NULL;

        for (size_t i = 0; i < 33; i++)
                strcat(pattern, "/a");
        assert_int_equal(routes_new(&manifest, 0, &routes), -E2BIG);
        assert_null(routes);
}

static void the_same_path_is_learned_at_once(void **state)
{
        _cleanup_(routes_free_p) Routes *routes = open_routes(NULL, 0, 0);

        assert_int_equal(find_shard(routes, "h", "/t/acme/x"), -1);
        routes_learn(routes, slice_from("h"), slice_from("/t/acme/x"), 77);
        assert_int_equal(find_shard(routes, "h", "/t/acme/x"), 77);
        assert_int_equal(find_shard(routes, "H", "/t/acme/x"), 77);
        assert_int_equal(find_shard(routes, "other", "/t/acme/x"), -1);
        assert_int_equal(find_shard(routes, "h", "/t/acme/y"), -1);
}

static void one_object_for_all_is_learned_by_the_host(void **state)
{
        _cleanup_(routes_free_p) Routes *routes = open_routes(NULL, 0, 0);
        char path[32];

        for (size_t i = 0; i < 4; i++) {
                snprintf(path, sizeof path, "/posts/%zu", i);
                routes_learn(routes, slice_from("h"), slice_from(path), 5);
        }
        assert_int_equal(find_shard(routes, "h", "/never/seen"), 5);
        assert_int_equal(find_shard(routes, "h", "/"), 5);
}

static void tenants_of_a_path_are_told_apart(void **state)
{
        _cleanup_(routes_free_p) Routes *routes = open_routes(NULL, 0, 0);
        char path[64];

        for (unsigned round = 0; round < 40; round++)
                for (unsigned tenant = 0; tenant < 20; tenant++) {
                        snprintf(path, sizeof path, "/t/%u/page/%u", tenant, round);
                        routes_learn(routes, slice_from("h"), slice_from(path), tenant * 100);
                }
        for (unsigned tenant = 0; tenant < 20; tenant++) {
                snprintf(path, sizeof path, "/t/%u/something/else", tenant);
                assert_int_equal(find_shard(routes, "h", path), tenant * 100);
        }
        /* Nobody can know where a new one goes. */
        assert_int_equal(find_shard(routes, "h", "/t/new/page/1"), -1);
}

static void what_moved_is_learned_anew(void **state)
{
        _cleanup_(routes_free_p) Routes *routes = open_routes(NULL, 0, 0);

        for (unsigned i = 0; i < 10; i++)
                routes_learn(routes, slice_from("h"), slice_from("/a"), 1);
        assert_int_equal(find_shard(routes, "h", "/a"), 1);
        routes_learn(routes, slice_from("h"), slice_from("/a"), 2);
        assert_int_equal(find_shard(routes, "h", "/a"), -1);
        for (unsigned i = 0; i < 10; i++)
                routes_learn(routes, slice_from("h"), slice_from("/a"), 2);
        assert_int_equal(find_shard(routes, "h", "/a"), 2);
}

static void the_table_forgets_the_least_recently_used(void **state)
{
        _cleanup_(routes_free_p) Routes *routes = open_routes(NULL, 0, 8);
        char path[32];

        for (unsigned i = 0; i < 1000; i++) {
                snprintf(path, sizeof path, "/%u", i);
                routes_learn(routes, slice_from("h"), slice_from(path), i);
        }
        assert_int_equal(find_shard(routes, "h", "/999"), 999);
        assert_int_equal(find_shard(routes, "h", "/1"), -1);
}

static void what_is_too_long_for_a_key_is_not_learned(void **state)
{
        _cleanup_(routes_free_p) Routes *routes = open_routes(NULL, 0, 0);
        char *host = calloc(1, 5001), path[3000] = "/a/";

        memset(host, 'h', 5000);
        memset(path + 3, 'x', sizeof path - 4);
        routes_learn(routes, slice_from(host), slice_from("/a"), 9);
        assert_int_equal(find_shard(routes, host, "/a"), -1);
        routes_learn(routes, slice_from("h"), slice_from(path), 9);
        assert_int_equal(find_shard(routes, "h", path), 9);
        free(host);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_segment_names_the_object),
                cmocka_unit_test(a_label_of_the_host_names_the_object),
                cmocka_unit_test(routes_are_tried_in_their_order),
                cmocka_unit_test(a_name_that_is_too_long_names_nothing),
                cmocka_unit_test(a_pattern_with_too_many_parts_is_refused),
                cmocka_unit_test(the_same_path_is_learned_at_once),
                cmocka_unit_test(one_object_for_all_is_learned_by_the_host),
                cmocka_unit_test(tenants_of_a_path_are_told_apart),
                cmocka_unit_test(what_moved_is_learned_anew),
                cmocka_unit_test(the_table_forgets_the_least_recently_used),
                cmocka_unit_test(what_is_too_long_for_a_key_is_not_learned),
        };

        return cmocka_run_group_tests_name("routes", tests, NULL, NULL);
}
