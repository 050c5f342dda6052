/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/catalog.h"

#include "lib/base/file.h"
#include "lib/store/db.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define V1 "{\"tag\": \"v1\", \"new_sqlite_classes\": [\"Cart\"]}"
#define V2 ",\n{\"tag\": \"v2\", \"renamed_classes\": [{\"from\": \"Cart\", \"to\": \"Basket\"}]}"
#define V3 ",\n{\"tag\": \"v3\", \"new_sqlite_classes\": [\"Cart\"]}"

typedef struct Fixture {
        char folder[64];
        char *path;
        Catalog *catalog;
} Fixture;

static int open_catalog(void **state)
{
        Fixture *fixture = calloc(1, sizeof *fixture);

        strcpy(fixture->folder, "/tmp/durabled-catalog-XXXXXX");
        if (!mkdtemp(fixture->folder))
                return -1;
        fixture->path = path_join(fixture->folder, "catalog.sqlite");
        *state = fixture;
        return catalog_open(fixture->path, &fixture->catalog);
}

static int close_catalog(void **state)
{
        static const char *const suffixes[] = { "", "-wal", "-shm" };
        Fixture *fixture = *state;

        catalog_close(fixture->catalog);
        for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) {
                char path[128];

                snprintf(path, sizeof path, "%s%s", fixture->path, suffixes[i]);
                unlink(path);
        }
        rmdir(fixture->folder);
        free(fixture->path);
        free(fixture);
        return 0;
}

static Manifest *make_manifest(const char *app, const char *migrations, const char *bound_class)
{
        char text[2048], binding[128] = "";
        ManifestError error = {};
        Manifest *manifest = NULL;

        if (bound_class)
                snprintf(binding, sizeof binding, "{\"name\": \"B\", \"class_name\": \"%s\"}",
                        bound_class);
        snprintf(text, sizeof text,
                "{\"name\": \"%s\", \"main\": \"i.py\", \"migrations\": [\n%s],\n"
                "\"durable_objects\": {\"bindings\": [%s]}}",
                app, migrations, binding);
        if (manifest_parse(slice_from(text), &manifest, &error))
                fail_msg("%s: %s", error.key, error.message);
        return manifest;
}

/* Applies and compares with "Class=key ..." in order of creation. */
static void assert_applied(
        Fixture *fixture, const char *app, const char *migrations, const char *expected)
{
        _cleanup_(manifest_free_p) Manifest *manifest = make_manifest(app, migrations, NULL);
        CatalogClass *classes = NULL;
        CatalogError error = {};
        char got[512] = "";
        size_t n = 0;
        int r = catalog_apply(fixture->catalog, manifest, &classes, &n, &error);

        if (r)
                fail_msg("%d: %u: %s", r, error.line, error.message);
        for (size_t i = 0; i < n; i++)
                snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s=%s", i ? " " : "",
                        classes[i].class_name, classes[i].unique_key);
        assert_string_equal(got, expected);
        catalog_classes_free(classes, n);
}

static void assert_manifest_refused(
        Fixture *fixture, const Manifest *manifest, int code, unsigned line, const char *part)
{
        CatalogClass *classes = NULL;
        CatalogError error = {};
        size_t n = 99;
        int r = catalog_apply(fixture->catalog, manifest, &classes, &n, &error);

        if (r != code || error.line != line || !strstr(error.message, part))
                fail_msg("%d: %u: \"%s\", not %d: %u: \"%s\"", r, error.line, error.message, code,
                        line, part);
        assert_null(classes);
        assert_int_equal(n, 99);
}

static void assert_refused(
        Fixture *fixture, const char *app, const char *migrations, unsigned line, const char *part)
{
        _cleanup_(manifest_free_p) Manifest *manifest = make_manifest(app, migrations, NULL);

        assert_manifest_refused(fixture, manifest, CATALOG_E_MIGRATION, line, part);
}

static void the_same_history_may_be_presented_at_every_deploy(void **state)
{
        Fixture *fixture = *state;

        for (int i = 0; i < 3; i++)
                assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
        catalog_close(fixture->catalog);
        assert_int_equal(catalog_open(fixture->path, &fixture->catalog), 0);
        assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
}

static void a_renamed_class_keeps_its_key_and_its_old_name_gets_another(void **state)
{
        Fixture *fixture = *state;

        assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
        assert_applied(fixture, "shop", V1 V2, "Basket=shop-Cart");
        assert_applied(fixture, "shop", V1 V2 V3, "Basket=shop-Cart Cart=shop-Cart-2");
        assert_applied(fixture, "shop", V1 V2 V3, "Basket=shop-Cart Cart=shop-Cart-2");
}

static void a_whole_history_played_at_once_gives_the_same_keys(void **state)
{
        assert_applied(*state, "shop", V1 V2 V3, "Basket=shop-Cart Cart=shop-Cart-2");
}

static void a_deleted_class_key_is_never_given_again(void **state)
{
        Fixture *fixture = *state;

        assert_applied(
                fixture, "shop", V1 ", {\"tag\": \"d\", \"deleted_classes\": [\"Cart\"]}", "");
        assert_applied(fixture, "shop",
                V1 ", {\"tag\": \"d\", \"deleted_classes\": [\"Cart\"]},"
                   " {\"tag\": \"e\", \"new_classes\": [\"Cart\"]}",
                "Cart=shop-Cart-2");
}

static void a_transferred_class_takes_its_key_along(void **state)
{
        static const char moved[] =
                "{\"tag\": \"v1\", \"transferred_classes\": [{\"from\": \"Cart\", "
                "\"from_script\": \"shop\", \"to\": \"Trolley\"}]}";
        Fixture *fixture = *state;

        assert_refused(fixture, "depot", moved, 2, "does not exist");
        assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
        assert_applied(fixture, "depot", moved, "Trolley=shop-Cart");
        assert_applied(fixture, "shop", V1, "");
        /* What has gone cannot be deleted where it was. */
        assert_refused(fixture, "shop", V1 ",\n{\"tag\": \"v2\", \"deleted_classes\": [\"Cart\"]}",
                3, "does not exist");
}

static void apps_do_not_see_each_others_classes(void **state)
{
        Fixture *fixture = *state;

        assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
        assert_applied(fixture, "stock", V1, "Cart=stock-Cart");
        assert_applied(fixture, "shop", V1 V2, "Basket=shop-Cart");
        assert_applied(fixture, "stock", V1, "Cart=stock-Cart");
}

static void an_older_version_may_come_back_and_plays_nothing(void **state)
{
        Fixture *fixture = *state;

        assert_applied(fixture, "shop", V1 V2, "Basket=shop-Cart");
        assert_applied(fixture, "shop", V1, "Basket=shop-Cart");
        assert_applied(fixture, "shop", "", "Basket=shop-Cart");
        assert_applied(fixture, "shop", V1 V2 V3, "Basket=shop-Cart Cart=shop-Cart-2");
}

static void a_history_that_contradicts_the_recorded_one_is_refused(void **state)
{
        Fixture *fixture = *state;

        assert_applied(fixture, "shop", V1 V2, "Basket=shop-Cart");
        /* v1 says something else now. */
        assert_refused(fixture, "shop",
                "{\"tag\": \"v1\", \"new_sqlite_classes\": [\"Cart\", \"More\"]}" V2, 2,
                "has changed since");
        /* A new tag between played ones. */
        assert_refused(fixture, "shop",
                V1 ",\n{\"tag\": \"v1b\", \"new_sqlite_classes\": [\"More\"]}" V2, 3, "behind v2");
        /* The last played one is gone, a new one is there. */
        assert_refused(fixture, "shop", V1 ",\n{\"tag\": \"v3\", \"new_classes\": [\"More\"]}", 3,
                "behind v2");
        /* A new one before played ones. */
        assert_refused(fixture, "shop",
                "{\"tag\": \"x\", \"new_sqlite_classes\": [\"More\"]},\n" V1, 2, "behind v2");
        /* A tag of another meaning. */
        assert_refused(fixture, "shop", "{\"tag\": \"v2\", \"new_sqlite_classes\": [\"A\"]}", 2,
                "has changed since");
        /* Played ones in another order. */
        assert_applied(fixture, "stock",
                "{\"tag\": \"a\", \"new_classes\": [\"A\"]}, {\"tag\": \"b\", \"new_classes\": "
                "[\"B\"]}",
                "A=stock-A B=stock-B");
        assert_refused(fixture, "stock",
                "{\"tag\": \"b\", \"new_classes\": [\"B\"]},\n{\"tag\": \"a\", \"new_classes\": "
                "[\"A\"]}",
                3, "where it stood");
        assert_applied(fixture, "shop", V1 V2, "Basket=shop-Cart");
}

static void what_is_refused_leaves_no_trace(void **state)
{
        Fixture *fixture = *state;

        assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
        /* The first step of v2 can be played, the second cannot. */
        assert_refused(fixture, "shop",
                V1 ",\n{\"tag\": \"v2\", \"new_sqlite_classes\": [\"More\"],\n"
                   "\"transferred_classes\": [{\"from\": \"A\", \"from_script\": \"nobody\","
                   " \"to\": \"B\"}]}",
                4, "nobody");
        assert_applied(fixture, "shop", V1, "Cart=shop-Cart");
        assert_refused(fixture, "fresh",
                "{\"tag\": \"v1\", \"new_sqlite_classes\": [\"More\"]},\n"
                "{\"tag\": \"v2\", \"transferred_classes\": [{\"from\": \"A\", "
                "\"from_script\": \"nobody\", \"to\": \"B\"}]}",
                3, "nobody");
        assert_applied(fixture, "fresh", "", "");
        assert_applied(fixture, "fresh", "{\"tag\": \"v1\", \"new_classes\": [\"Else\"]}",
                "Else=fresh-Else");
}

static void a_binding_of_a_class_that_is_gone_is_refused_with_its_line(void **state)
{
        _cleanup_(manifest_free_p) Manifest *old = make_manifest("shop", V1, "Cart");
        _cleanup_(manifest_free_p) Manifest *renamed = make_manifest("shop", V1 V2, "Basket");
        Fixture *fixture = *state;
        CatalogClass *classes;
        CatalogError error;
        size_t n;

        assert_int_equal(catalog_apply(fixture->catalog, renamed, &classes, &n, &error), 0);
        catalog_classes_free(classes, n);
        /* Going back to the version before the renaming: its binding's class has another name. */
        assert_manifest_refused(fixture, old, CATALOG_E_CLASS, 3, "the class Cart");
}

static void a_tag_may_turn_new_classes_into_new_sqlite_classes(void **state)
{
        Fixture *fixture = *state;

        assert_applied(fixture, "shop",
                "{\"tag\": \"v1\", \"new_classes\": [\"B\"], \"new_sqlite_classes\": [\"A\"]}",
                "B=shop-B A=shop-A");
        assert_applied(fixture, "shop", "{\"tag\": \"v1\", \"new_sqlite_classes\": [\"A\", \"B\"]}",
                "B=shop-B A=shop-A");
}

static void a_catalog_of_a_newer_program_is_refused(void **state)
{
        Fixture *fixture = *state;
        Catalog *other = NULL;
        Db *db = NULL;

        catalog_close(TAKE_PTR(fixture->catalog));
        assert_int_equal(db_open_object(fixture->path, (Slice){}, &db), 0);
        assert_int_equal(db_run(db, "PRAGMA user_version = 99", NULL, 0, NULL, NULL), 0);
        db_close(db);
        assert_int_equal(catalog_open(fixture->path, &other), -ENOTSUP);
        assert_null(other);
        assert_int_equal(unlink(fixture->path), 0);
        assert_int_equal(catalog_open(fixture->path, &fixture->catalog), 0);
}

#define CATALOG_TEST(_test) cmocka_unit_test_setup_teardown(_test, open_catalog, close_catalog)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                CATALOG_TEST(the_same_history_may_be_presented_at_every_deploy),
                CATALOG_TEST(a_renamed_class_keeps_its_key_and_its_old_name_gets_another),
                CATALOG_TEST(a_whole_history_played_at_once_gives_the_same_keys),
                CATALOG_TEST(a_deleted_class_key_is_never_given_again),
                CATALOG_TEST(a_transferred_class_takes_its_key_along),
                CATALOG_TEST(apps_do_not_see_each_others_classes),
                CATALOG_TEST(an_older_version_may_come_back_and_plays_nothing),
                CATALOG_TEST(a_history_that_contradicts_the_recorded_one_is_refused),
                CATALOG_TEST(what_is_refused_leaves_no_trace),
                CATALOG_TEST(a_binding_of_a_class_that_is_gone_is_refused_with_its_line),
                CATALOG_TEST(a_tag_may_turn_new_classes_into_new_sqlite_classes),
                CATALOG_TEST(a_catalog_of_a_newer_program_is_refused),
        };

        return cmocka_run_group_tests_name("app/catalog", tests, NULL, NULL);
}
