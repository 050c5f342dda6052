/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <errno.h>
#include <stdio.h>

/*
 * The past: what the model knows an object to have held at a bookmark, and going back there
 */

#define EXPORT "/state/export"
/* Within that commits are not told apart by their time. */
#define TIME_NS UINT64_C(10000000)

static void put(Object *object, const char *bookmark, const Content *content, size_t entry)
{
        Past *past;

        if (!object->pasts) {
                object->pasts = malloc(OBJECT_PASTS * sizeof *object->pasts);
                dd_assert(object->pasts);
        }
        past = &object->pasts[object->n_pasts < OBJECT_PASTS
                                      ? object->n_pasts++
                                      : rng_below(&object->world->rng, OBJECT_PASTS)];
        *past = (Past){ .content = *content, .entry = entry };
        memcpy(past->bookmark, bookmark, sizeof past->bookmark);
}

void past_note(Object *object)
{
        size_t entry = object_find_current(object);
        char bookmark[STORE_BOOKMARK_LEN + 1];
        int r;

        if (object->broken)
                return;
        r = store_get_bookmark(object->world->store, object->path, bookmark);
        if (r)
                world_fail(object->world, "object %u: its bookmark: %d", object->number, r);
        else
                put(object, bookmark, &object->entries[entry].content, entry);
}

void past_settle(Object *object, size_t entry)
{
        size_t kept = 0;

        for (size_t i = 0; i < object->n_pasts; i++) {
                Past *past = &object->pasts[i];

                if (!past->settled && past->entry > entry)
                        continue;
                past->settled = true;
                object->pasts[kept++] = *past;
        }
        object->n_pasts = kept;
}

/* Another object, or the same, that this runner has as well. */
static Object *choose_destination(Object *object)
{
        World *world = object->world;
        Object *other = &world->objects[rng_below(&world->rng, world->n_objects)];

        if (rng_chance(&world->rng, 700) ||
                other->number % world->n_runners != object->number % world->n_runners)
                return object;
        return other;
}

/* New objects have pages of 4096 bytes; those that were brought, and their snapshots, others. */
static bool has_sizes(const World *world)
{
        for (unsigned i = 0; i < world->n_objects; i++)
                if (world->objects[i].page_size != 4096)
                        return true;
        return false;
}

/* The disk did not give a segment back, for long. */
static bool has_gaps(const World *world)
{
        StoreStats stats;

        store_get_stats(world->store, &stats);
        return world->forgets || stats.archive_gaps > 0;
}

/* What the engine may answer where the model has a content. */
static bool is_allowed(const Object *object, const Past *past, int r)
{
        const World *world = object->world;

        switch (r) {
        case STORE_E_PRUNED:
                return past && has_gaps(world);
        case STORE_E_ABSENT:
                return past && past->content.counter < 0;
        case STORE_E_PAGE_SIZE:
                return has_sizes(world);
        case -ENOENT:
                return !past && object->entries[object_find_current(object)].content.counter < 0;
        case -ENOSPC:
                return true;
        default:
                return r < 0 && world_excuses(world);
        }
}

static void go_back(Object *object)
{
        World *world = object->world;
        Object *to = choose_destination(object);
        Past *past = NULL;
        char undo[STORE_BOOKMARK_LEN + 1] = "";
        size_t before = object_find_current(to);
        Content content = object->entries[object_find_current(object)].content;
        int r;

        if (to->broken || to->unseen || !store_has_room(world->store))
                return;
        if (object->n_pasts > 0 && (to == object || rng_chance(&world->rng, 700))) {
                past = &object->pasts[rng_below(&world->rng, object->n_pasts)];
                content = past->content;
        }
        if (rng_chance(&world->rng, 300))
                object_close(to);
        r = store_restore(world->store, object->path, past ? past->bookmark : NULL, to->path, undo);
        world_log(world, "object %u: restore of object %u to commit %lld, %s: %d", to->number,
                object->number, (long long)content.counter, past ? past->bookmark : "now", r);
        if (r == 0) {
                put(to, undo, &to->entries[before].content, before);
                object_committed(to, &content);
                to->next_counter = MAX(to->next_counter, object->next_counter);
                object_read_now(to);
                world->stats.restores++;
                return;
        }
        world->stats.restores_refused++;
        if (!is_allowed(object, past, r) && !sim_disk_is_dead(world->disk))
                world_fail(world, "object %u: restore of object %u to commit %lld: %d", to->number,
                        object->number, (long long)content.counter, r);
        else if (r < 0)
                object_abandon(to, &content);
        else
                object_read_now(to);
}

/* What an object may have been at a time: not less than what had been shown, nor anything that came
 * later. Two entries and those between them. */
typedef struct Range {
        size_t first, last;
} Range;

static Range find_range(const Object *object, uint64_t time)
{
        Range range = { .last = object->n_entries - 1 };

        while (range.last > 0 && object->entries[range.last].made_at > time + TIME_NS)
                range.last--;
        range.first = range.last;
        while (range.first > 0 && (!object->entries[range.first].shown_at ||
                                          object->entries[range.first].shown_at + TIME_NS > time))
                range.first--;
        return range;
}

static bool was_so(const Object *object, Range range, const Content *content)
{
        uint64_t hash = content_hash(content);

        for (size_t i = range.first; i <= range.last; i++)
                if (object->entries[i].hash == hash)
                        return true;
        return false;
}

/* The disk is dead, or there was no room: any of it may be there. */
static void abandon_range(Object *object, Range range)
{
        for (size_t i = range.first; i <= range.last; i++)
                object_abandon(object, &object->entries[i].content);
}

/* By the clock, within this life. */
static void go_back_to_time(Object *object)
{
        World *world = object->world;
        Disk *disk = sim_disk_get(world->disk);
        uint64_t first = object->entries[0].made_at + TIME_NS, now = disk_clock_realtime(disk);
        size_t before = object_find_current(object);
        char bookmark[STORE_BOOKMARK_LEN + 1], undo[STORE_BOOKMARK_LEN + 1];
        uint64_t time;
        Range range;
        Content got;
        int r;

        if (world->faulty || now < first || !store_has_room(world->store))
                return;
        time = rng_between(&world->rng, first, now);
        range = find_range(object, time);
        r = store_find_bookmark(world->store, object->path, time, bookmark);
        r = r ? r : store_restore(world->store, object->path, bookmark, object->path, undo);
        world_log(world, "object %u: restore to the time %llu: %d", object->number,
                (unsigned long long)time, r);
        if (r == 0 && object_look(object, &got)) {
                if (!was_so(object, range, &got))
                        object_explain(object, "a restore to a time",
                                &object->entries[range.last].content, &got);
                put(object, undo, &object->entries[before].content, before);
                object_committed(object, &got);
                world->stats.times++;
        } else if (r <= 0) {
                if (r != -ENOSPC && !world_excuses(world))
                        world_fail(world, "object %u: restore to a time: %d", object->number, r);
                abandon_range(object, range);
        } else if (r != STORE_E_ABSENT && !(r == STORE_E_PAGE_SIZE && has_sizes(world)) &&
                   !(r == STORE_E_PRUNED && has_gaps(world)) && !sim_disk_is_dead(world->disk))
                world_fail(world, "object %u: restore to a time: %d", object->number, r);
}

static void export_now(Object *object)
{
        World *world = object->world;
        Disk *disk = sim_disk_get(world->disk);
        const Content *want = &object->entries[object_find_current(object)].content;
        char path[sizeof EXPORT + 16];
        Content got;
        int r;

        snprintf(path, sizeof path, EXPORT "%u", object->number);
        r = store_export(world->store, object->path, path);
        world->stats.exports += r == 0;
        if (r == 0) {
                object_read_file(object, path, &got);
                if (content_hash(&got) != content_hash(want))
                        object_explain(object, "its export", want, &got);
        } else if (!world_excuses(world) && r != -ENOSPC && r != -EEXIST &&
                   (want->counter >= 0 || (r != -ENOENT && r != -EUCLEAN)))
                world_fail(world, "object %u: export: %d", object->number, r);
        disk_unlink(disk, path);
}

void past_step(Object *object)
{
        unsigned action = (unsigned)rng_below(&object->world->rng, 10);

        if (action < 2)
                past_note(object);
        else if (action < 3)
                export_now(object);
        else if (action < 4)
                go_back_to_time(object);
        else
                go_back(object);
}
