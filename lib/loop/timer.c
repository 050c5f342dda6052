/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop/ring-private.h"

#include <errno.h>

static bool heap_less(const HeapEntry *a, const HeapEntry *b)
{
        if (a->deadline != b->deadline)
                return a->deadline < b->deadline;
        return a->sequence < b->sequence;
}

static void heap_put(TimerHeap *heap, size_t i, HeapEntry entry)
{
        heap->entries[i] = entry;
        entry.timer->heap_index = i;
}

/* Moves the hole at i to where entry belongs, and fills it. */
static void heap_sift(TimerHeap *heap, size_t i, HeapEntry entry)
{
        while (i > 1 && heap_less(&entry, &heap->entries[i / 2])) {
                heap_put(heap, i, heap->entries[i / 2]);
                i /= 2;
        }
        for (;;) {
                size_t child = i * 2;

                if (child > heap->len)
                        break;
                if (child < heap->len &&
                        heap_less(&heap->entries[child + 1], &heap->entries[child]))
                        child++;
                if (!heap_less(&heap->entries[child], &entry))
                        break;
                heap_put(heap, i, heap->entries[child]);
                i = child;
        }
        heap_put(heap, i, entry);
}

static int heap_grow(TimerHeap *heap)
{
        size_t size = heap->size ? heap->size * 2 : 64;
        HeapEntry *entries;

        if (heap->len + 1 < heap->size)
                return 0;
        entries = reallocarray(heap->entries, size, sizeof *entries);
        if (!entries)
                return -ENOMEM;
        heap->entries = entries;
        heap->size = size;
        return 0;
}

int ring_timer_arm(Ring *ring, RingTimer *timer, uint64_t deadline)
{
        TimerHeap *heap = &ring->timers;
        HeapEntry entry = { .deadline = deadline, .timer = timer };

        entry.sequence = heap->sequence++;
        timer->deadline = deadline;
        if (timer->heap_index != 0) {
                heap_sift(heap, timer->heap_index, entry);
                return 0;
        }
        if (heap_grow(heap) < 0)
                return -ENOMEM;
        heap->len++;
        heap_sift(heap, heap->len, entry);
        return 0;
}

void ring_timer_disarm(Ring *ring, RingTimer *timer)
{
        TimerHeap *heap = &ring->timers;
        size_t i = timer->heap_index;
        HeapEntry last;

        if (i == 0)
                return;
        dd_assert(i <= heap->len && heap->entries[i].timer == timer);
        timer->heap_index = 0;
        last = heap->entries[heap->len--];
        if (i <= heap->len)
                heap_sift(heap, i, last);
}

uint64_t timer_next_deadline(const Ring *ring)
{
        return ring->timers.len ? ring->timers.entries[1].deadline : UINT64_MAX;
}

void timer_fire(Ring *ring)
{
        TimerHeap *heap = &ring->timers;

        /* At most as many as were armed: one that arms itself for the past must not hold the loop.
         */
        for (size_t n = heap->len; n > 0 && heap->len > 0; n--) {
                RingTimer *timer = heap->entries[1].timer;

                if (timer->deadline > ring->now)
                        break;
                ring_timer_disarm(ring, timer);
                timer->fn(timer);
        }
}

void timer_done(Ring *ring)
{
        free(ring->timers.entries);
        ring->timers = (TimerHeap){};
}
