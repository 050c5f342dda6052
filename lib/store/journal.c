/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/recover.h"

#include <errno.h>

#define BATCH_FIRST (64u << 10)
#define BATCH_KEEP (2u << 20)
#define SPARE_MAX 4u
#define ZERO_CHUNK (1u << 20)

static uint64_t round_up(uint64_t n)
{
        return (n + DISK_BLOCK - 1) & ~(uint64_t)(DISK_BLOCK - 1);
}

static void batch_free(Batch *batch)
{
        if (!batch)
                return;
        free(batch->data);
        free(batch);
}

static int batch_reserve(Batch *batch, size_t n)
{
        size_t room = batch->room ?: BATCH_FIRST;
        void *data;

        while (room < round_up(batch->len + n))
                room *= 2;
        if (room == batch->room)
                return 0;
        if (posix_memalign(&data, DISK_BLOCK, room))
                return -ENOMEM;
        if (batch->data)
                memcpy(data, batch->data, batch->len);
        free(batch->data);
        batch->data = data;
        batch->room = room;
        return 0;
}

/* Puts a batch whose write is done aside for the next, or frees it. */
static void batch_recycle(Journal *journal, Batch *batch)
{
        if (journal->n_spare >= SPARE_MAX || batch->room > BATCH_KEEP) {
                batch_free(batch);
                return;
        }
        list_append(&journal->spare, &batch->link);
        journal->n_spare++;
}

static void on_written(DiskWrite *write, int result);

static int batch_new(Store *store, Batch **ret)
{
        Journal *journal = &store->journal;
        List *link = list_pop(&journal->spare);
        Batch *batch;

        if (link) {
                batch = list_entry(link, Batch, link);
                journal->n_spare--;
        } else {
                batch = calloc(1, sizeof *batch);
                if (!batch)
                        return -ENOMEM;
                list_init(&batch->link);
                batch->store = store;
                batch->write.fn = on_written;
        }
        batch->len = BATCH_HEADER_SIZE;
        batch->n_records = 0;
        if (batch_reserve(batch, 0)) {
                batch_free(batch);
                return -ENOMEM;
        }
        *ret = batch;
        return 0;
}

static int find_segment(const Journal *journal, SegmentState state)
{
        for (unsigned i = 0; i < journal->n_segments; i++)
                if (journal->segments[i].state == state)
                        return (int)i;
        return -1;
}

unsigned journal_count_segments(const Journal *journal, SegmentState state)
{
        unsigned n = 0;

        for (unsigned i = 0; i < journal->n_segments; i++)
                n += journal->segments[i].state == state;
        return n;
}

static int next_segment(Journal *journal)
{
        int slot = find_segment(journal, SEGMENT_FREE);

        if (slot < 0)
                return -ENOSPC;
        journal->segments[slot].state = SEGMENT_LIVE;
        /* The next one, and an old one's end, are the background's. */
        CONTAINER_OF(journal, Store, journal)->work_waits = true;
        journal->segments[slot].number = ++journal->last_segment;
        journal->segments[slot].last_lsn = journal->segments[slot].first_lsn = 0;
        journal->segments[slot].end = UINT64_MAX;
        journal->segments[slot].era = journal->n_eras - 1;
        journal->current = (unsigned)slot;
        journal->offset = 0;
        journal->spilled = 0;
        return 0;
}

/* What comes after the filling batch begins on a block of its own. */
static Batch *close_filling(Journal *journal)
{
        Batch *batch = TAKE_PTR(journal->filling);

        journal->offset = batch->offset + round_up(batch->len);
        return batch;
}

/* Where in a segment an append must end. */
static uint64_t get_limit(const Journal *journal, JournalUse use)
{
        switch (use) {
        case JOURNAL_COMMIT:
        case JOURNAL_COPY:
                return journal->segment_size - SEGMENT_RESERVE;
        case JOURNAL_DELETE:
                return journal->segment_size - SEGMENT_RESERVE / 2;
        case JOURNAL_CANCEL:
                break;
        }
        return journal->segment_size;
}

/*
 * A segment can be full with the files that it names, or they would pile up behind a few bytes. The
 * last ones are for what has no other place.
 */
static bool is_full(const Journal *journal, size_t len, JournalUse use)
{
        if (journal->offset + BATCH_HEADER_SIZE + len > get_limit(journal, use))
                return true;
        return use <= JOURNAL_COPY && journal->spilled >= journal->segment_size &&
               journal_count_segments(journal, SEGMENT_FREE) > 0 &&
               journal_count_segments(journal, SEGMENT_LIVE) + 2 <= journal->n_segments;
}

uint64_t journal_get_rest(const Journal *journal)
{
        const Batch *batch = journal->filling;
        uint64_t used = batch ? batch->offset + round_up(batch->len) : journal->offset;
        uint64_t limit = get_limit(journal, JOURNAL_COMMIT);

        return used >= limit || is_full(journal, 0, JOURNAL_COMMIT) ? 0 : limit - used;
}

static int begin_batch(Store *store, size_t len, JournalUse use)
{
        Journal *journal = &store->journal;
        Batch *batch;
        int r = 0;

        if (journal->last_segment == 0 || is_full(journal, len, use))
                r = next_segment(journal);
        r = r ?: batch_new(store, &batch);
        if (r)
                return r;
        batch->slot = journal->current;
        batch->segment = journal->last_segment;
        batch->offset = journal->offset;
        journal->filling = batch;
        return 0;
}

/* Sees to it that the filling batch takes len more bytes. */
static int make_room(Store *store, size_t len, JournalUse use)
{
        Journal *journal = &store->journal;
        uint64_t limit = get_limit(journal, use);
        Batch *batch = journal->filling;
        int r;

        if (batch && batch->n_records &&
                (batch->len >= BATCH_TARGET || batch->offset + batch->len + len > limit)) {
                batch = close_filling(journal);
                list_append(&journal->ready, &batch->link);
        } else if (batch && batch->offset + batch->len + len > limit) {
                /* An empty one at the end of a segment, made for less. */
                journal->filling = NULL;
                batch_recycle(journal, batch);
        }
        if (!journal->filling) {
                r = begin_batch(store, len, use);
                if (r)
                        return r;
        }
        return batch_reserve(journal->filling, len);
}

static bool is_queue_full(const Store *store, size_t len, JournalUse use)
{
        const Journal *journal = &store->journal;
        uint64_t max = store->options.queue_max * (use == JOURNAL_DELETE ? 2 : 1);

        return use != JOURNAL_CANCEL && journal->queued && journal->queued + len > max;
}

/* The same for a node's records, where the limits allow them. */
static int make_room_for(Node *node, size_t len, JournalUse use)
{
        Store *store = node->store;
        bool is_reserved;
        int r;

        if (atomic_load(&store->failure))
                return -EIO;
        is_reserved = use == JOURNAL_COMMIT && room_covers(store, node, len);
        if (!is_reserved && is_queue_full(store, len, use))
                r = -EAGAIN;
        else if (use == JOURNAL_COMMIT && !is_reserved && !room_allows(store, node, len))
                r = -ENOSPC;
        else
                r = make_room(store, len, use);
        if (r && (use == JOURNAL_COMMIT || use == JOURNAL_DELETE))
                node->wanted = len;
        return r;
}

int journal_prepare(Node *node, size_t len, JournalUse use, uint64_t *ret_segment)
{
        Store *store = node->store;
        int r;

        store_lock(store);
        r = make_room_for(node, len, use);
        if (!r)
                *ret_segment = store->journal.filling->segment;
        store_unlock(store);
        return r;
}

static void number_records(Journal *journal, JournalAppend *append)
{
        unsigned char *record = append->records;

        for (uint32_t i = 0; i < append->n_records; i++) {
                record_set_lsn(record, ++journal->last_lsn);
                record += get_le32(record + 4);
        }
        dd_assert(record == append->records + append->len);
        append->ret_last_lsn = journal->last_lsn;
}

static void put_records(Store *store, JournalAppend *append)
{
        Journal *journal = &store->journal;
        Batch *batch = journal->filling;
        Node *node = append->node;

        if (!batch->n_records)
                batch->first_lsn = journal->last_lsn + 1;
        number_records(journal, append);
        memcpy(batch->data + batch->len, append->records, append->len);
        batch->len += append->len;
        batch->n_records += append->n_records;
        batch->last_lsn = append->ret_last_lsn;
        journal->segments[batch->slot].last_lsn = batch->last_lsn;
        journal->queued += append->len;
        store->stats.record_bytes += append->len;
        if (append->use == JOURNAL_COMMIT)
                room_use(store, node, append->len);
        if (node->first_segment == NO_SEGMENT)
                node_set_first_segment(node, batch->segment);
        atomic_store(&node->last_lsn, append->ret_last_lsn);
        atomic_store(&store->captured, append->ret_last_lsn);
}

int journal_append(Store *store, JournalAppend *append)
{
        int r;

        store_lock(store);
        r = make_room_for(append->node, append->len, append->use);
        if (!r && store->journal.filling->segment != append->segment)
                r = -ESTALE;
        if (!r)
                put_records(store, append);
        store_unlock(store);
        return r;
}

static bool has_work(const Journal *journal)
{
        return !list_is_empty(&journal->ready) || journal->mark_wanted ||
               (journal->filling && journal->filling->n_records);
}

void journal_wake(Store *store)
{
        Journal *journal = &store->journal;
        bool wake;

        store_lock(store);
        wake = has_work(journal) && !journal->in_flight && !journal->woken;
        journal->woken |= wake;
        store_unlock(store);
        if (wake && store->options.wake)
                store->options.wake(store->options.data);
}

bool journal_is_busy(const Journal *journal)
{
        return journal->in_flight || has_work(journal);
}

bool journal_is_idle(Store *store)
{
        bool idle;

        store_lock(store);
        idle = !journal_is_busy(&store->journal);
        store_unlock(store);
        return idle;
}

/* The batch to write next, or NULL. */
static Batch *take_batch(Store *store)
{
        Journal *journal = &store->journal;
        List *link = list_pop(&journal->ready);
        Batch *batch;

        if (link)
                return list_entry(link, Batch, link);
        if (journal->filling && journal->filling->n_records)
                return close_filling(journal);
        /* A mark on its own: a batch without records. When there is not even room for it, it goes
         * out with the next that finds some. */
        if (!journal->filling && make_room(store, 0, JOURNAL_CANCEL))
                return NULL;
        batch = close_filling(journal);
        batch->last_lsn = 0;
        batch->first_lsn = journal->last_lsn + 1;
        return batch;
}

static void seal(Store *store, Batch *batch)
{
        size_t size = round_up(batch->len);
        BatchHeader header = {
                .epoch = store->journal.epoch,
                .batch = ++store->journal.last_batch,
                .segment = batch->segment,
                .low = batch->low,
                .len = (uint32_t)batch->len,
                .n_records = batch->n_records,
                .first_lsn = batch->first_lsn,
                .time = disk_clock_realtime(store->disk),
        };

        memset(batch->data + batch->len, 0, size - batch->len);
        batch_seal(&header, batch->data);
        batch->submitted_at = disk_clock_monotonic(store->disk);
        batch->write.file = store->journal.segments[batch->slot].file;
        batch->write.data = batch->data;
        batch->write.len = size;
        batch->write.offset = batch->offset;
        batch->write.flags = DISK_DSYNC;
}

/* The mark holds when everything captured before it was set is durable: a batch that is older than
 * what was copied forward must not carry it. */
static void say_low(Journal *journal, Batch *batch)
{
        if (!batch->n_records || batch->last_lsn >= journal->low_lsn) {
                journal->said_low = journal->low;
                journal->mark_wanted = false;
        }
        batch->low = journal->said_low;
}

void journal_fill(Store *store)
{
        Journal *journal = &store->journal;
        Batch *batch = NULL;
        int r;

        store_lock(store);
        journal->woken = false;
        if (!journal->in_flight && !atomic_load(&store->failure) && has_work(journal))
                batch = take_batch(store);
        if (batch) {
                journal->in_flight = batch;
                say_low(journal, batch);
                if (SABOTAGED(SABOTAGE_EARLY_FLUSH) && batch->last_lsn)
                        atomic_store(&store->flushed, batch->last_lsn);
        }
        store_unlock(store);
        if (!batch)
                return;
        seal(store, batch);
        r = disk_submit(store->disk, &batch->write);
        if (!r)
                return;
        store_lock(store);
        journal->in_flight = NULL;
        batch_recycle(journal, batch);
        store_unlock(store);
        store_fail(store, r, "the journal's write could not be started: %s", strerror(-r));
}

/* Invariant 4: this is where segments become free, and nowhere else. */
static bool free_segments(Store *store, uint64_t low)
{
        Journal *journal = &store->journal;
        bool freed = false;

        journal->durable_low = MAX(journal->durable_low, low);
        for (unsigned i = 0; i < journal->n_segments; i++) {
                Segment *segment = &journal->segments[i];

                if (segment->state != SEGMENT_LIVE || segment->number >= journal->durable_low)
                        continue;
                segment->state = SEGMENT_FREE;
                store->stats.retired_segments++;
                freed = true;
        }
        if (freed)
                room_note_free(store);
        return freed;
}

static void count_flush(Store *store, const Batch *batch)
{
        uint64_t ns = disk_clock_monotonic(store->disk) - batch->submitted_at;
        unsigned bits = ns ? 64 - (unsigned)__builtin_clzll(ns) : 0;

        store->stats.flush_ns[MIN(bits, (unsigned)ELEMENTSOF(store->stats.flush_ns) - 1)]++;
        store->stats.batches++;
        store->stats.disk_bytes += batch->write.len;
}

static void on_written(DiskWrite *write, int result)
{
        Batch *batch = CONTAINER_OF(write, Batch, write);
        Store *store = batch->store;
        Journal *journal = &store->journal;
        bool work;

        if (SABOTAGED(SABOTAGE_WRITE_ERROR))
                result = 0;
        store_lock(store);
        journal->in_flight = NULL;
        /* Who waits for room: what is flushed now may go to its file. */
        work = store->work_waits || !list_is_empty(&store->room_waiters) || room_has_queue(store);
        if (!result) {
                store->work_waits = false;
                count_flush(store, batch);
                if (batch->last_lsn)
                        atomic_store(&store->flushed, batch->last_lsn);
                journal->queued -= batch->len - BATCH_HEADER_SIZE;
                work |= free_segments(store, batch->low);
        }
        batch_recycle(journal, batch);
        store_unlock(store);
        /* Who is woken finds the mutex free. */
        pthread_cond_broadcast(&store->changed);
        if (result)
                store_fail(store, result, "a write of the journal failed: %s", strerror(-result));
        store_fire_waiters(store);
        if (work)
                store_call_work(store);
        journal_fill(store);
        room_fire(store);
}

void journal_set_low(Store *store, uint64_t low)
{
        Journal *journal = &store->journal;

        store_lock(store);
        if (low > journal->low) {
                journal->low = low;
                journal->low_lsn = journal->last_lsn;
                journal->mark_wanted = true;
                if (SABOTAGED(SABOTAGE_LOW_MARK))
                        free_segments(store, low);
        }
        store_unlock(store);
        journal_wake(store);
}

uint64_t journal_get_current(Store *store)
{
        uint64_t current;

        store_lock(store);
        current = store->journal.last_segment;
        store_unlock(store);
        return current;
}

uint64_t journal_get_own(const Journal *journal)
{
        return MAX(journal->last_segment, journal->eras[journal->n_eras - 1].first_segment);
}

static int segment_path(Store *store, unsigned slot, char **ret)
{
        char *path;

        if (asprintf(&path, "%s/segment-%02u", store->journal_path, slot) < 0)
                return -ENOMEM;
        *ret = path;
        return 0;
}

/* Zeros all through: a write into blocks that have been written needs no work on metadata. */
static int write_zeros(DiskFile *file, uint64_t size)
{
        _cleanup_(free_p) void *zeros = NULL;
        int r;

        if (posix_memalign(&zeros, DISK_BLOCK, ZERO_CHUNK))
                return -ENOMEM;
        memset(zeros, 0, ZERO_CHUNK);
        r = disk_allocate(file, 0, size);
        for (uint64_t at = 0; !r && at < size; at += ZERO_CHUNK)
                r = disk_write(file, zeros, MIN(size - at, (uint64_t)ZERO_CHUNK), at, 0);
        return r ?: disk_sync(file);
}

int journal_make_segment(Store *store, unsigned slot, DiskFile **ret)
{
        _cleanup_(free_p) char *path = NULL;
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        int r = segment_path(store, slot, &path);

        r = r ?: disk_open(store->disk, path, DISK_CREATE | DISK_DIRECT, &file);
        r = r ?: write_zeros(file, store->options.segment_size);
        r = r ?: disk_sync_folder(store->disk, store->journal_path);
        if (!r)
                *ret = TAKE_PTR(file);
        /* Half a segment is of no use, and its room may be what is missing. */
        else if (file)
                disk_unlink(store->disk, path);
        return r;
}

static int create_segment(Store *store, unsigned slot)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        bool wake;
        int r = journal_make_segment(store, slot, &file);

        if (r)
                return r;
        store_lock(store);
        store->journal.segments[slot].file = TAKE_PTR(file);
        store->journal.segments[slot].state = SEGMENT_FREE;
        room_note_free(store);
        pthread_cond_broadcast(&store->changed);
        wake = room_has_queue(store);
        store_unlock(store);
        if (wake && store->options.wake)
                store->options.wake(store->options.data);
        return 0;
}

int journal_prepare_segment(Store *store)
{
        int slot, r;

        store_lock(store);
        slot = journal_count_segments(&store->journal, SEGMENT_FREE)
                       ? -1
                       : find_segment(&store->journal, SEGMENT_ABSENT);
        store_unlock(store);
        if (slot < 0)
                return 0;
        r = create_segment(store, (unsigned)slot);
        return r ?: 1;
}

/* What an earlier epoch left: a segment of the right size is free, any other goes. */
static int adopt_segment(Store *store, unsigned slot)
{
        _cleanup_(free_p) char *path = NULL;
        Journal *journal = &store->journal;
        uint64_t size;
        int r = segment_path(store, slot, &path);

        r = r ?: disk_stat_size(store->disk, path, &size);
        if (r)
                return r == -ENOENT ? 0 : r;
        if (slot >= journal->n_segments || size != journal->segment_size)
                return disk_unlink(store->disk, path);
        r = disk_open(store->disk, path, DISK_DIRECT, &journal->segments[slot].file);
        if (!r)
                journal->segments[slot].state = SEGMENT_FREE;
        return r;
}

static void note_eras(Journal *journal, const EpochFile *epoch)
{
        memcpy(journal->eras, epoch->earlier, sizeof epoch->earlier);
        journal->n_eras = (unsigned)epoch->n_earlier + 1;
        journal->eras[epoch->n_earlier] = (EarlierEpoch){
                .epoch = epoch->epoch,
                .first_lsn = epoch->first_lsn,
                .last_before = epoch->last_before,
                .first_segment = epoch->first_segment,
                .flags = epoch->flags,
        };
}

/* Invariant 5: what is still to be redone, or synced, holds its segments. */
static void keep_segments(Journal *journal, const Found *found)
{
        unsigned era = 0;

        for (size_t i = 0; i < found->n_batches; i++) {
                const FoundBatch *batch = &found->batches[i];
                const BatchHeader *header = &batch->header;
                Segment *segment = &journal->segments[batch->slot];

                /* Those of which no batch counts any more are not among the eras. */
                era += i && batch->era != batch[-1].era;
                dd_assert(segment->file && batch->slot < journal->n_segments);
                segment->state = SEGMENT_LIVE;
                segment->number = header->segment;
                segment->era = era;
                segment->end = batch->offset + round_up(header->len);
                if (!header->n_records)
                        continue;
                if (!segment->first_lsn)
                        segment->first_lsn = header->first_lsn;
                segment->last_lsn = header->first_lsn + header->n_records - 1;
        }
        if (found->n_batches)
                journal->low = journal->said_low = journal->durable_low =
                        found->batches[0].header.segment;
}

int journal_open(Store *store, const EpochFile *epoch, const Found *kept)
{
        Journal *journal = &store->journal;
        int r = 0;

        journal->segment_size = epoch->segment_size;
        journal->n_segments = store->options.n_segments;
        journal->segments = calloc(journal->n_segments, sizeof *journal->segments);
        if (!journal->segments)
                return -ENOMEM;
        journal->epoch = epoch->epoch;
        journal->last_segment = epoch->first_segment - 1;
        journal->low = journal->said_low = journal->durable_low = epoch->first_segment;
        journal->last_lsn = epoch->first_lsn - 1;
        note_eras(journal, epoch);
        /* There is no current segment yet. */
        journal->offset = journal->segment_size;
        atomic_store(&store->flushed, journal->last_lsn);
        atomic_store(&store->captured, journal->last_lsn);
        for (unsigned i = 0; !r && i < 100; i++)
                r = adopt_segment(store, i);
        if (!r && kept)
                keep_segments(journal, kept);
        if (!r && find_segment(journal, SEGMENT_FREE) < 0)
                r = create_segment(store, (unsigned)MAX(find_segment(journal, SEGMENT_ABSENT), 0));
        return r;
}

void journal_close(Store *store)
{
        Journal *journal = &store->journal;
        List *link;

        batch_free(journal->filling);
        batch_free(journal->in_flight);
        while ((link = list_pop(&journal->ready)))
                batch_free(list_entry(link, Batch, link));
        while ((link = list_pop(&journal->spare)))
                batch_free(list_entry(link, Batch, link));
        for (unsigned i = 0; journal->segments && i < journal->n_segments; i++)
                disk_close(journal->segments[i].file);
        free(journal->segments);
        journal->segments = NULL;
}
