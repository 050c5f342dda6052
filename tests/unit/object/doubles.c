/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/object/doubles.h"
#include "lib/store/db.h"

#include <errno.h>
#include <stdio.h>

#define TIMERS_MAX 256

static uint64_t now = T0;
static RingTimer *timers[TIMERS_MAX];
static RingPost *deferred;
bool fake_pool_is_broken;

uint64_t ring_now(Ring *ring)
{
        return now;
}

int ring_timer_arm(Ring *ring, RingTimer *timer, uint64_t deadline)
{
        size_t at = timer->heap_index;

        for (size_t i = 1; at == 0 && i < TIMERS_MAX; i++)
                if (!timers[i])
                        at = i;
        dd_assert(at);
        timers[at] = timer;
        timer->heap_index = at;
        timer->deadline = deadline;
        return 0;
}

void ring_timer_disarm(Ring *ring, RingTimer *timer)
{
        timers[timer->heap_index] = NULL;
        timer->heap_index = 0;
}

void ring_defer(Ring *ring, RingPost *post)
{
        post->next = deferred;
        deferred = post;
}

static List works = LIST_INIT(works);

int pool_push(Pool *pool, PoolWork *work)
{
        if (fake_pool_is_broken)
                return -EAGAIN;
        list_append(&works, &work->link);
        return 0;
}

bool fake_work(void)
{
        List *link = list_pop(&works);
        PoolWork *work = link ? list_entry(link, PoolWork, link) : NULL;

        if (!work)
                return false;
        work->run(work);
        work->done(work);
        return true;
}

void fake_run_deferred(void)
{
        while (deferred) {
                RingPost *post = deferred;

                deferred = post->next;
                post->fn(post);
        }
}

void fake_advance(uint64_t ns)
{
        now += ns;
        for (;;) {
                RingTimer *due = NULL;

                for (size_t i = 1; i < TIMERS_MAX; i++)
                        if (timers[i] && timers[i]->deadline <= now &&
                                (!due || timers[i]->deadline < due->deadline))
                                due = timers[i];
                if (!due)
                        break;
                ring_timer_disarm(NULL, due);
                due->fn(due);
        }
        fake_run_deferred();
}

void fake_reset(void)
{
        for (size_t i = 1; i < TIMERS_MAX; i++)
                dd_assert(!timers[i]);
        dd_assert(!deferred);
        now = T0;
}

static void fake_log(FakeRuntime *fake, char what, size_t index)
{
        size_t len = strlen(fake->log);

        snprintf(fake->log + len, sizeof fake->log - len, "%s%c%zu", len ? " " : "", what, index);
}

static size_t fake_index(FakeRuntime *fake, RuntimeEvent *event)
{
        for (size_t i = 0; i < fake->n_events; i++)
                if (fake->events[i] == event)
                        return i;
        dd_unreachable();
}

void fake_finish(FakeRuntime *fake, size_t index)
{
        RuntimeEvent *event = TAKE_PTR(fake->events[index]);

        response_finish_text(event->response, 200, "ok");
        event->done(event);
}

static void fake_deliver(Runtime *runtime, RuntimeEvent *event)
{
        FakeRuntime *fake = CONTAINER_OF(runtime, FakeRuntime, runtime);

        dd_assert(fake->n_events < FAKE_EVENTS);
        fake->events[fake->n_events++] = event;
        fake_log(fake, 'd', fake->n_events - 1);
        if (event->object && !event->object->guest)
                event->object->guest = fake;
        if (fake->done_at_once)
                fake_finish(fake, fake->n_events - 1);
}

static void fake_resume(Runtime *runtime, RuntimeEvent *event)
{
        FakeRuntime *fake = CONTAINER_OF(runtime, FakeRuntime, runtime);

        fake_log(fake, 'r', fake_index(fake, event));
}

static void fake_cancel(Runtime *runtime, RuntimeEvent *event)
{
        FakeRuntime *fake = CONTAINER_OF(runtime, FakeRuntime, runtime);
        size_t index = fake_index(fake, event);

        fake_log(fake, 'c', index);
        if (fake->end_on_cancel) {
                fake->events[index] = NULL;
                event->done(event);
        }
}

static void fake_evict(Runtime *runtime, RuntimeObject *object,
        void (*evicted)(RuntimeObject *object, void *data), void *data)
{
        FakeRuntime *fake = CONTAINER_OF(runtime, FakeRuntime, runtime);

        fake_log(fake, 'e', object->id.bytes[0]);
        dd_assert(!fake->evicting);
        dd_assert(!object->guest || object->guest == fake);
        fake->evicting = object;
        fake->evicted = evicted;
        fake->evicted_data = data;
        if (fake->evict_at_once)
                fake_evicted(fake);
}

void fake_evicted(FakeRuntime *fake)
{
        RuntimeObject *object = TAKE_PTR(fake->evicting);

        object->guest = NULL;
        fake->evicted(object, fake->evicted_data);
}

void fake_runtime_init(FakeRuntime *fake)
{
        static const RuntimeVtable vtable = {
                .name = "fake",
                .deliver = fake_deliver,
                .resume = fake_resume,
                .cancel = fake_cancel,
                .evict = fake_evict,
        };

        *fake = (FakeRuntime){ .runtime = { &vtable }, .evict_at_once = true };
}

/* The files of objects are the store's matter: the registry hands the path on and no more. */
char *db_object_path(const char *objects, const char *unique_key, const char *id_text)
{
        char *path;

        return asprintf(&path, "%s/%s/%s", objects, unique_key, id_text) < 0 ? NULL : path;
}
