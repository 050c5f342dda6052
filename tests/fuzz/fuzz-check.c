/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The check of a journal and a database: whatever the disk holds, it ends, and changes nothing
 *
 * Input: its first byte says how many blocks of 16 bytes are a database; the rest are batches, each
 * { flags: 1, length: 1 in units of 8 }, then its records. Where a flag asks for it the batch's
 * header and LSNs are those that would come next, with a right crc, so that what lies behind them
 * is reached. The journal is checked, then cut and set aside, then opened.
 */

#include "lib/store/check.h"
#include "lib/store/journal-format.h"
#include "lib/store/salvage.h"
#include "lib/store/store.h"
#include "tests/unit/store/disk-memory.h"

#include <errno.h>
#include <stdlib.h>

#define ROOM (256u << 10)
#define EPOCH 77
#define FIRST_LSN 100
#define DATABASE   \
        "/o/k/aa/" \
        "aa00000000000000000000000000000000000000000000000000000000000000.sqlite"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const folders[] = { "/j", "/o", "/o/k", "/o/k/aa" };

enum { FLAG_HEADER = 1, FLAG_LSN = 2, FLAG_SEGMENT = 4, FLAG_TEAR = 8 };

static void put_file(Disk *disk, const char *path, const void *data, size_t len)
{
        DiskFile *file = NULL;

        dd_assert(disk_open(disk, path, DISK_CREATE, &file) == 0);
        if (len)
                dd_assert(disk_write(file, data, len, 0, 0) == 0);
        disk_close(file);
}

static void put_epoch(Disk *disk)
{
        unsigned char bytes[EPOCH_SIZE];
        EpochFile epoch = { .epoch = EPOCH,
                .generation = 1,
                .first_lsn = FIRST_LSN,
                .first_segment = 1,
                .segment_size = ROOM };

        epoch_encode(&epoch, bytes);
        put_file(disk, "/j/epoch", bytes, sizeof bytes);
        /* That the journal was begun: recover.c asks for it. */
        put_file(disk, "/o/.journal--j", bytes, 0);
}

typedef struct Maker {
        unsigned char *segments[2];
        size_t offset;
        unsigned segment;
        uint64_t batch, lsn;
} Maker;

/* Numbers the records as far as their lengths lead. */
static uint32_t number_records(unsigned char *records, size_t len, uint64_t lsn)
{
        uint32_t n = 0;

        for (size_t at = 0; at + RECORD_HEADER_SIZE <= len; n++) {
                uint32_t step = get_le32(records + at + 4);

                record_set_lsn(records + at, lsn + n);
                if (step < RECORD_HEADER_SIZE || step > len - at)
                        return n + 1;
                at += step;
        }
        return n;
}

static Slice put_batch(Maker *maker, Slice in)
{
        unsigned flags = (unsigned char)in.data[0];
        size_t len = MIN((size_t)(unsigned char)in.data[1] * 8, in.len - 2) & ~(size_t)7;
        BatchHeader header = { .epoch = EPOCH, .low = 1 };
        unsigned char *out;

        if (flags & FLAG_SEGMENT && maker->segment == 0) {
                maker->segment = 1;
                maker->offset = 0;
        }
        if (maker->offset + BATCH_HEADER_SIZE + len > ROOM)
                return slice_skip(in, in.len);
        out = maker->segments[maker->segment] + maker->offset;
        memcpy(out + BATCH_HEADER_SIZE, in.data + 2, len);
        header.segment = maker->segment + 1;
        header.batch = ++maker->batch;
        header.first_lsn = maker->lsn;
        header.len = (uint32_t)(BATCH_HEADER_SIZE + len);
        header.n_records =
                flags & FLAG_LSN ? number_records(out + BATCH_HEADER_SIZE, len, maker->lsn) : 1;
        maker->lsn += header.n_records;
        if (flags & FLAG_HEADER)
                batch_seal(&header, out);
        if (flags & FLAG_TEAR)
                out[BATCH_HEADER_SIZE / 2] ^= 1;
        maker->offset += (BATCH_HEADER_SIZE + len + DISK_BLOCK - 1) & ~(size_t)(DISK_BLOCK - 1);
        return slice_skip(in, 2 + len);
}

static void ignore_finding(const CheckFinding *finding, void *data)
{
        dd_assert(finding->path && *finding->path && finding->text && *finding->text);
        ++*(unsigned *)data;
}

static void take_journal(MemoryDisk *memory, CheckJournalState *ret)
{
        Disk *disk = memory_disk_get(memory);
        CheckJournal journal = {};
        unsigned n = 0;
        CheckOptions options = { .disk = disk,
                .objects = "/o",
                .scratch = "/tmp",
                .found = ignore_finding,
                .data = &n };
        uint64_t calls = memory_disk_get_calls(memory);
        Check *check;
        int r;

        dd_assert(check_new(&options, &check) == 0);
        r = check_journal(check, "/j", &journal);
        dd_assert(r == 0);
        dd_assert(journal.state != CHECK_DAMAGED || n > 0);
        *ret = journal.state;
        check_journal_done(&journal);
        r = check_database(check, DATABASE);
        dd_assert(r == 0 || r == -ENOENT);
        check_free(check);
        dd_assert(memory_disk_get_calls(memory) == calls);
}

/* What the check says is what a start does; a decision makes it start. */
static void take_start(MemoryDisk *memory, CheckJournalState state)
{
        SalvageOptions options = {
                .disk = memory_disk_get(memory), .journal = "/j", .objects = "/o"
        };
        StoreOptions store_options = {
                .disk = options.disk, .journal = "/j", .objects = "/o", .segment_size = ROOM
        };
        SalvageResult result = {};
        Store *store = NULL;
        int r = store_open(&store_options, &store);

        /* A disk in memory has no holes. */
        if (r == -EFBIG)
                return;
        dd_assert((r == -EUCLEAN) == (state == CHECK_DAMAGED));
        dd_assert(r == 0 || r == -EUCLEAN);
        if (r) {
                r = store_salvage(&options, &result);
                free(result.folder);
                if (r == -EFBIG)
                        return;
                dd_assert(r == 0);
                dd_assert(store_open(&store_options, &store) == 0);
        }
        store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Maker maker = { .lsn = FIRST_LSN };
        MemoryDisk *memory;
        CheckJournalState state;
        size_t database;
        Slice rest;

        if (size < 1)
                return 0;
        rest = slice_skip(slice_of(data, size), 1);
        database = MIN((size_t)data[0] * 16, rest.len);
        memory = memory_disk_new(1);
        memory_disk_set_max(memory, 8 << 20);
        for (unsigned i = 0; i < 2; i++)
                maker.segments[i] = calloc(1, ROOM);
        dd_assert(maker.segments[0] && maker.segments[1]);
        for (size_t i = 0; i < ELEMENTSOF(folders); i++)
                disk_mkdir(memory_disk_get(memory), folders[i]);
        put_file(memory_disk_get(memory), DATABASE, rest.data, database);
        rest = slice_skip(rest, database);
        while (rest.len > 2)
                rest = put_batch(&maker, rest);
        put_epoch(memory_disk_get(memory));
        put_file(memory_disk_get(memory), "/j/segment-00", maker.segments[0], ROOM);
        put_file(memory_disk_get(memory), "/j/segment-01", maker.segments[1], ROOM);
        take_journal(memory, &state);
        take_start(memory, state);
        memory_disk_free(memory);
        free(maker.segments[0]);
        free(maker.segments[1]);
        return 0;
}
