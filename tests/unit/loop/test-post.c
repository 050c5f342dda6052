/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/loop/ring.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define N_THREADS 4
#define N_POSTS 25000

typedef struct Sink Sink;

typedef struct Item {
        RingPost post;
        Sink *sink;
        unsigned thread, number;
} Item;

struct Sink {
        Ring *ring;
        unsigned next[N_THREADS];
        unsigned n, wrong;
};

typedef struct Poster {
        pthread_t thread;
        Sink *sink;
        Item *items;
        unsigned pause_every; /* 0: never */
} Poster;

static void item_fn(RingPost *post)
{
        Item *item = CONTAINER_OF(post, Item, post);
        Sink *sink = item->sink;

        if (item->number != sink->next[item->thread])
                sink->wrong++;
        sink->next[item->thread] = item->number + 1;
        if (++sink->n == N_THREADS * N_POSTS)
                ring_stop(sink->ring);
}

static void *poster_run(void *data)
{
        Poster *poster = data;

        for (unsigned i = 0; i < N_POSTS; i++) {
                ring_post(poster->sink->ring, &poster->items[i].post);
                if (poster->pause_every && i % poster->pause_every == 0)
                        usleep(50);
        }
        return NULL;
}

static void posts_of_four_threads(unsigned pause_every)
{
        Poster posters[N_THREADS] = {};
        Sink sink = {};

        assert_int_equal(ring_new(NULL, &sink.ring), 0);
        for (unsigned t = 0; t < N_THREADS; t++) {
                Poster *poster = &posters[t];

                poster->sink = &sink;
                poster->pause_every = pause_every;
                poster->items = calloc(N_POSTS, sizeof *poster->items);
                assert_non_null(poster->items);
                for (unsigned i = 0; i < N_POSTS; i++)
                        poster->items[i] = (Item){
                                .post.fn = item_fn, .sink = &sink, .thread = t, .number = i
                        };
                assert_int_equal(pthread_create(&poster->thread, NULL, poster_run, poster), 0);
        }
        assert_int_equal(ring_run(sink.ring), 0);
        for (unsigned t = 0; t < N_THREADS; t++) {
                pthread_join(posters[t].thread, NULL);
                free(posters[t].items);
        }
        assert_int_equal(sink.n, N_THREADS * N_POSTS);
        assert_int_equal(sink.wrong, 0);
        ring_free(sink.ring);
}

static void posts_of_four_threads_keep_each_threads_order(void **state)
{
        posts_of_four_threads(0);
}

static void posts_to_a_loop_that_falls_asleep_again_and_again_wake_it(void **state)
{
        posts_of_four_threads(100);
}

typedef struct Script {
        RingPost posts[4];
        Ring *ring;
        char text[16];
} Script;

static Script *script;

static void script_say(char c)
{
        size_t len = strlen(script->text);

        assert_true(len + 1 < sizeof script->text);
        script->text[len] = c;
}

static void say_c(RingPost *post)
{
        script_say('c');
}

static void say_b(RingPost *post)
{
        script_say('b');
}

static void say_a(RingPost *post)
{
        script_say('a');
        script->posts[1].fn = say_b;
        script->posts[2].fn = say_c;
        ring_defer(script->ring, &script->posts[1]);
        ring_defer(script->ring, &script->posts[2]);
}

static void deferred_work_runs_before_the_loop_sleeps(void **state)
{
        Script it = { .posts[0].fn = say_a };
        uint64_t start;

        script = &it;
        assert_int_equal(ring_new(NULL, &it.ring), 0);
        ring_post(it.ring, &it.posts[0]);
        start = clock_monotonic_ns();
        assert_int_equal(ring_run_once(it.ring, 10 * NSEC_PER_SEC), 0);
        assert_string_equal(it.text, "abc");
        assert_true(clock_monotonic_ns() - start < NSEC_PER_SEC);
        ring_free(it.ring);
}

static void again_fn(RingPost *post)
{
        script_say('x');
        if (strlen(script->text) == 5)
                ring_stop(script->ring);
        else
                ring_post(script->ring, post);
}

static void a_post_may_be_posted_again_from_inside_itself(void **state)
{
        Script it = { .posts[0].fn = again_fn };

        script = &it;
        assert_int_equal(ring_new(NULL, &it.ring), 0);
        ring_post(it.ring, &it.posts[0]);
        assert_int_equal(ring_run(it.ring), 0);
        assert_string_equal(it.text, "xxxxx");
        ring_free(it.ring);
}

static void stop_fn(RingPost *post)
{
        ring_stop(script->ring);
}

static void *post_later(void *data)
{
        usleep(20000);
        ring_post(script->ring, &script->posts[0]);
        return NULL;
}

static void a_post_wakes_a_loop_without_timers(void **state)
{
        Script it = { .posts[0].fn = stop_fn };
        pthread_t thread;

        script = &it;
        assert_int_equal(ring_new(NULL, &it.ring), 0);
        for (unsigned i = 0; i < 5; i++) {
                assert_int_equal(pthread_create(&thread, NULL, post_later, NULL), 0);
                assert_int_equal(ring_run(it.ring), 0);
                pthread_join(thread, NULL);
        }
        ring_free(it.ring);
}

static void *post_quietly_and_wake(void *data)
{
        usleep(20000);
        ring_post_quietly(script->ring, &script->posts[0]);
        usleep(20000);
        ring_wake(script->ring);
        return NULL;
}

static void a_quiet_post_runs_when_the_loop_is_woken(void **state)
{
        Script it = { .posts[0].fn = stop_fn };
        uint64_t start;
        pthread_t thread;

        script = &it;
        assert_int_equal(ring_new(NULL, &it.ring), 0);
        for (unsigned i = 0; i < 5; i++) {
                start = clock_monotonic_ns();
                assert_int_equal(pthread_create(&thread, NULL, post_quietly_and_wake, NULL), 0);
                assert_int_equal(ring_run(it.ring), 0);
                pthread_join(thread, NULL);
                assert_true(clock_monotonic_ns() - start >= 40 * NSEC_PER_MSEC);
        }
        /* One that is there before the loop sleeps is seen. */
        ring_post_quietly(it.ring, &it.posts[0]);
        assert_int_equal(ring_run(it.ring), 0);
        ring_free(it.ring);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(posts_of_four_threads_keep_each_threads_order),
                cmocka_unit_test(posts_to_a_loop_that_falls_asleep_again_and_again_wake_it),
                cmocka_unit_test(deferred_work_runs_before_the_loop_sleeps),
                cmocka_unit_test(a_post_may_be_posted_again_from_inside_itself),
                cmocka_unit_test(a_post_wakes_a_loop_without_timers),
                cmocka_unit_test(a_quiet_post_runs_when_the_loop_is_woken),
        };

        return cmocka_run_group_tests_name("post", tests, NULL, NULL);
}
