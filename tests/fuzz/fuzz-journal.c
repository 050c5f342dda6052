/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal's bytes: whatever a disk gives back is judged without a read or write beyond it
 *
 * Input: any bytes, taken as an epoch file, as a batch's header, and as a row of records whose
 * pages are applied to an empty page. What decodes is what the writers could have written: it lies
 * inside the input, and encodes to a header that decodes to the same.
 */

#include "lib/store/delta.h"
#include "lib/store/journal-format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_pages(const Record *record)
{
        unsigned char *page = malloc(record->page_size);
        Slice rest = record->payload;
        Page found;

        if (!page)
                return;
        for (uint32_t i = 0; i < record->n_pages; i++) {
                if (page_decode(&rest, record->page_size, &found))
                        break;
                dd_assert(found.number > 0 && found.bytes.len <= record->page_size);
                if (found.kind == PAGE_RAW || found.kind == PAGE_BEFORE) {
                        dd_assert(found.bytes.len == record->page_size);
                        continue;
                }
                memset(page, 0, record->page_size);
                delta_apply(found.bytes.data, found.bytes.len, page, record->page_size);
        }
        free(page);
}

static void take_record(const Record *record)
{
        unsigned char head[RECORD_HEADER_SIZE + RECORD_ALIGN];
        SpillRef spill;
        uint64_t lsn;

        switch (record->type) {
        case RECORD_TXN:
        case RECORD_DELETE:
                if (record->type == RECORD_DELETE && !record->page_size)
                        dd_assert(record->payload.len == 0 && !record->n_pages);
                else if (record->flags & RECORD_SPILL)
                        dd_assert(spill_decode(record->payload, &spill) == 0);
                else
                        take_pages(record);
                break;
        case RECORD_CANCEL:
                dd_assert(cancel_decode(record->payload, &lsn) == 0);
                break;
        case RECORD_NAME:
                dd_assert(record->payload.len > 0 && record->payload.len <= JOURNAL_NAME_MAX);
                break;
        case RECORD_CREATE: {
                Slice again = slice_of(head, RECORD_HEADER_SIZE);
                Record same;

                record_encode(record, 0, head);
                dd_assert(record_decode(&again, &same) == 0);
                dd_assert(same.type == record->type && same.lsn == record->lsn);
                break;
        }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Slice rest = slice_of(data, size);
        BatchHeader header;
        EpochFile epoch;
        Record record;

        epoch_decode(rest, &epoch);
        if (batch_decode_header(rest, &header) == 0) {
                dd_assert(header.len >= BATCH_HEADER_SIZE && header.len <= JOURNAL_BATCH_MAX);
                if (header.len <= size)
                        batch_check(&header, slice_head(rest, header.len));
                rest = slice_skip(rest, BATCH_HEADER_SIZE);
        }
        while (record_decode(&rest, &record) == 0)
                take_record(&record);
        return 0;
}
