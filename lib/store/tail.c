/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/recover.h"

#include <errno.h>

/*
 * The last batch, once more
 *
 * What a killed process wrote last can be read and yet not be durable, or be lost for good by a
 * sync that failed: it is written once more before any of it goes to a file. But it may be durable
 * as well, and have been answered for, and the power may fail in that write and leave a sector that
 * is neither the old nor the new one. So a copy of it is durable before its place is written, and
 * a start that finds the place torn takes the copy.
 */

static int read_tail(Found *found, const char *path, unsigned char **ret, size_t *ret_len)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        _cleanup_(free_p) unsigned char *bytes = NULL;
        uint64_t size;
        size_t got;
        int r = disk_open(found->store->disk, path, DISK_READ_ONLY, &file);

        r = r ?: disk_get_size(file, &size);
        if (r)
                return r;
        if (size < TAIL_HEADER_SIZE + BATCH_HEADER_SIZE ||
                size > TAIL_HEADER_SIZE + JOURNAL_BATCH_MAX)
                return -EBADMSG;
        bytes = malloc(size);
        r = bytes ? disk_read(file, bytes, size, 0, &got) : -ENOMEM;
        if (!r && got < size)
                r = -EBADMSG;
        if (r)
                return r;
        *ret = TAKE_PTR(bytes);
        *ret_len = size;
        return 0;
}

static int decode_tail(const Found *found, Slice bytes, FoundBatch *ret)
{
        FoundBatch batch = { .is_copy = true };
        uint64_t size;
        int r = tail_decode(bytes, &batch.slot, &batch.offset);

        bytes = slice_skip(bytes, TAIL_HEADER_SIZE);
        r = r ?: batch_decode_header(bytes, &batch.header);
        if (r)
                return r;
        if (batch.header.len != bytes.len || !batch_check(&batch.header, bytes) ||
                !found_find_era(found, &batch.header, &batch.era) ||
                batch.slot >= ELEMENTSOF(found->segments) || !found->segments[batch.slot])
                return -EBADMSG;
        r = disk_get_size(found->segments[batch.slot], &size);
        if (!r && (batch.offset % DISK_BLOCK || batch.offset > size ||
                          batch.header.len > size - batch.offset))
                r = -EBADMSG;
        if (!r)
                *ret = batch;
        return r;
}

/* Of those that are found, which have no order yet, the last one; NULL: none is. */
static const FoundBatch *find_last(const Found *found)
{
        const FoundBatch *last = NULL;

        for (size_t i = 0; i < found->n_batches; i++) {
                const FoundBatch *batch = &found->batches[i];

                if (!last || batch->era > last->era ||
                        (batch->era == last->era && batch->header.batch > last->header.batch))
                        last = batch;
        }
        return last;
}

int found_take_copy(Found *found)
{
        _cleanup_(free_p) char *path = path_join(found->store->journal_path, "tail");
        _cleanup_(free_p) unsigned char *bytes = NULL;
        const FoundBatch *last = find_last(found);
        FoundBatch batch;
        size_t len = 0;
        int r = path ? read_tail(found, path, &bytes, &len) : -ENOMEM;

        r = r ?: decode_tail(found, slice_of(bytes, len), &batch);
        if (SABOTAGED(SABOTAGE_COPY))
                return 0;
        /* It is a copy: one that says nothing is as good as none. */
        if (r)
                return r == -ENOENT || r == -EBADMSG ? 0 : r;
        if (last ? !found_follows(found, last, &batch) : batch.era > 0 || batch.header.batch != 1)
                return 0;
        r = found_add_batch(found, &batch);
        if (r)
                return r;
        store_log(found->store, LOG_NOTICE,
                "%s: batch %llu is not whole in segment-%02u at offset %llu: its copy is taken",
                path, (unsigned long long)batch.header.batch, batch.slot,
                (unsigned long long)batch.offset);
        found->tail = TAKE_PTR(bytes);
        return 0;
}

static int write_copy(Found *found, const FoundBatch *batch, Slice bytes)
{
        Disk *disk = found->store->disk;
        _cleanup_(free_p) char *path = path_join(found->store->journal_path, "tail");
        _cleanup_(free_p) char *new_path = path_join(found->store->journal_path, "tail.new");
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        unsigned char head[TAIL_HEADER_SIZE];
        int r = path && new_path ? disk_open(disk, new_path, DISK_CREATE, &file) : -ENOMEM;

        tail_encode(batch->slot, batch->offset, head);
        r = r ?: disk_truncate(file, 0);
        r = r ?: disk_write(file, head, sizeof head, 0, 0);
        r = r ?: disk_write(file, bytes.data, bytes.len, sizeof head, 0);
        r = r ?: disk_sync(file);
        r = r ?: disk_rename(disk, new_path, path);
        return r ?: disk_sync_folder(disk, found->store->journal_path);
}

int found_secure_tail(Found *found)
{
        const FoundBatch *last = found->n_batches ? &found->batches[found->n_batches - 1] : NULL;
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        _cleanup_(free_p) char *path = NULL;
        Slice bytes;
        int r;

        /* What the epoch file counts was durable before that said so. */
        if (!last || (last->era < found->epoch.n_earlier && !last->is_copy) ||
                SABOTAGED(SABOTAGE_TAIL))
                return 0;
        path = found_segment_path(found, last->slot);
        if (!path)
                return -ENOMEM;
        r = found_read(found, last, &bytes);
        if (r == -EBADMSG)
                return found_damage(
                        found, last->slot, last->offset, "the batch has changed while it was read");
        r = r ?: write_copy(found, last, bytes);
        /* Its place needs no room. */
        if (r == -ENOSPC || r == -EDQUOT)
                r = 0;
        r = r ?: disk_open(found->store->disk, path, 0, &file);
        return r ?: disk_write(file, bytes.data, bytes.len, last->offset, DISK_DSYNC);
}
