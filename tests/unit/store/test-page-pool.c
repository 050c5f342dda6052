/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/page-pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_PAGES 5000u

static unsigned char *pages[N_PAGES];

static void fill(unsigned first, unsigned step)
{
        for (unsigned i = first; i < N_PAGES; i += step) {
                pages[i] = page_pool_get(POOL_PAGE_SIZE);
                assert_non_null(pages[i]);
                memset(pages[i], (int)(i % 251), POOL_PAGE_SIZE);
        }
}

static void check(unsigned first, unsigned step)
{
        for (unsigned i = first; i < N_PAGES; i += step)
                for (unsigned at = 0; at < POOL_PAGE_SIZE; at += 5)
                        assert_int_equal(pages[i][at], i % 251);
}

static void drop(unsigned first, unsigned step)
{
        for (unsigned i = first; i < N_PAGES; i += step)
                page_pool_put(pages[i], POOL_PAGE_SIZE);
}

static void pages_are_nobody_elses(void **state)
{
        fill(0, 1);
        check(0, 1);
        drop(0, 2);
        fill(0, 2);
        check(0, 1);
        drop(0, 1);
}

static void what_is_in_use_stays_when_the_rest_is_given_back(void **state)
{
        fill(0, 1);
        drop(0, 2);
        page_pool_trim();
        check(1, 2);
        fill(0, 2);
        check(0, 1);
        drop(0, 1);
        page_pool_trim();
        page_pool_trim();
}

/* With AddressSanitizer pages are malloc's, which keeps what was freed for a while. */
#ifndef __SANITIZE_ADDRESS__
static size_t resident(void)
{
        FILE *file = fopen("/proc/self/statm", "re");
        unsigned long size, pages_there;

        assert_non_null(file);
        assert_int_equal(fscanf(file, "%lu %lu", &size, &pages_there), 2);
        fclose(file);
        return pages_there * POOL_PAGE_SIZE;
}

static void free_pages_between_others_go_back_to_the_system(void **state)
{
        size_t before, after;

        fill(0, 1);
        before = resident();
        drop(0, 2);
        page_pool_trim();
        after = resident();
        assert_true(after + N_PAGES / 2 * POOL_PAGE_SIZE * 9 / 10 < before);
        drop(1, 2);
        page_pool_trim();
        assert_true(resident() + N_PAGES / 2 * POOL_PAGE_SIZE * 9 / 10 < after);
}
#endif

static void other_sizes_are_malloc_s(void **state)
{
        void *page = page_pool_get(512);

        assert_non_null(page);
        memset(page, 1, 512);
        page_pool_put(page, 512);
        page_pool_put(NULL, 512);
        page_pool_put(NULL, POOL_PAGE_SIZE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(pages_are_nobody_elses),
                cmocka_unit_test(what_is_in_use_stays_when_the_rest_is_given_back),
#ifndef __SANITIZE_ADDRESS__
                cmocka_unit_test(free_pages_between_others_go_back_to_the_system),
#endif
                cmocka_unit_test(other_sizes_are_malloc_s),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
