/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/journal-format.h"
#include "lib/store/wal.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void an_epoch_file_is_read_back(void **state)
{
        EpochFile epoch = { .epoch = 0x1122334455667788,
                .generation = 3,
                .first_lsn = 9,
                .first_segment = 4,
                .segment_size = 1 << 20,
                .time = 5,
                .last_before = 8,
                .flags = EPOCH_UNDO },
                  back;
        unsigned char bytes[EPOCH_SIZE];

        epoch_encode(&epoch, bytes);
        assert_int_equal(epoch_decode(slice_of(bytes, sizeof bytes), &back), 0);
        assert_memory_equal(&epoch, &back, sizeof back);
        assert_int_equal(epoch_decode(slice_of(bytes, sizeof bytes - 1), &back), -EBADMSG);
        for (size_t i = 0; i < sizeof bytes; i++) {
                bytes[i] ^= 0x10;
                assert_int_equal(epoch_decode(slice_of(bytes, sizeof bytes), &back), -EBADMSG);
                bytes[i] ^= 0x10;
        }
}

static void an_epoch_file_names_earlier_epochs(void **state)
{
        EpochFile epoch = { .epoch = 1, .first_lsn = 90, .n_earlier = EPOCH_EARLIER_MAX }, back;
        unsigned char bytes[EPOCH_SIZE_MAX + 1] = {};
        size_t len;

        for (unsigned i = 0; i < EPOCH_EARLIER_MAX; i++)
                epoch.earlier[i] = (EarlierEpoch){ .epoch = 100 + i,
                        .first_lsn = 10 * i + 1,
                        .last_before = 10 * i,
                        .first_segment = i + 1,
                        .last_batch = 5 + i,
                        .flags = i & 1 };
        len = epoch_encode(&epoch, bytes);
        assert_int_equal(len, EPOCH_SIZE_MAX);
        assert_int_equal(epoch_decode(slice_of(bytes, len), &back), 0);
        assert_memory_equal(&epoch, &back, sizeof back);
        for (size_t i = 0; i <= sizeof bytes; i++)
                if (i != len)
                        assert_int_equal(epoch_decode(slice_of(bytes, i), &back), -EBADMSG);
        for (size_t i = 0; i < len; i++) {
                bytes[i] ^= 0x10;
                assert_int_equal(epoch_decode(slice_of(bytes, len), &back), -EBADMSG);
                bytes[i] ^= 0x10;
        }
}

static size_t make_batch(unsigned char *batch)
{
        static const char name[] = "shop-cart/aa/aa01.sqlite";
        unsigned char payload[64];
        size_t len = BATCH_HEADER_SIZE;
        Record record = { .type = RECORD_NAME, .object = 7, .db_pages = sizeof name - 1, .lsn = 1 };

        memcpy(batch + len + RECORD_HEADER_SIZE, name, sizeof name - 1);
        record_encode(&record, sizeof name - 1, batch + len);
        len += record_size(sizeof name - 1);
        record = (Record){ .type = RECORD_TXN,
                .object = 7,
                .db_pages = 3,
                .n_pages = 2,
                .page_size = 4096,
                .lsn = 2 };
        page_encode(1, PAGE_DELTA, 3, payload);
        memcpy(payload + 8, "\0\1x", 3);
        page_encode(3, PAGE_ZERO, 0, payload + 11);
        memcpy(batch + len + RECORD_HEADER_SIZE, payload, 19);
        record_encode(&record, 19, batch + len);
        len += record_size(19);
        cancel_encode(2, batch + len + RECORD_HEADER_SIZE);
        record = (Record){ .type = RECORD_CANCEL, .object = 7, .lsn = 3 };
        record_encode(&record, 8, batch + len);
        len += record_size(8);
        batch_seal(&(BatchHeader){ .epoch = 5,
                           .batch = 1,
                           .segment = 2,
                           .low = 1,
                           .len = (uint32_t)len,
                           .n_records = 3,
                           .first_lsn = 1 },
                batch);
        return len;
}

static void a_batch_is_read_back_record_by_record(void **state)
{
        unsigned char batch[1024];
        size_t len = make_batch(batch);
        BatchHeader header;
        Record record;
        Page page;
        uint64_t lsn;
        Slice rest;

        assert_int_equal(batch_decode_header(slice_of(batch, len), &header), 0);
        assert_int_equal(header.segment, 2);
        assert_true(batch_check(&header, slice_of(batch, len)));
        rest = slice_of(batch + BATCH_HEADER_SIZE, len - BATCH_HEADER_SIZE);
        assert_int_equal(record_decode(&rest, &record), 0);
        assert_true(slice_equal(record.payload, SLICE("shop-cart/aa/aa01.sqlite")));
        assert_int_equal(record_decode(&rest, &record), 0);
        assert_int_equal(record.page_size, 4096);
        assert_int_equal(page_decode(&record.payload, 4096, &page), 0);
        assert_int_equal(page.number, 1);
        assert_int_equal(page.kind, PAGE_DELTA);
        assert_int_equal(page.bytes.len, 3);
        assert_int_equal(page_decode(&record.payload, 4096, &page), 0);
        assert_int_equal(page.number, 3);
        assert_int_equal(record_decode(&rest, &record), 0);
        assert_int_equal(cancel_decode(record.payload, &lsn), 0);
        assert_int_equal(lsn, 2);
        assert_int_equal(record_decode(&rest, &record), -ENODATA);
}

static void what_was_before_is_read_back(void **state)
{
        unsigned char bytes[4096], page[512];
        unsigned char *payload = bytes + RECORD_HEADER_SIZE;
        Record record = { .type = RECORD_DELETE,
                .object = 7,
                .n_pages = 2,
                .pages_before = 2,
                .page_size = 512,
                .lsn = 2 },
               back;
        Slice rest;
        Page found;
        size_t len;

        memset(page, 'x', sizeof page);
        page_encode(1, PAGE_BEFORE, sizeof page, payload);
        memcpy(payload + PAGE_HEADER_SIZE, page, sizeof page);
        len = PAGE_HEADER_SIZE + sizeof page;
        page_encode(2, PAGE_UNDO, 0, payload + len);
        len += PAGE_HEADER_SIZE;
        record_encode(&record, len, bytes);
        rest = slice_of(bytes, record_size(len));
        assert_int_equal(record_decode(&rest, &back), 0);
        assert_int_equal(back.type, RECORD_DELETE);
        assert_int_equal(back.page_size, 512);
        assert_int_equal(back.pages_before, 2);
        assert_int_equal(page_decode(&back.payload, 512, &found), 0);
        assert_int_equal(found.kind, PAGE_BEFORE);
        assert_memory_equal(found.bytes.data, page, sizeof page);
        assert_int_equal(page_decode(&back.payload, 512, &found), 0);
        assert_int_equal(found.kind, PAGE_UNDO);
        assert_int_equal(found.number, 2);
        /* A page as it was is a whole one. */
        page_encode(1, PAGE_BEFORE, sizeof page - 8, payload);
        rest = slice_of(bytes, record_size(len));
        assert_int_equal(record_decode(&rest, &back), 0);
        assert_int_equal(page_decode(&back.payload, 512, &found), -EBADMSG);
        /* Without a page size a DELETE tells nothing. */
        bytes[2] = 0;
        rest = slice_of(bytes, record_size(len));
        assert_int_equal(record_decode(&rest, &back), -EBADMSG);
}

static void a_batch_with_a_bit_changed_does_not_check(void **state)
{
        unsigned char batch[1024];
        size_t len = make_batch(batch);

        for (size_t i = 0; i < 8 * len; i++) {
                BatchHeader header;

                batch[i / 8] ^= (unsigned char)(1 << i % 8);
                if (batch_decode_header(slice_of(batch, len), &header) == 0 && header.len <= len)
                        assert_false(batch_check(&header, slice_of(batch, header.len)));
                batch[i / 8] ^= (unsigned char)(1 << i % 8);
        }
}

/* Decodes all that it can; memory that is exactly as long shows a read beyond. */
static void decode_anything(const unsigned char *data, size_t len)
{
        unsigned char *exact = malloc(len + (len == 0));
        Slice rest = slice_of(exact, len);
        BatchHeader header;
        EpochFile epoch;
        Record record;

        memcpy(exact, data, len);
        batch_decode_header(rest, &header);
        epoch_decode(rest, &epoch);
        while (record_decode(&rest, &record) == 0) {
                SpillRef spill;
                Page page;

                spill_decode(record.payload, &spill);
                while (page_decode(&record.payload, record.page_size ?: 512, &page) == 0)
                        ;
        }
        free(exact);
}

static void decoding_judges_any_bytes(void **state)
{
        unsigned char batch[1024], copy[1024];
        size_t len = make_batch(batch);

        srand(3);
        for (int trial = 0; trial < 50000; trial++) {
                size_t from = (size_t)rand() % 2 ? BATCH_HEADER_SIZE : 0;

                memcpy(copy, batch, len);
                for (int i = rand() % 6; i > 0; i--)
                        copy[(size_t)rand() % len] = (unsigned char)rand();
                decode_anything(copy + from, (len - from) - (size_t)rand() % 40);
        }
}

static void a_log_is_a_file_in_heap_and_beyond(void **state)
{
        _cleanup_(memory_disk_free_p) MemoryDisk *memory = memory_disk_new(1);
        unsigned char header[32] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 }, frame[24 + 512], back[536];
        unsigned char head[24] = { 0, 0, 0, 9, 0, 0, 0, 4 };
        uint32_t page, db_pages;
        size_t got;
        Wal wal;

        wal_init(&wal, memory_disk_get(memory), 8 * 536);
        wal.overflow_path = "/overflow";
        assert_int_equal(wal_write(&wal, frame, 24, 32), -EINVAL);
        assert_int_equal(wal_write(&wal, header, 32, 0), 0);
        for (uint32_t i = 0; i < 20; i++) {
                memset(frame, (int)i, sizeof frame);
                head[3] = (unsigned char)(i + 1);
                memcpy(frame, head, sizeof head);
                /* Whole, or in two pieces that do not end where a header does. */
                assert_int_equal(wal_write(&wal, frame, 100, 32 + (uint64_t)i * 536), 0);
                assert_int_equal(wal_write(&wal, frame + 100, 436, 132 + (uint64_t)i * 536), 0);
        }
        assert_int_equal(wal_size(&wal), 32 + 20 * 536);
        for (uint32_t i = 0; i < 20; i++) {
                assert_int_equal(wal_read_header(&wal, i + 1, &page, &db_pages), 0);
                assert_int_equal(page, i + 1);
                assert_int_equal(db_pages, 4);
                assert_int_equal(wal_read_page(&wal, i + 1, back), 0);
                assert_int_equal(back[511], i);
                assert_true(!wal_find_page(&wal, i + 1) == (i >= 8));
        }
        assert_int_equal(wal_read(&wal, back, 536, 32 + 19 * 536 + 100, &got), 0);
        assert_int_equal(got, 436);
        assert_int_equal(back[435], 19);
        assert_int_equal(back[436], 0);
        wal_reset(&wal);
        assert_int_equal(wal_size(&wal), 0);
        assert_int_equal(memory_disk_get_open(memory), 0);
}

static void a_page_map_holds_the_last_frame_of_each_page(void **state)
{
        PageMap map = {};

        assert_int_equal(page_map_find(&map, 5), 0);
        for (uint32_t i = 1; i <= 5000; i++) {
                assert_true(page_map_reserve(&map, 1));
                page_map_set(&map, i % 1000 + 1, i);
        }
        assert_int_equal(map.len, 1000);
        for (uint32_t i = 1; i <= 1000; i++)
                assert_int_equal(page_map_find(&map, i), i == 1 ? 5000 : 4000 + i - 1);
        page_map_clear(&map);
        assert_int_equal(page_map_find(&map, 5), 0);
        assert_true(page_map_reserve(&map, 100));
        page_map_set(&map, 5, 6);
        assert_int_equal(page_map_find(&map, 5), 6);
        free(map.entries);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_epoch_file_is_read_back),
                cmocka_unit_test(an_epoch_file_names_earlier_epochs),
                cmocka_unit_test(a_batch_is_read_back_record_by_record),
                cmocka_unit_test(what_was_before_is_read_back),
                cmocka_unit_test(a_batch_with_a_bit_changed_does_not_check),
                cmocka_unit_test(decoding_judges_any_bytes),
                cmocka_unit_test(a_log_is_a_file_in_heap_and_beyond),
                cmocka_unit_test(a_page_map_holds_the_last_frame_of_each_page),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
