/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A histogram of latencies: fixed size, mergeable, with percentiles
 *
 * Counters are plain structs of the rooms; this is what they need beside. Buckets are log-linear:
 * values below 16 have one each, every further power of two is divided into 16 of equal width, up
 * to 2^40 (18 minutes in ns). A zeroed Histogram is empty and ready. Not locked: one histogram
 * belongs to one thread, and is merged by way of JSON or a copy.
 *
 * Guarantees:
 * 1. count, min and max are exact. sum is exact until it would exceed INT64_MAX and stays there.
 * 2. A percentile is never below the true one, and above it by less than 1/16 of it; values from
 *    2^40 on share the last bucket, whose percentile is max.
 * 3. Merging gives the histogram of all values together, however they were divided.
 * 4. What histogram_from_json() accepts could have been made by histogram_to_json().
 */

#include "lib/wire/jsonc.h"

#define HISTOGRAM_SUB_BITS 4
#define HISTOGRAM_VALUE_BITS 40
#define HISTOGRAM_BUCKETS ((HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

enum {
        _METRICS_E_SUCCESS = 0,
        METRICS_E_INVALID, /* not a histogram */
};

typedef struct Histogram {
        uint64_t count, sum;
        uint64_t min, max; /* 0 when empty */
        uint64_t buckets[HISTOGRAM_BUCKETS];
} Histogram;

void histogram_add(Histogram *histogram, uint64_t value);
void histogram_merge(Histogram *histogram, const Histogram *other);
/* percent: 0 to 100; 0 gives min, 100 max. 0 when empty. */
uint64_t histogram_get_percentile(const Histogram *histogram, double percent);
double histogram_get_mean(const Histogram *histogram);

/* {count, sum, min, max, buckets: [[index, count], ...]}, empty buckets left out. 0 or -ENOMEM. */
int histogram_to_json(const Histogram *histogram, json_t **ret);
/* 0 or METRICS_E_INVALID. */
int histogram_from_json(const json_t *json, Histogram *ret);
