/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include <errno.h>

/*
 * Room in the journal: who has some, who waits for it, and when waiting is of no use
 *
 * Two kinds wait. Events, before they begin: a queue of the loop's, and nobody blocks. And threads
 * inside of a commit that is beyond its object's room. Both call the background and are judged by
 * it: a round that found nothing to do, which began after the call, with nothing on its way to the
 * disk, has shown that nobody will make room. Then reservations count no more (store->full), events
 * go without, and the threads that find no place even so are told.
 */

#define ROOM_SIZE (UINT64_C(64) << 10)
#define ROOMS_OF_SEGMENT 16u
/* What a commit may cost beyond its records: a batch of its own, to the end of a block. */
#define COMMIT_COST (DISK_BLOCK + BATCH_HEADER_SIZE)

static uint64_t get_size(const Journal *journal)
{
        return MIN(ROOM_SIZE, journal->segment_size / ROOMS_OF_SEGMENT);
}

/* What rooms can be promised of so much in one segment: at its end, a record that does not fit any
 * more leaves a piece that nobody uses. */
static uint64_t get_usable(const Journal *journal, uint64_t bytes)
{
        uint64_t waste = get_size(journal);

        return bytes > waste ? bytes - waste : 0;
}

static uint64_t get_segment_room(const Journal *journal)
{
        return journal->segment_size - SEGMENT_RESERVE;
}

static uint64_t get_total(const Journal *journal, uint64_t rest, unsigned n_free)
{
        return get_usable(journal, rest) + n_free * get_usable(journal, get_segment_room(journal));
}

static bool queue_has_room(const Store *store)
{
        return store->journal.queued <= store->options.queue_max / 2;
}

static bool may_take(const Store *store)
{
        const Journal *journal = &store->journal;
        unsigned n_free = journal_count_segments(journal, SEGMENT_FREE);

        return queue_has_room(store) && get_total(journal, journal_get_rest(journal), n_free) >=
                                                journal->reserved + get_size(journal);
}

static StoreRoom *find_room(const Store *store, const Node *node)
{
        MapNode *map = store->rooms.len ? map_find(&store->rooms, slice_from(node->path)) : NULL;

        return map ? CONTAINER_OF(map, StoreRoom, map) : NULL;
}

bool room_covers(const Store *store, const Node *node, size_t len)
{
        const StoreRoom *room = find_room(store, node);

        return room && room->left >= len + COMMIT_COST;
}

bool room_allows(const Store *store, const Node *node, size_t len)
{
        const Journal *journal = &store->journal;
        const StoreRoom *room = find_room(store, node);
        uint64_t others = journal->reserved - (room ? room->left : 0), cost = len + COMMIT_COST;
        uint64_t rest = journal_get_rest(journal);
        unsigned n_free = journal_count_segments(journal, SEGMENT_FREE);

        if (!others || store->full)
                return true;
        if (cost > rest && n_free) {
                n_free--;
                rest = get_segment_room(journal);
        }
        return get_total(journal, rest > cost ? rest - cost : 0, n_free) >= others;
}

static void set_left(Store *store, StoreRoom *room, uint64_t left)
{
        store->journal.reserved -= room->left;
        store->journal.reserved += left;
        room->left = left;
}

void room_use(Store *store, const Node *node, size_t len)
{
        StoreRoom *room = find_room(store, node);
        uint64_t cost = len + COMMIT_COST;

        if (room)
                set_left(store, room, room->left > cost ? room->left - cost : 0);
}

void room_note_free(Store *store)
{
        store->full = false;
}

bool room_has_queue(const Store *store)
{
        return !list_is_empty(&store->room_queue);
}

/* Of the background, by who waits. */
static uint64_t call_background(Store *store)
{
        uint64_t call;

        store_lock(store);
        call = ++store->room_calls;
        pthread_cond_signal(&store->work);
        store_unlock(store);
        if (store->options.work)
                store->options.work(store->options.data);
        return call;
}

/* Events. */

/* Takes a room off the table. */
static void drop_room(Store *store, StoreRoom *room)
{
        if (!room->is_held)
                return;
        set_left(store, room, 0);
        map_remove(&store->rooms, &room->map);
        room->is_held = false;
}

/* An event goes on without when memory is out. */
static void hold_room(Store *store, StoreRoom *room)
{
        if (!room->is_held && (map_find(&store->rooms, room->map.key) ||
                                      map_insert(&store->rooms, &room->map, room->map.key)))
                return;
        room->is_held = true;
        set_left(store, room, get_size(&store->journal));
}

static bool goes_without(const Store *store)
{
        return store->full || atomic_load(&store->failure);
}

bool store_take_room(Store *store, StoreRoom *room, const char *path)
{
        bool waits;

        dd_assert(!list_is_linked(&room->link));
        store_lock(store);
        if (room->is_held)
                set_left(store, room, 0);
        else
                room->map.key = slice_from(path);
        waits = !goes_without(store) && (room_has_queue(store) || !may_take(store));
        if (waits) {
                drop_room(store, room);
                list_append(&store->room_queue, &room->link);
        } else if (goes_without(store)) {
                drop_room(store, room);
        } else {
                hold_room(store, room);
        }
        store_unlock(store);
        if (waits) {
                journal_wake(store);
                (void)call_background(store);
        }
        return !waits;
}

void store_give_room(Store *store, StoreRoom *room)
{
        bool wake;

        if (!room->is_held && !list_is_linked(&room->link))
                return;
        store_lock(store);
        list_unlink(&room->link);
        drop_room(store, room);
        if (!list_is_empty(&store->room_waiters))
                pthread_cond_broadcast(&store->changed);
        wake = room_has_queue(store);
        store_unlock(store);
        if (wake && store->options.wake)
                store->options.wake(store->options.data);
}

bool store_has_room(Store *store)
{
        const Journal *journal = &store->journal;
        bool has_room;

        store_lock(store);
        has_room = !room_has_queue(store) && may_take(store) &&
                   (journal_count_segments(journal, SEGMENT_FREE) > 0 ||
                           journal->offset < journal->segment_size / 2);
        store_unlock(store);
        return has_room;
}

/* The first that can go, with its room. */
static StoreRoom *take_first(Store *store)
{
        StoreRoom *room = NULL;

        store_lock(store);
        if (room_has_queue(store) && (goes_without(store) || may_take(store)))
                room = list_entry(list_pop(&store->room_queue), StoreRoom, link);
        if (room && !goes_without(store))
                hold_room(store, room);
        store_unlock(store);
        return room;
}

void room_fire(Store *store)
{
        StoreRoom *room;

        while ((room = take_first(store)))
                room->fn(room);
}

/* Threads inside of a commit. */

static bool may_go_on(const Store *store, const RoomWaiter *waiter)
{
        const Journal *journal = &store->journal;
        size_t wanted = waiter->node->wanted;

        if (waiter->why == -EAGAIN)
                return queue_has_room(store);
        return (journal_count_segments(journal, SEGMENT_FREE) > 0 ||
                       wanted + COMMIT_COST <= journal_get_rest(journal)) &&
               room_allows(store, waiter->node, wanted);
}

int room_wait(Node *node, int why)
{
        Store *store = node->store;
        RoomWaiter waiter = { .node = node, .why = why };
        int r = 0;

        /* Of a disk without room nobody tells when it has some again. */
        if (!node->wanted || pthread_equal(pthread_self(), store->loop_thread))
                return -ENOSPC;
        journal_wake(store);
        waiter.call = call_background(store);
        store_lock(store);
        if (why == -ENOSPC && !store->has_background)
                r = -ENOSPC;
        list_init(&waiter.link);
        list_append(&store->room_waiters, &waiter.link);
        while (!r && !may_go_on(store, &waiter)) {
                if (atomic_load(&store->failure))
                        r = -EIO;
                else if (waiter.stuck)
                        r = -ENOSPC;
                else
                        pthread_cond_wait(&store->changed, &store->mutex);
        }
        list_unlink(&waiter.link);
        store_unlock(store);
        return r;
}

static bool anybody_waits(const Store *store)
{
        if (room_has_queue(store) && !may_take(store))
                return true;
        list_for_each(link, &store->room_waiters) {
                if (!may_go_on(store, list_entry(link, RoomWaiter, link)))
                        return true;
        }
        return false;
}

/* Those that nothing will help. */
static void note_waiters(Store *store, uint64_t room_calls)
{
        list_for_each(link, &store->room_waiters) {
                RoomWaiter *waiter = list_entry(link, RoomWaiter, link);

                waiter->stuck |= waiter->call <= room_calls && !may_go_on(store, waiter);
        }
}

void room_note_stuck(Store *store, uint64_t work_calls, uint64_t room_calls)
{
        bool wake = false;

        store_lock(store);
        if (store->work_calls == work_calls && !journal_is_busy(&store->journal) &&
                anybody_waits(store)) {
                store->full = true;
                note_waiters(store, room_calls);
                pthread_cond_broadcast(&store->changed);
                wake = room_has_queue(store);
        }
        store_unlock(store);
        if (wake && store->options.wake)
                store->options.wake(store->options.data);
}
