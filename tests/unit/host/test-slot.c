/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/slot.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_slot_takes_the_ways_of_the_diagram_and_no_others(void **state)
{
        static const SlotState allowed[][2] = {
                { SLOT_STOPPED, SLOT_STARTING },
                { SLOT_STOPPED, SLOT_BACKOFF },
                { SLOT_STARTING, SLOT_READY },
                { SLOT_STARTING, SLOT_DRAINING },
                { SLOT_STARTING, SLOT_BACKOFF },
                { SLOT_STARTING, SLOT_FAILED },
                { SLOT_READY, SLOT_DRAINING },
                { SLOT_READY, SLOT_BACKOFF },
                { SLOT_DRAINING, SLOT_STOPPED },
                { SLOT_BACKOFF, SLOT_STARTING },
                { SLOT_BACKOFF, SLOT_STOPPED },
                { SLOT_BACKOFF, SLOT_BACKOFF },
                { SLOT_FAILED, SLOT_STARTING },
                { SLOT_FAILED, SLOT_STOPPED },
                { SLOT_FAILED, SLOT_BACKOFF },
        };
        unsigned n = 0;

        for (unsigned from = SLOT_STOPPED; from <= SLOT_FAILED; from++)
                for (unsigned to = SLOT_STOPPED; to <= SLOT_FAILED; to++)
                        n += slot_may_change(from, to);
        assert_int_equal(n, ELEMENTSOF(allowed));
        for (size_t i = 0; i < ELEMENTSOF(allowed); i++)
                assert_true(slot_may_change(allowed[i][0], allowed[i][1]));
}

static void a_change_of_state_notes_its_time(void **state)
{
        SlotLife life = { 0 };

        slot_set_state(&life, SLOT_STARTING, 7);
        slot_set_state(&life, SLOT_READY, 9);
        assert_int_equal(life.since, 9);
        assert_string_equal(slot_state_name(life.state), "ready");
}

/* A worker that is ready for a while, then dies. */
static uint64_t die_after(SlotLife *life, uint64_t ready_ns, uint64_t *now)
{
        uint64_t wait;

        slot_set_state(life, SLOT_STARTING, *now);
        slot_set_state(life, SLOT_READY, *now);
        *now += ready_ns;
        wait = slot_backoff(life, *now);
        slot_set_state(life, SLOT_BACKOFF, *now);
        *now += wait;
        return wait;
}

static void the_backoff_doubles_to_ten_seconds(void **state)
{
        static const unsigned expected_ms[] = { 100, 200, 400, 800, 1600, 3200, 6400, 10000,
                10000 };
        SlotLife life = { 0 };
        uint64_t now = 5;

        for (size_t i = 0; i < ELEMENTSOF(expected_ms); i++)
                assert_int_equal(
                        die_after(&life, NSEC_PER_SEC, &now), expected_ms[i] * NSEC_PER_MSEC);
        assert_int_equal(life.restarts, ELEMENTSOF(expected_ms));
}

static void thirty_seconds_of_being_ready_start_the_row_again(void **state)
{
        SlotLife life = { 0 };
        uint64_t now = 5;

        for (unsigned i = 0; i < 4; i++)
                (void)die_after(&life, 29 * NSEC_PER_SEC, &now);
        assert_int_equal(die_after(&life, 29 * NSEC_PER_SEC, &now), 1600 * NSEC_PER_MSEC);
        assert_int_equal(die_after(&life, 30 * NSEC_PER_SEC, &now), 100 * NSEC_PER_MSEC);
        assert_int_equal(die_after(&life, 0, &now), 200 * NSEC_PER_MSEC);
}

static void shards_are_shared_out_in_order_and_evenly(void **state)
{
        for (unsigned n = 1; n <= 128; n++) {
                unsigned counts[128] = { 0 }, last = 0, min = 4096, max = 0;

                for (unsigned shard = 0; shard < 4096; shard++) {
                        unsigned slot = slot_of_shard(shard, n);

                        assert_true(slot < n && slot >= last);
                        last = slot;
                        counts[slot]++;
                }
                for (unsigned i = 0; i < n; i++) {
                        min = MIN(min, counts[i]);
                        max = MAX(max, counts[i]);
                }
                assert_true(max - min <= 1);
        }
}

static void the_runs_say_the_same_as_the_map(void **state)
{
        static const unsigned numbers[] = { 1, 2, 3, 4, 7, 128 };

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
                json_t *runs = slot_shard_runs(numbers[i]), *run;
                unsigned shard = 0;
                size_t index;

                assert_int_equal(json_array_size(runs), numbers[i]);
                json_array_foreach(runs, index, run)
                {
                        int slot, count;

                        assert_int_equal(json_unpack(run, "[i, i]", &slot, &count), 0);
                        for (; count > 0; count--)
                                assert_int_equal(slot_of_shard(shard++, numbers[i]), slot);
                }
                assert_int_equal(shard, 4096);
                json_decref(runs);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_slot_takes_the_ways_of_the_diagram_and_no_others),
                cmocka_unit_test(a_change_of_state_notes_its_time),
                cmocka_unit_test(the_backoff_doubles_to_ten_seconds),
                cmocka_unit_test(thirty_seconds_of_being_ready_start_the_row_again),
                cmocka_unit_test(shards_are_shared_out_in_order_and_evenly),
                cmocka_unit_test(the_runs_say_the_same_as_the_map),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
