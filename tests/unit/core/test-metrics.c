/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define N 20000

static uint64_t next_random(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}

/* Spread over all magnitudes, as latencies are. */
static uint64_t next_value(uint64_t *seed)
{
        return (next_random(seed) >> 24) >> (next_random(seed) % 40);
}

static int by_value(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static void percentiles_are_never_below_the_true_ones_and_at_most_a_sixteenth_above(void **state)
{
        static const double percents[] = { 0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99 };
        _cleanup_(free_p) uint64_t *values = calloc(N, sizeof *values);
        _cleanup_(free_p) Histogram *histogram = calloc(1, sizeof *histogram);
        uint64_t seed = 88172645463325252u, sum = 0;

        for (size_t i = 0; i < N; i++) {
                values[i] = next_value(&seed);
                sum += values[i];
                histogram_add(histogram, values[i]);
        }
        qsort(values, N, sizeof *values, by_value);
        for (size_t i = 0; i < ELEMENTSOF(percents); i++) {
                uint64_t got = histogram_get_percentile(histogram, percents[i]), exact;
                double rank = N * percents[i] / 100;
                size_t at = (size_t)rank;

                exact = values[(double)at < rank ? at : at - 1];
                assert_true(got >= exact);
                assert_true(got - exact <= exact / 16);
        }
        assert_true(histogram_get_percentile(histogram, 0) == values[0]);
        assert_true(histogram_get_percentile(histogram, 100) == values[N - 1]);
        assert_true(histogram->count == N && histogram->sum == sum);
        assert_true(histogram_get_mean(histogram) == (double)sum / N);
}

static void each_power_of_two_and_its_neighbours_are_within_the_bound(void **state)
{
        for (unsigned bit = 0; bit < HISTOGRAM_VALUE_BITS; bit++)
                for (int offset = -1; offset <= 1; offset++) {
                        uint64_t value = (UINT64_C(1) << bit) + (uint64_t)offset, got;
                        Histogram histogram = {};

                        histogram_add(&histogram, value);
                        /* A larger one beside it, so that max does not hide the bucket's end. */
                        histogram_add(&histogram, INT64_MAX);
                        got = histogram_get_percentile(&histogram, 50);
                        assert_true(got >= value && got - value <= value / 16);
                }
}

static void an_empty_histogram_has_zero_everywhere(void **state)
{
        Histogram histogram = {};

        assert_true(histogram_get_percentile(&histogram, 50) == 0);
        assert_true(histogram_get_percentile(&histogram, 100) == 0);
        assert_true(histogram_get_mean(&histogram) == 0);
}

static void values_beyond_the_range_are_counted_and_the_sum_saturates(void **state)
{
        Histogram histogram = {};

        histogram_add(&histogram, 1);
        histogram_add(&histogram, UINT64_C(1) << 50);
        histogram_add(&histogram, UINT64_MAX);
        assert_true(histogram.count == 3);
        assert_true(histogram.max == INT64_MAX);
        assert_true(histogram.sum == INT64_MAX);
        assert_true(histogram_get_percentile(&histogram, 10) == 1);
        assert_true(histogram_get_percentile(&histogram, 99) == INT64_MAX);
}

static void merged_parts_equal_the_whole(void **state)
{
        _cleanup_(free_p) Histogram *whole = calloc(1, sizeof *whole);
        _cleanup_(free_p) Histogram *merged = calloc(1, sizeof *merged);
        _cleanup_(free_p) Histogram *parts = calloc(3, sizeof *parts);
        uint64_t seed = 7;

        for (size_t i = 0; i < N; i++) {
                uint64_t value = next_value(&seed);

                histogram_add(whole, value);
                /* The third stays empty. */
                histogram_add(&parts[value % 3 == 0], value);
        }
        for (size_t i = 0; i < 3; i++)
                histogram_merge(merged, &parts[i]);
        assert_memory_equal(merged, whole, sizeof *whole);
}

static void a_histogram_survives_json(void **state)
{
        _cleanup_(free_p) Histogram *histogram = calloc(1, sizeof *histogram);
        _cleanup_(free_p) Histogram *got = calloc(1, sizeof *got);
        uint64_t seed = 99;

        for (size_t i = 0; i <= N; i++) {
                if (i == 0 || i == 1 || i == N) {
                        _cleanup_(json_decref_p) json_t *json = NULL;

                        assert_int_equal(histogram_to_json(histogram, &json), 0);
                        assert_int_equal(histogram_from_json(json, got), 0);
                        assert_memory_equal(got, histogram, sizeof *got);
                }
                histogram_add(histogram, i == 5 ? INT64_MAX : next_value(&seed));
        }
}

static void what_is_no_histogram_is_refused(void **state)
{
        static const char *const texts[] = {
                "[]",
                "{}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":{}}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[5]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[5,2]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[6,1]]}",
                "{\"count\":1,\"sum\":5,\"min\":4,\"max\":5,\"buckets\":[[5,1]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":6,\"buckets\":[[5,1]]}",
                "{\"count\":1,\"sum\":4,\"min\":5,\"max\":5,\"buckets\":[[5,1]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[592,1]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[-1,1]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[5,\"1\"]]}",
                "{\"count\":1.0,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[5,1]]}",
                "{\"count\":2,\"sum\":10,\"min\":5,\"max\":5,\"buckets\":[[5,1],[5,1]]}",
                "{\"count\":2,\"sum\":10,\"min\":5,\"max\":6,\"buckets\":[[6,1],[5,1]]}",
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[4,0],[5,1]]}",
                "{\"count\":0,\"sum\":5,\"min\":0,\"max\":0,\"buckets\":[]}",
        };
        static const char good[] =
                "{\"count\":1,\"sum\":5,\"min\":5,\"max\":5,\"buckets\":[[5,1]]}";
        _cleanup_(json_decref_p) json_t *accepted = json_loads(good, 0, NULL);
        Histogram got = { .count = 77 };

        assert_int_equal(HISTOGRAM_BUCKETS, 592);
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_(json_decref_p) json_t *json = json_loads(texts[i], 0, NULL);

                assert_non_null(json);
                if (histogram_from_json(json, &got) != METRICS_E_INVALID)
                        fail_msg("accepted: %s", texts[i]);
                assert_true(got.count == 77);
        }
        assert_int_equal(histogram_from_json(accepted, &got), 0);
        assert_true(got.count == 1);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(
                        percentiles_are_never_below_the_true_ones_and_at_most_a_sixteenth_above),
                cmocka_unit_test(each_power_of_two_and_its_neighbours_are_within_the_bound),
                cmocka_unit_test(an_empty_histogram_has_zero_everywhere),
                cmocka_unit_test(values_beyond_the_range_are_counted_and_the_sum_saturates),
                cmocka_unit_test(merged_parts_equal_the_whole),
                cmocka_unit_test(a_histogram_survives_json),
                cmocka_unit_test(what_is_no_histogram_is_refused),
        };

        return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
