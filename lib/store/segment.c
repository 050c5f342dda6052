/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include "lib/store/crc32c.h"

#include <errno.h>

/*
 * Reading the journal while it is written
 *
 * By a descriptor of its own, up to what is flushed. A segment may be retired and written over
 * meanwhile: what is read counts when the segment is still live afterwards.
 */

#define CHUNK (1u << 20)

static int compare_segments(const void *a, const void *b)
{
        uint64_t x = ((const LiveSegment *)a)->number, y = ((const LiveSegment *)b)->number;

        return x > y ? -1 : x < y;
}

int segment_list(Store *store, LiveSegment **ret, size_t *ret_n)
{
        Journal *journal = &store->journal;
        LiveSegment *segments = calloc(journal->n_segments + 1, sizeof *segments);
        size_t n = 0;

        if (!segments)
                return -ENOMEM;
        store_lock(store);
        for (unsigned i = 0; i < journal->n_segments; i++)
                if (journal->segments[i].state == SEGMENT_LIVE)
                        segments[n++] = (LiveSegment){
                                .number = journal->segments[i].number,
                                .slot = i,
                                .epoch = journal->eras[journal->segments[i].era].epoch,
                                .end = journal->segments[i].end,
                        };
        store_unlock(store);
        qsort(segments, n, sizeof *segments, compare_segments);
        *ret = segments;
        *ret_n = n;
        return 0;
}

bool segment_is_live(Store *store, const LiveSegment *segment)
{
        const Segment *at = &store->journal.segments[segment->slot];
        bool is_live;

        store_lock(store);
        is_live = at->state == SEGMENT_LIVE && at->number == segment->number;
        store_unlock(store);
        return is_live;
}

static int open_segment(Store *store, const LiveSegment *segment, DiskFile **ret)
{
        _cleanup_(free_p) char *path = NULL;

        if (asprintf(&path, "%s/segment-%02u", store->journal_path, segment->slot) < 0)
                return -ENOMEM;
        return disk_open(store->disk, path, DISK_READ_ONLY, ret);
}

/* Its batches, one after the other, in memory. */
typedef struct Reader {
        Store *store;
        const LiveSegment *segment;
        DiskFile *file;
        unsigned char *bytes;
        size_t room;
        uint64_t offset;
        BatchHeader header;
} Reader;

static void reader_done(Reader *reader)
{
        disk_close(reader->file);
        free(reader->bytes);
}

static int reserve(Reader *reader, size_t size)
{
        unsigned char *bytes;

        if (size <= reader->room)
                return 0;
        bytes = realloc(reader->bytes, size);
        if (!bytes)
                return -ENOMEM;
        reader->bytes = bytes;
        reader->room = size;
        return 0;
}

/* The next batch; -ENODATA where there is none. */
static int read_batch(Reader *reader, Slice *ret)
{
        size_t got, more = 0;
        uint32_t len;
        int r = reserve(reader, DISK_BLOCK);

        if (!r && reader->offset >= reader->segment->end)
                return -ENODATA;
        r = r ?: disk_read(reader->file, reader->bytes, DISK_BLOCK, reader->offset, &got);
        r = r ?: batch_decode_header(slice_of(reader->bytes, got), &reader->header);
        if (!r && (reader->header.epoch != reader->segment->epoch ||
                          reader->header.segment != reader->segment->number))
                r = -EBADMSG;
        if (r)
                return r == -EBADMSG ? -ENODATA : r;
        len = reader->header.len;
        r = reserve(reader, len);
        if (!r && len > got)
                r = disk_read(
                        reader->file, reader->bytes + got, len - got, reader->offset + got, &more);
        if (r)
                return r;
        *ret = slice_of(reader->bytes, MIN((size_t)len, got + more));
        if (!batch_check(&reader->header, *ret))
                return -ENODATA;
        reader->offset += (len + DISK_BLOCK - 1) & ~(uint64_t)(DISK_BLOCK - 1);
        return 0;
}

int segment_read_first(Store *store, const LiveSegment *segment, uint64_t *ret)
{
        _cleanup_(reader_done) Reader reader = { .store = store, .segment = segment };
        int r = open_segment(store, segment, &reader.file);
        Slice bytes;

        if (r)
                return r;
        while ((r = read_batch(&reader, &bytes)) == 0) {
                if (reader.header.n_records == 0)
                        continue;
                *ret = reader.header.first_lsn;
                return 0;
        }
        return r == -ENODATA ? -ENOENT : r;
}

static int add_record(SegmentRecords *records, Slice bytes, uint64_t time)
{
        size_t offset = records->bytes.len;

        if (records->n == records->room) {
                size_t room = records->room ? 2 * records->room : 64;
                LiveRecord *grown = realloc(records->records, room * sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                records->records = grown;
                records->room = room;
        }
        records->records[records->n++] = (LiveRecord){ offset, time };
        return buf_append_slice(&records->bytes, bytes);
}

/* The object's records of a batch. Its number holds from its NAME to the next. */
static int take_batch(SegmentRecords *records, const BatchHeader *header, Slice bytes, Slice name,
        uint32_t *object)
{
        Slice rest = slice_skip(bytes, BATCH_HEADER_SIZE);

        for (uint32_t i = 0; i < header->n_records; i++) {
                Slice before = rest;
                Record record;
                int r = record_decode(&rest, &record);

                if (r)
                        return -EUCLEAN;
                if (record.type == RECORD_NAME && slice_equal(record.payload, name))
                        *object = record.object;
                if (record.type == RECORD_NAME || record.object != *object || !*object)
                        continue;
                r = add_record(records, slice_head(before, before.len - rest.len), header->time);
                if (r)
                        return r;
        }
        return 0;
}

int segment_read(Store *store, const LiveSegment *segment, const char *name, uint64_t upto,
        SegmentRecords *ret)
{
        _cleanup_(reader_done) Reader reader = { .store = store, .segment = segment };
        uint32_t object = 0;
        int r = open_segment(store, segment, &reader.file);
        Slice bytes;

        *ret = (SegmentRecords){ .store = store, .first_lsn = upto + 1, .last_lsn = upto };
        while (!r && (r = read_batch(&reader, &bytes)) == 0) {
                const BatchHeader *header = &reader.header;

                if (header->n_records == 0)
                        continue;
                if (header->first_lsn > upto)
                        break;
                if (!ret->first_time) {
                        ret->first_lsn = header->first_lsn;
                        ret->first_time = header->time;
                }
                ret->last_lsn = header->first_lsn + header->n_records - 1;
                r = take_batch(ret, header, bytes, slice_from(name), &object);
        }
        return r == -ENODATA ? 0 : r;
}

void segment_records_done(SegmentRecords *records)
{
        buf_done(&records->bytes);
        free(TAKE_PTR(records->records));
}

void segment_get_record(const SegmentRecords *records, size_t index, Record *ret)
{
        Slice rest = slice_skip(buf_slice(&records->bytes), records->records[index].offset);
        int r = record_decode(&rest, ret);

        /* It has been decoded once. */
        dd_assert(r == 0);
}

/* All of a spill file is what its record says. */
static int check_spill(DiskFile *file, const SpillRef *spill)
{
        _cleanup_(free_p) unsigned char *chunk = malloc(CHUNK);
        uint64_t done = 0;
        uint32_t crc = 0;
        size_t got = 1;
        int r = chunk ? 0 : -ENOMEM;

        for (; !r && done < spill->size && got; done += got) {
                r = disk_read(file, chunk, MIN(spill->size - done, (uint64_t)CHUNK), done, &got);
                if (!r)
                        crc = crc32c(crc, chunk, got);
        }
        if (r)
                return r;
        return done == spill->size && crc == spill->crc ? 0 : -EUCLEAN;
}

int segment_read_past(const Record *record, ArchivePageFn fn, void *fn_data, void *data)
{
        Store *store = data;
        _cleanup_(free_p) char *path = NULL;
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        size_t size = 4 + (size_t)record->page_size, got;
        _cleanup_(free_p) unsigned char *entry = malloc(size);
        uint64_t offset = record->type == RECORD_DELETE ? 0 : (uint64_t)record->n_pages * size;
        SpillRef spill;
        int r = spill_decode(record->payload, &spill);

        if (r)
                return r;
        path = store_file_path(store, "spill", spill.file);
        if (!path || !entry)
                return -ENOMEM;
        r = disk_open(store->disk, path, DISK_READ_ONLY, &file);
        /* It went with its segment, which is in the archive by now. */
        if (r == -ENOENT)
                return -EAGAIN;
        r = r ?: check_spill(file, &spill);
        for (; !r && offset < spill.size; offset += size) {
                r = disk_read(file, entry, size, offset, &got);
                if (!r && got < size)
                        r = -EBADMSG;
                r = r ?: fn(get_le32(entry), entry + 4, fn_data);
        }
        return r;
}
