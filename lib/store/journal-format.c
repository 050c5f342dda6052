/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/journal-format.h"

#include "lib/store/crc32c.h"

#include <errno.h>

#define BATCH_MAGIC UINT32_C(0x54424444)
#define PAGE_LEN_MASK UINT32_C(0x0fffffff)
#define PAGE_KIND_SHIFT 28
#define SHIFT_MIN 9
#define SHIFT_MAX 16

static const char epoch_magic[8] = "DDEPOCH2", tail_magic[8] = "DDTAIL01";

uint32_t get_be32(const void *data)
{
        const unsigned char *b = data;

        return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

uint32_t get_le32(const void *data)
{
        const unsigned char *b = data;

        return (uint32_t)b[3] << 24 | (uint32_t)b[2] << 16 | (uint32_t)b[1] << 8 | b[0];
}

uint64_t get_le64(const void *data)
{
        return (uint64_t)get_le32((const char *)data + 4) << 32 | get_le32(data);
}

void put_le32(void *data, uint32_t value)
{
        unsigned char *b = data;

        for (int i = 0; i < 4; i++)
                b[i] = (unsigned char)(value >> (8 * i));
}

void put_le64(void *data, uint64_t value)
{
        put_le32(data, (uint32_t)value);
        put_le32((char *)data + 4, (uint32_t)(value >> 32));
}

size_t epoch_encode(const EpochFile *epoch, unsigned char *out)
{
        unsigned char *at = out + EPOCH_SIZE;
        uint32_t crc;

        dd_assert(epoch->n_earlier <= EPOCH_EARLIER_MAX);
        memset(out, 0, EPOCH_SIZE + epoch->n_earlier * EPOCH_EARLIER_SIZE);
        memcpy(out, epoch_magic, sizeof epoch_magic);
        put_le64(out + 8, epoch->epoch);
        put_le64(out + 16, epoch->generation);
        put_le64(out + 24, epoch->first_lsn);
        put_le64(out + 32, epoch->first_segment);
        put_le64(out + 40, epoch->segment_size);
        put_le64(out + 48, epoch->time);
        put_le32(out + 56, (uint32_t)epoch->flags);
        put_le32(out + 60, (uint32_t)epoch->n_earlier);
        put_le64(out + 64, epoch->last_before);
        crc = crc32c(0, out, EPOCH_SIZE - 4);
        put_le32(out + EPOCH_SIZE - 4, crc);
        for (size_t i = 0; i < epoch->n_earlier; i++, at += EPOCH_EARLIER_SIZE) {
                const EarlierEpoch *earlier = &epoch->earlier[i];

                put_le64(at, earlier->epoch);
                put_le64(at + 8, earlier->first_lsn);
                put_le64(at + 16, earlier->last_before);
                put_le64(at + 24, earlier->first_segment);
                put_le64(at + 32, earlier->last_batch);
                put_le32(at + 40, (uint32_t)earlier->flags);
                crc = crc32c(crc, at, EPOCH_EARLIER_SIZE - 4);
                put_le32(at + EPOCH_EARLIER_SIZE - 4, crc);
        }
        return (size_t)(at - out);
}

static int decode_earlier(const unsigned char *at, uint32_t *crc, EarlierEpoch *ret)
{
        *crc = crc32c(*crc, at, EPOCH_EARLIER_SIZE - 4);
        if (get_le32(at + EPOCH_EARLIER_SIZE - 4) != *crc)
                return -EBADMSG;
        *ret = (EarlierEpoch){
                .epoch = get_le64(at),
                .first_lsn = get_le64(at + 8),
                .last_before = get_le64(at + 16),
                .first_segment = get_le64(at + 24),
                .last_batch = get_le64(at + 32),
                .flags = get_le32(at + 40),
        };
        return 0;
}

int epoch_decode(Slice bytes, EpochFile *ret)
{
        const unsigned char *at = (const unsigned char *)bytes.data;
        EpochFile epoch;
        uint32_t crc;

        if (bytes.len < EPOCH_SIZE || memcmp(at, epoch_magic, sizeof epoch_magic) != 0)
                return -EBADMSG;
        crc = crc32c(0, at, EPOCH_SIZE - 4);
        if (get_le32(at + EPOCH_SIZE - 4) != crc)
                return -EBADMSG;
        epoch = (EpochFile){
                .epoch = get_le64(at + 8),
                .generation = get_le64(at + 16),
                .first_lsn = get_le64(at + 24),
                .first_segment = get_le64(at + 32),
                .segment_size = get_le64(at + 40),
                .time = get_le64(at + 48),
                .flags = get_le32(at + 56),
                .n_earlier = get_le32(at + 60),
                .last_before = get_le64(at + 64),
        };
        if (epoch.n_earlier > EPOCH_EARLIER_MAX ||
                bytes.len != EPOCH_SIZE + epoch.n_earlier * EPOCH_EARLIER_SIZE)
                return -EBADMSG;
        at += EPOCH_SIZE;
        for (size_t i = 0; i < epoch.n_earlier; i++, at += EPOCH_EARLIER_SIZE)
                if (decode_earlier(at, &crc, &epoch.earlier[i]))
                        return -EBADMSG;
        *ret = epoch;
        return 0;
}

void tail_encode(uint32_t slot, uint64_t offset, unsigned char out[TAIL_HEADER_SIZE])
{
        memset(out, 0, TAIL_HEADER_SIZE);
        memcpy(out, tail_magic, sizeof tail_magic);
        put_le32(out + 8, slot);
        put_le64(out + 16, offset);
        put_le32(out + TAIL_HEADER_SIZE - 4, crc32c(0, out, TAIL_HEADER_SIZE - 4));
}

int tail_decode(Slice bytes, uint32_t *ret_slot, uint64_t *ret_offset)
{
        if (bytes.len < TAIL_HEADER_SIZE ||
                memcmp(bytes.data, tail_magic, sizeof tail_magic) != 0 ||
                get_le32(bytes.data + TAIL_HEADER_SIZE - 4) !=
                        crc32c(0, bytes.data, TAIL_HEADER_SIZE - 4))
                return -EBADMSG;
        *ret_slot = get_le32(bytes.data + 8);
        *ret_offset = get_le64(bytes.data + 16);
        return 0;
}

void batch_seal(const BatchHeader *header, unsigned char *batch)
{
        put_le32(batch, BATCH_MAGIC);
        put_le64(batch + 8, header->epoch);
        put_le64(batch + 16, header->batch);
        put_le64(batch + 24, header->segment);
        put_le64(batch + 32, header->low);
        put_le32(batch + 40, header->len);
        put_le32(batch + 44, header->n_records);
        put_le64(batch + 48, header->first_lsn);
        put_le64(batch + 56, header->time);
        put_le32(batch + 4, crc32c(0, batch + 8, header->len - 8));
}

int batch_decode_header(Slice bytes, BatchHeader *ret)
{
        BatchHeader header;

        if (bytes.len < BATCH_HEADER_SIZE || get_le32(bytes.data) != BATCH_MAGIC)
                return -EBADMSG;
        header = (BatchHeader){
                .crc = get_le32(bytes.data + 4),
                .epoch = get_le64(bytes.data + 8),
                .batch = get_le64(bytes.data + 16),
                .segment = get_le64(bytes.data + 24),
                .low = get_le64(bytes.data + 32),
                .len = get_le32(bytes.data + 40),
                .n_records = get_le32(bytes.data + 44),
                .first_lsn = get_le64(bytes.data + 48),
                .time = get_le64(bytes.data + 56),
        };
        if (header.len < BATCH_HEADER_SIZE || header.len > JOURNAL_BATCH_MAX ||
                header.len % RECORD_ALIGN || header.low > header.segment)
                return -EBADMSG;
        *ret = header;
        return 0;
}

bool batch_check(const BatchHeader *header, Slice bytes)
{
        return bytes.len == header->len && crc32c(0, bytes.data + 8, bytes.len - 8) == header->crc;
}

static unsigned shift_of(uint32_t page_size)
{
        return page_size ? (unsigned)__builtin_ctz(page_size) : 0;
}

void record_encode(const Record *record, size_t payload, unsigned char *out)
{
        size_t size = record_size(payload), used = RECORD_HEADER_SIZE + payload;

        memset(out, 0, RECORD_HEADER_SIZE);
        out[0] = (unsigned char)record->type;
        out[1] = (unsigned char)record->flags;
        out[2] = (unsigned char)shift_of(record->page_size);
        put_le32(out + 4, (uint32_t)size);
        put_le64(out + 8, record->lsn);
        put_le32(out + 16, record->object);
        put_le32(out + 20, record->db_pages);
        put_le32(out + 24, record->n_pages);
        put_le32(out + 28, record->pages_before);
        memset(out + used, 0, size - used);
}

void record_set_lsn(unsigned char *record, uint64_t lsn)
{
        put_le64(record + 8, lsn);
}

static int check_txn(Record *record, unsigned shift)
{
        if (shift < SHIFT_MIN || shift > SHIFT_MAX || record->db_pages == 0 ||
                record->flags & ~(unsigned)(RECORD_SPILL | RECORD_COPY))
                return -EBADMSG;
        record->page_size = UINT32_C(1) << shift;
        return record->flags & RECORD_SPILL && record->payload.len != SPILL_REF_SIZE ? -EBADMSG : 0;
}

static int check_delete(Record *record, unsigned shift)
{
        size_t len = record->payload.len;

        if (!shift)
                return record->flags || len || record->n_pages || record->pages_before ? -EBADMSG
                                                                                       : 0;
        if (shift < SHIFT_MIN || shift > SHIFT_MAX || record->flags & ~(unsigned)RECORD_SPILL)
                return -EBADMSG;
        record->page_size = UINT32_C(1) << shift;
        if (record->flags & RECORD_SPILL)
                return len != SPILL_REF_SIZE || record->n_pages ? -EBADMSG : 0;
        return 0;
}

/* Whether type, flags, page size and length belong together; cuts a name to its length. */
static int check_record(Record *record, unsigned shift)
{
        size_t len = record->payload.len;

        if (record->type == RECORD_TXN)
                return check_txn(record, shift);
        if (record->type == RECORD_DELETE)
                return check_delete(record, shift);
        if (record->flags || shift || record->n_pages || record->pages_before)
                return -EBADMSG;
        switch (record->type) {
        case RECORD_NAME:
                if (record->db_pages == 0 || record->db_pages > len ||
                        record->db_pages > JOURNAL_NAME_MAX)
                        return -EBADMSG;
                record->payload.len = record->db_pages;
                return memchr(record->payload.data, 0, record->payload.len) ? -EBADMSG : 0;
        case RECORD_CREATE:
                return len ? -EBADMSG : 0;
        case RECORD_CANCEL:
                return len == 8 ? 0 : -EBADMSG;
        default:
                return -EBADMSG;
        }
}

int record_decode(Slice *rest, Record *ret)
{
        const unsigned char *head = (const unsigned char *)rest->data;
        Record record;
        uint32_t len;
        int r;

        if (rest->len == 0)
                return -ENODATA;
        if (rest->len < RECORD_HEADER_SIZE)
                return -EBADMSG;
        len = get_le32(head + 4);
        if (len < RECORD_HEADER_SIZE || len % RECORD_ALIGN || len > rest->len)
                return -EBADMSG;
        record = (Record){
                .type = head[0],
                .flags = head[1],
                .lsn = get_le64(head + 8),
                .object = get_le32(head + 16),
                .db_pages = get_le32(head + 20),
                .n_pages = get_le32(head + 24),
                .pages_before = get_le32(head + 28),
                .payload = slice_of(rest->data + RECORD_HEADER_SIZE, len - RECORD_HEADER_SIZE),
        };
        r = check_record(&record, head[2]);
        if (r)
                return r;
        *rest = slice_skip(*rest, len);
        *ret = record;
        return 0;
}

void page_encode(uint32_t number, PageKind kind, size_t len, unsigned char *out)
{
        put_le32(out, number);
        put_le32(out + 4, (uint32_t)kind << PAGE_KIND_SHIFT | (uint32_t)len);
}

int page_decode(Slice *rest, uint32_t page_size, Page *ret)
{
        Page page;
        uint32_t len;

        if (rest->len < PAGE_HEADER_SIZE)
                return -EBADMSG;
        page.number = get_le32(rest->data);
        len = get_le32(rest->data + 4) & PAGE_LEN_MASK;
        page.kind = get_le32(rest->data + 4) >> PAGE_KIND_SHIFT;
        if (page.number == 0 || page.kind > PAGE_BEFORE || len > page_size ||
                len > rest->len - PAGE_HEADER_SIZE ||
                ((page.kind == PAGE_RAW || page.kind == PAGE_BEFORE) && len != page_size))
                return -EBADMSG;
        page.bytes = slice_of(rest->data + PAGE_HEADER_SIZE, len);
        *rest = slice_skip(*rest, PAGE_HEADER_SIZE + len);
        *ret = page;
        return 0;
}

void spill_encode(const SpillRef *spill, unsigned char out[SPILL_REF_SIZE])
{
        put_le64(out, spill->file);
        put_le64(out + 8, spill->size);
        put_le32(out + 16, spill->crc);
        put_le32(out + 20, 0);
}

int spill_decode(Slice bytes, SpillRef *ret)
{
        if (bytes.len != SPILL_REF_SIZE)
                return -EBADMSG;
        *ret = (SpillRef){
                .file = get_le64(bytes.data),
                .size = get_le64(bytes.data + 8),
                .crc = get_le32(bytes.data + 16),
        };
        return 0;
}

void cancel_encode(uint64_t lsn, unsigned char out[8])
{
        put_le64(out, lsn);
}

int cancel_decode(Slice bytes, uint64_t *ret)
{
        if (bytes.len != 8)
                return -EBADMSG;
        *ret = get_le64(bytes.data);
        return 0;
}
