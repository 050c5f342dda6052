/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive-format.h"

#include "lib/base/map.h"
#include "lib/store/crc32c.h"

#include <errno.h>
#include <stdio.h>

#include <zstd.h>

#define VERSION 1u
#define AT_CRC (ARCHIVE_HEADER_SIZE - 4)

static const char magic[8] = "DDARCHIV";

void archive_name_key(Slice name, unsigned char ret[ARCHIVE_KEY_SIZE])
{
        static const uint64_t keys[2][2] = {
                { UINT64_C(0x6172636869766500), UINT64_C(0x6f626a6563747300) },
                { UINT64_C(0x6172636869766501), UINT64_C(0x6f626a6563747301) },
        };

        for (size_t i = 0; i < 2; i++)
                put_le64(ret + 8 * i, siphash24(keys[i], name));
}

void archive_header_encode(const ArchiveHeader *header, unsigned char out[ARCHIVE_HEADER_SIZE])
{
        memset(out, 0, ARCHIVE_HEADER_SIZE);
        memcpy(out, magic, sizeof magic);
        put_le32(out + 8, VERSION);
        put_le64(out + 16, header->first_lsn);
        put_le64(out + 24, header->last_lsn);
        put_le64(out + 32, header->follows);
        put_le64(out + 40, header->epoch);
        put_le64(out + 48, header->segment);
        put_le64(out + 56, header->first_time);
        put_le64(out + 64, header->last_time);
        put_le64(out + 72, header->index_offset);
        put_le64(out + 80, header->names_offset);
        put_le64(out + 88, header->samples_offset);
        put_le64(out + 96, header->size);
        put_le32(out + 104, header->n_objects);
        put_le32(out + 108, header->n_samples);
        put_le32(out + 112, header->names_crc);
        put_le32(out + 116, header->samples_crc);
        put_le32(out + AT_CRC, crc32c(0, out, AT_CRC));
}

static bool parts_fit(const ArchiveHeader *header)
{
        uint64_t blocks = archive_n_blocks(header), samples = header->n_samples;

        return header->follows < header->first_lsn && header->first_lsn <= header->last_lsn &&
               header->size <= INT64_MAX && header->index_offset >= ARCHIVE_HEADER_SIZE &&
               header->index_offset <= header->names_offset &&
               header->names_offset <= header->samples_offset &&
               header->samples_offset <= header->size &&
               header->names_offset - header->index_offset == blocks * ARCHIVE_BLOCK_SIZE &&
               header->size - header->samples_offset == samples * ARCHIVE_SAMPLE_SIZE;
}

int archive_header_decode(Slice bytes, ArchiveHeader *ret)
{
        const char *in = bytes.data;
        ArchiveHeader header;

        if (bytes.len != ARCHIVE_HEADER_SIZE || memcmp(in, magic, sizeof magic) != 0 ||
                get_le32(in + 8) != VERSION || get_le32(in + AT_CRC) != crc32c(0, in, AT_CRC))
                return -EBADMSG;
        header = (ArchiveHeader){
                .first_lsn = get_le64(in + 16),
                .last_lsn = get_le64(in + 24),
                .follows = get_le64(in + 32),
                .epoch = get_le64(in + 40),
                .segment = get_le64(in + 48),
                .first_time = get_le64(in + 56),
                .last_time = get_le64(in + 64),
                .index_offset = get_le64(in + 72),
                .names_offset = get_le64(in + 80),
                .samples_offset = get_le64(in + 88),
                .size = get_le64(in + 96),
                .n_objects = get_le32(in + 104),
                .n_samples = get_le32(in + 108),
                .names_crc = get_le32(in + 112),
                .samples_crc = get_le32(in + 116),
        };
        if (!parts_fit(&header))
                return -EBADMSG;
        *ret = header;
        return 0;
}

static void encode_entry(const ArchiveEntry *entry, unsigned char *out)
{
        memcpy(out, entry->key, ARCHIVE_KEY_SIZE);
        put_le64(out + 16, entry->first_lsn);
        put_le64(out + 24, entry->last_lsn);
        put_le64(out + 32, entry->offset);
        put_le64(out + 40, entry->stored_len);
        put_le64(out + 48, entry->records_len);
        put_le32(out + 56, entry->n_chunks);
        put_le32(out + 60, entry->table_crc);
        put_le32(out + 64, entry->name_offset);
        put_le32(out + 68, entry->name_len);
        put_le32(out + 72, entry->n_commits);
}

void archive_block_encode(
        const ArchiveEntry *entries, uint32_t n, unsigned char out[ARCHIVE_BLOCK_SIZE])
{
        dd_assert(n > 0 && n <= ARCHIVE_BLOCK_ENTRIES);
        memset(out, 0, ARCHIVE_BLOCK_SIZE);
        put_le32(out + 4, n);
        for (uint32_t i = 0; i < n; i++)
                encode_entry(&entries[i],
                        out + ARCHIVE_BLOCK_HEADER_SIZE + (size_t)i * ARCHIVE_ENTRY_SIZE);
        put_le32(out, crc32c(0, out + 4, ARCHIVE_BLOCK_SIZE - 4));
}

static bool entry_fits(const ArchiveEntry *entry, const ArchiveHeader *header)
{
        uint64_t table = (uint64_t)entry->n_chunks * ARCHIVE_CHUNK_ENTRY_SIZE;
        uint64_t names = header->samples_offset - header->names_offset;

        return entry->first_lsn >= header->first_lsn && entry->first_lsn <= entry->last_lsn &&
               entry->last_lsn <= header->last_lsn && entry->offset >= ARCHIVE_HEADER_SIZE &&
               entry->offset <= header->index_offset &&
               entry->stored_len <= header->index_offset - entry->offset &&
               table <= header->index_offset - entry->offset - entry->stored_len &&
               entry->records_len <= UINT32_MAX && entry->name_len > 0 &&
               entry->name_len <= JOURNAL_NAME_MAX && entry->name_offset <= names &&
               entry->name_len <= names - entry->name_offset;
}

int archive_block_decode(Slice bytes, const ArchiveHeader *header,
        ArchiveEntry ret[ARCHIVE_BLOCK_ENTRIES], uint32_t *ret_n)
{
        uint32_t n;

        if (bytes.len != ARCHIVE_BLOCK_SIZE ||
                get_le32(bytes.data) != crc32c(0, bytes.data + 4, ARCHIVE_BLOCK_SIZE - 4))
                return -EBADMSG;
        n = get_le32(bytes.data + 4);
        if (n == 0 || n > ARCHIVE_BLOCK_ENTRIES)
                return -EBADMSG;
        for (uint32_t i = 0; i < n; i++) {
                const char *in =
                        bytes.data + ARCHIVE_BLOCK_HEADER_SIZE + (size_t)i * ARCHIVE_ENTRY_SIZE;
                ArchiveEntry entry = {
                        .first_lsn = get_le64(in + 16),
                        .last_lsn = get_le64(in + 24),
                        .offset = get_le64(in + 32),
                        .stored_len = get_le64(in + 40),
                        .records_len = get_le64(in + 48),
                        .n_chunks = get_le32(in + 56),
                        .table_crc = get_le32(in + 60),
                        .name_offset = get_le32(in + 64),
                        .name_len = get_le32(in + 68),
                        .n_commits = get_le32(in + 72),
                };

                memcpy(entry.key, in, ARCHIVE_KEY_SIZE);
                if (!entry_fits(&entry, header))
                        return -EBADMSG;
                ret[i] = entry;
        }
        *ret_n = n;
        return 0;
}

void archive_chunk_encode(const ArchiveChunk *chunk, unsigned char out[ARCHIVE_CHUNK_ENTRY_SIZE])
{
        put_le32(out, chunk->kind);
        put_le32(out + 4, chunk->len);
        put_le32(out + 8, chunk->stored_len);
        put_le32(out + 12, chunk->crc);
        put_le64(out + 16, chunk->lsn);
}

int archive_table_decode(Slice bytes, const ArchiveEntry *entry, ArchiveChunk *ret)
{
        uint64_t stored = 0, records = 0;

        if (bytes.len != (uint64_t)entry->n_chunks * ARCHIVE_CHUNK_ENTRY_SIZE ||
                crc32c(0, bytes.data, bytes.len) != entry->table_crc)
                return -EBADMSG;
        for (uint32_t i = 0; i < entry->n_chunks; i++) {
                const char *in = bytes.data + (size_t)i * ARCHIVE_CHUNK_ENTRY_SIZE;
                ArchiveChunk chunk = {
                        .kind = get_le32(in),
                        .len = get_le32(in + 4),
                        .stored_len = get_le32(in + 8),
                        .crc = get_le32(in + 12),
                        .lsn = get_le64(in + 16),
                };

                if (chunk.kind > CHUNK_PAST || chunk.len == 0 || chunk.len > ARCHIVE_CHUNK_MAX ||
                        chunk.stored_len > ZSTD_COMPRESSBOUND(ARCHIVE_CHUNK_MAX))
                        return -EBADMSG;
                stored += chunk.stored_len;
                records += chunk.kind == CHUNK_RECORDS ? chunk.len : 0;
                ret[i] = chunk;
        }
        return stored == entry->stored_len && records == entry->records_len ? 0 : -EBADMSG;
}

int archive_chunk_unpack(const ArchiveChunk *chunk, Slice stored, unsigned char *out)
{
        if (stored.len != chunk->stored_len || crc32c(0, stored.data, stored.len) != chunk->crc)
                return -EBADMSG;
        /* An error's code is beyond any length. */
        return ZSTD_decompress(out, chunk->len, stored.data, stored.len) == chunk->len ? 0
                                                                                       : -EBADMSG;
}

void archive_sample_encode(const ArchiveSample *sample, unsigned char out[ARCHIVE_SAMPLE_SIZE])
{
        put_le64(out, sample->time);
        put_le64(out + 8, sample->lsn);
}

ArchiveSample archive_sample_decode(const unsigned char bytes[ARCHIVE_SAMPLE_SIZE])
{
        return (ArchiveSample){ .time = get_le64(bytes), .lsn = get_le64(bytes + 8) };
}

void archive_name_encode(uint64_t first_lsn, char out[ARCHIVE_NAME_LEN + 1])
{
        snprintf(
                out, ARCHIVE_NAME_LEN + 1, "%016llx" ARCHIVE_SUFFIX, (unsigned long long)first_lsn);
}

bool archive_name_decode(const char *name, uint64_t *ret)
{
        uint64_t lsn = 0;

        if (strlen(name) != ARCHIVE_NAME_LEN || strcmp(name + 16, ARCHIVE_SUFFIX) != 0)
                return false;
        for (size_t i = 0; i < 16; i++) {
                const char *digits = "0123456789abcdef", *at = strchr(digits, name[i]);

                if (!at)
                        return false;
                lsn = lsn << 4 | (uint64_t)(at - digits);
        }
        *ret = lsn;
        return true;
}
