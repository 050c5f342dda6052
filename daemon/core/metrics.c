/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/metrics.h"

#include <errno.h>

#define SUB_COUNT (UINT64_C(1) << HISTOGRAM_SUB_BITS)
#define VALUE_MAX ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)

/*
 * For values from 16 on, the position of the highest bit chooses the group and the four bits below
 * it the bucket within. Values below 16 are their own index: the same formula with group 0.
 */
static size_t bucket_of(uint64_t value)
{
        unsigned shift;

        if (value > VALUE_MAX)
                value = VALUE_MAX;
        if (value < SUB_COUNT)
                return (size_t)value;
        shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
        return (size_t)(((uint64_t)shift << HISTOGRAM_SUB_BITS) + (value >> shift));
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_end(size_t bucket)
{
        unsigned shift;

        if (bucket < SUB_COUNT)
                return bucket;
        shift = (unsigned)(bucket >> HISTOGRAM_SUB_BITS) - 1;
        return ((((uint64_t)bucket & (SUB_COUNT - 1)) + SUB_COUNT + 1) << shift) - 1;
}

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
        uint64_t sum;

        /* Signed, since that is what JSON's integers are here. */
        if (__builtin_add_overflow(a, b, &sum) || sum > INT64_MAX)
                return INT64_MAX;
        return sum;
}

void histogram_add(Histogram *histogram, uint64_t value)
{
        value = MIN(value, (uint64_t)INT64_MAX);
        if (histogram->count == 0 || value < histogram->min)
                histogram->min = value;
        if (value > histogram->max)
                histogram->max = value;
        histogram->count++;
        histogram->sum = add_saturated(histogram->sum, value);
        histogram->buckets[bucket_of(value)]++;
}

void histogram_merge(Histogram *histogram, const Histogram *other)
{
        if (other->count == 0)
                return;
        if (histogram->count == 0 || other->min < histogram->min)
                histogram->min = other->min;
        histogram->max = MAX(histogram->max, other->max);
        histogram->count += other->count;
        histogram->sum = add_saturated(histogram->sum, other->sum);
        for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
                histogram->buckets[i] += other->buckets[i];
}

uint64_t histogram_get_percentile(const Histogram *histogram, double percent)
{
        double exact = (double)histogram->count * percent / 100;
        uint64_t rank, seen = 0;

        if (histogram->count == 0)
                return 0;
        if (!(percent > 0))
                return histogram->min;
        if (percent >= 100)
                return histogram->max;
        rank = (uint64_t)exact;
        if ((double)rank < exact)
                rank++;
        for (size_t i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
                seen += histogram->buckets[i];
                if (seen >= rank)
                        return MIN(bucket_end(i), histogram->max);
        }
        return histogram->max;
}

double histogram_get_mean(const Histogram *histogram)
{
        return histogram->count ? (double)histogram->sum / (double)histogram->count : 0;
}

int histogram_to_json(const Histogram *histogram, json_t **ret)
{
        _cleanup_(json_decref_p) json_t *json = NULL, *buckets = json_array();

        for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
                if (histogram->buckets[i] > 0 &&
                        json_array_append_new(buckets, json_pack("[I, I]", (json_int_t)i,
                                                               (json_int_t)histogram->buckets[i])) <
                                0)
                        return -ENOMEM;
        json = json_pack("{s:I, s:I, s:I, s:I, s:O}", "count", (json_int_t)histogram->count, "sum",
                (json_int_t)histogram->sum, "min", (json_int_t)histogram->min, "max",
                (json_int_t)histogram->max, "buckets", buckets);
        if (!json)
                return -ENOMEM;
        *ret = TAKE_PTR(json);
        return 0;
}

static bool get_number(const json_t *json, uint64_t *ret)
{
        if (!json_is_integer(json) || json_integer_value(json) < 0)
                return false;
        *ret = (uint64_t)json_integer_value(json);
        return true;
}

/* Fills the buckets; false unless indexes rise, counts are positive and add up to count. */
static bool get_buckets(const json_t *json, Histogram *histogram)
{
        uint64_t index, n, total = 0, next = 0;

        if (!json_is_array(json))
                return false;
        for (size_t i = 0; i < json_array_size(json); i++) {
                const json_t *pair = json_array_get(json, i);

                if (!json_is_array(pair) || json_array_size(pair) != 2 ||
                        !get_number(json_array_get(pair, 0), &index) ||
                        !get_number(json_array_get(pair, 1), &n))
                        return false;
                if (index < next || index >= HISTOGRAM_BUCKETS || n == 0 ||
                        __builtin_add_overflow(total, n, &total))
                        return false;
                histogram->buckets[index] = n;
                next = index + 1;
        }
        return total == histogram->count;
}

/* Do min, max and sum agree with the buckets? */
static bool is_consistent(const Histogram *histogram)
{
        size_t first = 0, last = HISTOGRAM_BUCKETS - 1;

        if (histogram->count == 0)
                return histogram->sum == 0 && histogram->min == 0 && histogram->max == 0;
        while (histogram->buckets[first] == 0)
                first++;
        while (histogram->buckets[last] == 0)
                last--;
        return histogram->min <= histogram->max && bucket_of(histogram->min) == first &&
               bucket_of(histogram->max) == last && histogram->sum >= histogram->max;
}

int histogram_from_json(const json_t *json, Histogram *ret)
{
        Histogram histogram = {};

        if (!get_number(json_object_get(json, "count"), &histogram.count) ||
                !get_number(json_object_get(json, "sum"), &histogram.sum) ||
                !get_number(json_object_get(json, "min"), &histogram.min) ||
                !get_number(json_object_get(json, "max"), &histogram.max) ||
                !get_buckets(json_object_get(json, "buckets"), &histogram) ||
                !is_consistent(&histogram))
                return METRICS_E_INVALID;
        *ret = histogram;
        return 0;
}
