/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive.h"

#include "lib/base/buf.h"
#include "lib/store/crc32c.h"

#include <errno.h>

#include <zstd.h>

#define LEVEL 1
/* About what a step reads. */
#define STEP_BYTES (2u << 20)
#define STEP_OBJECTS 64u
#define OUT_ROOM (512u << 10)
/* Journal writes are not to queue behind all of a file. */
#define SYNC_BYTES (4u << 20)
#define NO_PIECE SIZE_MAX

/* Records of one object, one behind the other in the segment. */
typedef struct Piece {
        uint64_t offset;
        uint32_t len;
        size_t next;
} Piece;

typedef struct SpillPart {
        struct SpillPart *next;
        SpillRef ref;
        uint32_t page_size, n_pages;
        uint64_t lsn;
} SpillPart;

typedef struct Object {
        MapNode map;
        Slice name;
        ArchiveEntry entry;
        size_t first_piece, last_piece;
        uint64_t last_txn;
        SpillPart *spills, *last_spill;
} Object;

/* Which object a number of the journal means. */
typedef struct Number {
        MapNode map;
        uint32_t number;
        Object *object;
} Number;

typedef enum Stage {
        STAGE_LIST,
        STAGE_DATA,
        STAGE_INDEX,
        STAGE_DONE,
} Stage;

struct ArchiveWriter {
        ArchiveSource source;
        Stage stage;
        char *path, *new_path;
        DiskFile *file;
        ArchiveHeader header;
        unsigned char *batch;
        size_t batch_room;
        uint64_t offset; /* LIST: of the next batch; then: in the file */
        Map names, numbers;
        Object **objects; /* by key from DATA on */
        size_t n_objects, objects_room;
        Piece *pieces;
        size_t n_pieces, pieces_room;
        ArchiveSample *samples;
        size_t samples_room;
        /* DATA: the object at hand. */
        size_t at_object, at_piece;
        uint32_t at_byte;
        const SpillPart *at_spill;
        DiskFile *spill; /* its file, of which spill_done bytes were read */
        uint64_t spill_done;
        uint32_t spill_crc;
        ArchiveChunk *chunks;
        size_t chunks_room;
        unsigned char *raw, *packed, *out;
        size_t raw_len, out_len;
        uint64_t taken;  /* bytes read for the file */
        uint64_t synced; /* up to this offset */
        ZSTD_CCtx *zstd;
        bool is_unreadable;
};

/* Room for one more in a row that grows. */
static int grow(void **row, size_t *room, size_t n, size_t size)
{
        size_t more = MAX(2 * *room, (size_t)64);
        void *grown;

        if (n < *room)
                return 0;
        grown = realloc(*row, more * size);
        if (!grown)
                return -ENOMEM;
        *row = grown;
        *room = more;
        return 0;
}

#define GROW(_row, _room, _n) grow((void **)&(_row), &(_room), (_n), sizeof *(_row))

static int _printf_(2, 3) bad(ArchiveWriter *writer, const char *format, ...)
{
        char what[256];
        va_list args;

        va_start(args, format);
        vsnprintf(what, sizeof what, format, args);
        va_end(args);
        store_log(writer->source.store, LOG_ERR,
                "segment %llu of the journal %s cannot be archived: %s; objects cannot be restored "
                "to moments before it",
                (unsigned long long)writer->source.number, writer->source.store->journal_path,
                what);
        return -EBADMSG;
}

int archive_writer_new(const ArchiveSource *source, ArchiveWriter **ret)
{
        _cleanup_(archive_writer_free_p) ArchiveWriter *writer = calloc(1, sizeof *writer);

        if (!writer)
                return -ENOMEM;
        map_init(&writer->names);
        map_init(&writer->numbers);
        writer->source = *source;
        writer->zstd = ZSTD_createCCtx();
        writer->raw = malloc(ARCHIVE_CHUNK_MAX);
        writer->packed = malloc(ZSTD_COMPRESSBOUND(ARCHIVE_CHUNK_MAX));
        writer->out = malloc(OUT_ROOM);
        if (!writer->zstd || !writer->raw || !writer->packed || !writer->out)
                return -ENOMEM;
        *ret = TAKE_PTR(writer);
        return 0;
}

static void free_number(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, Number, map));
}

static void free_object(Object *object)
{
        while (object->spills) {
                SpillPart *next = object->spills->next;

                free(object->spills);
                object->spills = next;
        }
        free((char *)(uintptr_t)object->name.data);
        free(object);
}

ArchiveWriter *archive_writer_free(ArchiveWriter *writer)
{
        if (!writer)
                return NULL;
        disk_close(writer->spill);
        disk_close(writer->file);
        if (writer->file && writer->stage != STAGE_DONE)
                disk_unlink(writer->source.store->disk, writer->new_path);
        map_for_each(&writer->numbers, free_number, NULL);
        map_done(&writer->numbers);
        map_done(&writer->names);
        for (size_t i = 0; i < writer->n_objects; i++)
                free_object(writer->objects[i]);
        free(writer->objects);
        free(writer->pieces);
        free(writer->samples);
        free(writer->chunks);
        free(writer->batch);
        free(writer->raw);
        free(writer->packed);
        free(writer->out);
        free(writer->path);
        free(writer->new_path);
        ZSTD_freeCCtx(writer->zstd);
        free(writer);
        return NULL;
}

const ArchiveHeader *archive_writer_get_header(const ArchiveWriter *writer)
{
        return &writer->header;
}

/* LIST */

static int get_object(ArchiveWriter *writer, Slice name, Object **ret)
{
        MapNode *map = map_find(&writer->names, name);
        Object *object;
        int r;

        if (map) {
                *ret = CONTAINER_OF(map, Object, map);
                return 0;
        }
        r = GROW(writer->objects, writer->objects_room, writer->n_objects);
        if (r)
                return r;
        object = calloc(1, sizeof *object);
        if (!object)
                return -ENOMEM;
        object->first_piece = object->last_piece = NO_PIECE;
        object->name = slice_of(slice_dup(name), name.len);
        r = object->name.data ? map_insert(&writer->names, &object->map, object->name) : -ENOMEM;
        if (r) {
                free_object(object);
                return r;
        }
        archive_name_key(name, object->entry.key);
        object->entry.name_len = (uint32_t)name.len;
        writer->objects[writer->n_objects++] = object;
        *ret = object;
        return 0;
}

static Number *find_number(ArchiveWriter *writer, uint32_t number)
{
        MapNode *map = map_find(&writer->numbers, slice_of(&number, sizeof number));

        return map ? CONTAINER_OF(map, Number, map) : NULL;
}

static int learn_name(ArchiveWriter *writer, const Record *record)
{
        Number *number = find_number(writer, record->object);
        Object *object;
        int r = get_object(writer, record->payload, &object);

        if (r)
                return r;
        if (!number) {
                number = calloc(1, sizeof *number);
                if (!number)
                        return -ENOMEM;
                number->number = record->object;
                r = map_insert(&writer->numbers, &number->map,
                        slice_of(&number->number, sizeof number->number));
                if (r) {
                        free(number);
                        return r;
                }
        }
        number->object = object;
        return 0;
}

static int add_piece(ArchiveWriter *writer, Object *object, uint64_t offset, uint32_t len)
{
        Piece *last = object->last_piece == NO_PIECE ? NULL : &writer->pieces[object->last_piece];
        int r;

        object->entry.records_len += len;
        if (last && last->offset + last->len == offset && len <= UINT32_MAX - last->len) {
                last->len += len;
                return 0;
        }
        r = GROW(writer->pieces, writer->pieces_room, writer->n_pieces);
        if (r)
                return r;
        writer->pieces[writer->n_pieces] = (Piece){ offset, len, NO_PIECE };
        if (object->last_piece == NO_PIECE)
                object->first_piece = writer->n_pieces;
        else
                writer->pieces[object->last_piece].next = writer->n_pieces;
        object->last_piece = writer->n_pieces++;
        return 0;
}

static int add_spill(Object *object, const Record *record)
{
        SpillPart *spill = calloc(1, sizeof *spill);

        if (!spill)
                return -ENOMEM;
        *spill = (SpillPart){
                .page_size = record->page_size, .n_pages = record->n_pages, .lsn = record->lsn
        };
        spill_decode(record->payload, &spill->ref);
        if (object->last_spill)
                object->last_spill->next = spill;
        else
                object->spills = spill;
        object->last_spill = spill;
        return 0;
}

/* A record that lies at offset in the segment. */
static int list_record(ArchiveWriter *writer, const Record *record, uint64_t offset, uint32_t len)
{
        const Number *number;
        Object *object;
        uint64_t from;
        int r;

        if (record->type == RECORD_NAME)
                return learn_name(writer, record);
        if (record->flags & RECORD_COPY)
                return 0;
        number = find_number(writer, record->object);
        if (!number)
                return bad(writer, "object %u has no name", record->object);
        object = number->object;
        r = add_piece(writer, object, offset, len);
        if (!r && record->flags & RECORD_SPILL)
                r = add_spill(object, record);
        if (r)
                return r;
        if (!object->entry.first_lsn)
                object->entry.first_lsn = record->lsn;
        object->entry.last_lsn = record->lsn;
        if (record->type == RECORD_TXN) {
                object->entry.n_commits++;
                object->last_txn = record->lsn;
        } else if (record->type == RECORD_CANCEL && cancel_decode(record->payload, &from) == 0 &&
                   object->last_txn && object->last_txn >= from) {
                object->entry.n_commits--;
                object->last_txn = 0;
        }
        return 0;
}

/* One for each 10 ms. */
static int add_sample(ArchiveWriter *writer, uint64_t time, uint64_t lsn)
{
        ArchiveHeader *header = &writer->header;
        uint32_t n = header->n_samples;

        if (!n || writer->samples[n - 1].time / ARCHIVE_SAMPLE_NS != time / ARCHIVE_SAMPLE_NS) {
                int r = GROW(writer->samples, writer->samples_room, n);

                if (r)
                        return r;
                header->n_samples++;
        }
        writer->samples[header->n_samples - 1] = (ArchiveSample){ time, lsn };
        return 0;
}

static int list_batch(ArchiveWriter *writer, const BatchHeader *head)
{
        ArchiveHeader *header = &writer->header;
        Slice rest = slice_of(writer->batch + BATCH_HEADER_SIZE, head->len - BATCH_HEADER_SIZE);
        uint64_t last = header->last_lsn;
        Record record;
        int r;

        for (;;) {
                uint64_t offset = writer->offset + head->len - rest.len;
                size_t before = rest.len;

                r = record_decode(&rest, &record);
                if (r == -ENODATA)
                        break;
                if (r || (last && record.lsn != last + 1))
                        return bad(writer, "a record of batch %llu does not decode",
                                (unsigned long long)head->batch);
                if (record.lsn >= writer->source.limit_lsn)
                        break;
                r = list_record(writer, &record, offset, (uint32_t)(before - rest.len));
                if (r)
                        return r;
                last = record.lsn;
                if (!header->first_lsn) {
                        header->first_lsn = last;
                        header->first_time = head->time;
                }
        }
        if (last == header->last_lsn)
                return 0;
        header->last_lsn = last;
        header->last_time = head->time;
        return add_sample(writer, head->time, last);
}

/* Of the segment, or a file that it names. */
static int read_source(ArchiveWriter *writer, DiskFile *file, void *data, size_t len,
        uint64_t offset, size_t *ret_len)
{
        int r = disk_read(file, data, len, offset, ret_len);

        writer->is_unreadable |= r && r != -ENOMEM;
        return r;
}

/* 1 when there is a batch, now in writer->batch; 0 at the end. */
static int read_batch(ArchiveWriter *writer, BatchHeader *ret)
{
        const ArchiveSource *source = &writer->source;
        unsigned char head[BATCH_HEADER_SIZE];
        size_t got;
        int r = read_source(writer, source->segment, head, sizeof head, writer->offset, &got);

        if (r)
                return r;
        if (writer->offset >= source->end || batch_decode_header(slice_of(head, got), ret) ||
                ret->epoch != source->epoch || ret->segment != source->number)
                return 0;
        if (ret->len > writer->batch_room) {
                unsigned char *batch = realloc(writer->batch, ret->len);

                if (!batch)
                        return -ENOMEM;
                writer->batch = batch;
                writer->batch_room = ret->len;
        }
        r = read_source(writer, source->segment, writer->batch, ret->len, writer->offset, &got);
        if (r)
                return r;
        return batch_check(ret, slice_of(writer->batch, got));
}

static int compare_objects(const void *a, const void *b)
{
        const Object *x = *(Object *const *)a, *y = *(Object *const *)b;

        return memcmp(x->entry.key, y->entry.key, ARCHIVE_KEY_SIZE);
}

/* An object that has but a name here, or pages copied forward, has nothing in the archive. */
static void drop_empty(ArchiveWriter *writer)
{
        size_t kept = 0;

        for (size_t i = 0; i < writer->n_objects; i++) {
                Object *object = writer->objects[i];

                if (object->entry.first_lsn)
                        writer->objects[kept++] = object;
                else
                        free_object(object);
        }
        writer->n_objects = kept;
        if (kept)
                qsort(writer->objects, kept, sizeof(Object *), compare_objects);
}

static int open_file(ArchiveWriter *writer)
{
        Store *store = writer->source.store;
        char name[ARCHIVE_NAME_LEN + 1];
        int r;

        archive_name_encode(writer->header.first_lsn, name);
        writer->path = path_join(store->archive_path, name);
        if (!writer->path || asprintf(&writer->new_path, "%s.new", writer->path) < 0) {
                writer->new_path = NULL;
                return -ENOMEM;
        }
        r = disk_open(store->disk, writer->new_path, DISK_CREATE, &writer->file);
        return r ?: disk_truncate(writer->file, 0);
}

static void begin_object(ArchiveWriter *writer)
{
        const Object *object =
                writer->at_object < writer->n_objects ? writer->objects[writer->at_object] : NULL;

        writer->at_piece = object ? object->first_piece : NO_PIECE;
        writer->at_spill = object ? object->spills : NULL;
}

static int end_list(ArchiveWriter *writer)
{
        const ArchiveSource *source = &writer->source;
        ArchiveHeader *header = &writer->header;

        if (source->last_lsn && header->last_lsn != source->last_lsn)
                return bad(writer, "its records end with LSN %llu instead of %llu",
                        (unsigned long long)header->last_lsn, (unsigned long long)source->last_lsn);
        if (!header->first_lsn) {
                writer->stage = STAGE_DONE;
                return 0;
        }
        header->epoch = source->epoch;
        header->segment = source->number;
        header->follows = header->first_lsn > source->epoch_first_lsn ? header->first_lsn - 1
                                                                      : source->last_before;
        drop_empty(writer);
        header->n_objects = (uint32_t)writer->n_objects;
        writer->offset = ARCHIVE_HEADER_SIZE;
        begin_object(writer);
        writer->stage = STAGE_DATA;
        return open_file(writer) ?: 1;
}

static int step_list(ArchiveWriter *writer)
{
        uint64_t from = writer->offset;

        while (writer->offset - from < STEP_BYTES) {
                BatchHeader head = {};
                int r = read_batch(writer, &head);

                if (r < 0)
                        return r;
                if (r == 0)
                        return end_list(writer);
                r = list_batch(writer, &head);
                if (r)
                        return r;
                writer->offset += (head.len + DISK_BLOCK - 1) & ~(uint64_t)(DISK_BLOCK - 1);
        }
        return 1;
}

/* DATA: writer->offset is where what is in writer->out will begin, and its length, together. */

static int sync_file(ArchiveWriter *writer)
{
        writer->synced = writer->offset;
        return SABOTAGED(SABOTAGE_ARCHIVE_SYNC) ? 0 : disk_sync(writer->file);
}

static int flush_out(ArchiveWriter *writer)
{
        int r = disk_write(
                writer->file, writer->out, writer->out_len, writer->offset - writer->out_len, 0);

        writer->out_len = 0;
        if (!r && writer->offset - writer->synced >= SYNC_BYTES)
                r = sync_file(writer);
        return r;
}

static int put(ArchiveWriter *writer, const void *data, size_t len)
{
        const char *bytes = data;

        while (len) {
                size_t n = MIN(len, OUT_ROOM - writer->out_len);

                memcpy(writer->out + writer->out_len, bytes, n);
                writer->out_len += n;
                writer->offset += n;
                bytes += n;
                len -= n;
                if (writer->out_len == OUT_ROOM) {
                        int r = flush_out(writer);

                        if (r)
                                return r;
                }
        }
        return 0;
}

/* What is in writer->raw becomes a chunk. */
static int put_chunk(ArchiveWriter *writer, Object *object, ArchiveChunkKind kind, uint64_t lsn)
{
        ArchiveEntry *entry = &object->entry;
        size_t len = ZSTD_compressCCtx(writer->zstd, writer->packed,
                ZSTD_COMPRESSBOUND(ARCHIVE_CHUNK_MAX), writer->raw, writer->raw_len, LEVEL);
        ArchiveChunk chunk = { .kind = kind,
                .len = (uint32_t)writer->raw_len,
                .stored_len = (uint32_t)len,
                .lsn = lsn };
        int r;

        if (ZSTD_isError(len))
                return -ENOMEM;
        r = GROW(writer->chunks, writer->chunks_room, entry->n_chunks);
        if (r)
                return r;
        chunk.crc = crc32c(0, writer->packed, len);
        writer->chunks[entry->n_chunks++] = chunk;
        entry->stored_len += len;
        writer->raw_len = 0;
        return put(writer, writer->packed, len);
}

/* A chunk of the object's pieces. */
static int put_records(ArchiveWriter *writer, Object *object)
{
        while (writer->raw_len < ARCHIVE_CHUNK_MAX && writer->at_piece != NO_PIECE) {
                const Piece *piece = &writer->pieces[writer->at_piece];
                size_t n = MIN(piece->len - writer->at_byte, ARCHIVE_CHUNK_MAX - writer->raw_len);
                size_t got;
                int r = read_source(writer, writer->source.segment, writer->raw + writer->raw_len,
                        n, piece->offset + writer->at_byte, &got);

                if (r)
                        return r;
                if (got < n)
                        return bad(writer, "it is shorter than it was");
                writer->raw_len += n;
                writer->taken += n;
                writer->at_byte += (uint32_t)n;
                if (writer->at_byte == piece->len) {
                        writer->at_piece = piece->next;
                        writer->at_byte = 0;
                }
        }
        return put_chunk(writer, object, CHUNK_RECORDS, 0);
}

static int open_spill(ArchiveWriter *writer)
{
        Store *store = writer->source.store;
        _cleanup_(free_p) char *path = store_file_path(store, "spill", writer->at_spill->ref.file);
        int r = path ? disk_open(store->disk, path, DISK_READ_ONLY, &writer->spill) : -ENOMEM;

        writer->spill_done = writer->spill_crc = 0;
        return r == -ENOENT ? bad(writer, "its file %s is missing", path) : r;
}

static int end_spill(ArchiveWriter *writer)
{
        const SpillPart *part = writer->at_spill;

        if (writer->spill_done != part->ref.size || writer->spill_crc != part->ref.crc)
                return bad(writer, "its file spill-%016llx does not check",
                        (unsigned long long)part->ref.file);
        writer->spill = disk_close(writer->spill);
        writer->at_spill = part->next;
        return 0;
}

/* A chunk of a spill file's part that says what was before; the rest is read for its crc. */
static int put_spill(ArchiveWriter *writer, Object *object)
{
        const SpillPart *part = writer->at_spill;
        size_t size = 4 + (size_t)part->page_size, most = ARCHIVE_CHUNK_MAX / size * size, got;
        uint64_t past = (uint64_t)part->n_pages * size, done, end;
        int r = writer->spill ? 0 : open_spill(writer);

        if (r)
                return r;
        done = writer->spill_done;
        end = done < past ? MIN(past, part->ref.size) : part->ref.size;
        r = read_source(
                writer, writer->spill, writer->raw, MIN(end - done, (uint64_t)most), done, &got);
        if (r)
                return r;
        writer->spill_crc = crc32c(writer->spill_crc, writer->raw, got);
        writer->spill_done += got;
        writer->taken += got;
        if (got && done >= past) {
                writer->raw_len = got;
                r = put_chunk(writer, object, CHUNK_PAST, part->lsn);
        }
        if (!r && (!got || writer->spill_done == part->ref.size))
                r = end_spill(writer);
        return r;
}

static int end_object(ArchiveWriter *writer, Object *object)
{
        ArchiveEntry *entry = &object->entry;
        int r = 0;

        for (uint32_t i = 0; !r && i < entry->n_chunks; i++) {
                unsigned char bytes[ARCHIVE_CHUNK_ENTRY_SIZE];

                archive_chunk_encode(&writer->chunks[i], bytes);
                entry->table_crc = crc32c(entry->table_crc, bytes, sizeof bytes);
                r = put(writer, bytes, sizeof bytes);
        }
        writer->at_object++;
        begin_object(writer);
        return r;
}

static int step_data(ArchiveWriter *writer)
{
        uint64_t from = writer->taken;
        size_t objects = writer->at_object + STEP_OBJECTS;

        while (writer->taken - from < STEP_BYTES && writer->at_object < objects) {
                Object *object;
                int r;

                if (writer->at_object == writer->n_objects) {
                        writer->stage = STAGE_INDEX;
                        return 1;
                }
                object = writer->objects[writer->at_object];
                if (!object->entry.offset)
                        object->entry.offset = writer->offset;
                if (writer->at_piece != NO_PIECE)
                        r = put_records(writer, object);
                else if (writer->at_spill)
                        r = put_spill(writer, object);
                else
                        r = end_object(writer, object);
                if (r)
                        return r;
        }
        return 1;
}

/* INDEX */

static int put_index(ArchiveWriter *writer)
{
        ArchiveEntry entries[ARCHIVE_BLOCK_ENTRIES];
        unsigned char block[ARCHIVE_BLOCK_SIZE];
        uint32_t n = 0, name_offset = 0;
        int r = 0;

        writer->header.index_offset = writer->offset;
        for (size_t i = 0; !r && i < writer->n_objects; i++) {
                entries[n] = writer->objects[i]->entry;
                entries[n++].name_offset = name_offset;
                name_offset += entries[n - 1].name_len;
                if (n < ARCHIVE_BLOCK_ENTRIES && i + 1 < writer->n_objects)
                        continue;
                archive_block_encode(entries, n, block);
                r = put(writer, block, sizeof block);
                n = 0;
        }
        return r;
}

static int put_names(ArchiveWriter *writer)
{
        ArchiveHeader *header = &writer->header;
        int r = 0;

        header->names_offset = writer->offset;
        for (size_t i = 0; !r && i < writer->n_objects; i++) {
                Slice name = writer->objects[i]->name;

                header->names_crc = crc32c(header->names_crc, name.data, name.len);
                r = put(writer, name.data, name.len);
        }
        return r;
}

static int put_samples(ArchiveWriter *writer)
{
        ArchiveHeader *header = &writer->header;
        int r = 0;

        header->samples_offset = writer->offset;
        for (uint32_t i = 0; !r && i < header->n_samples; i++) {
                unsigned char bytes[ARCHIVE_SAMPLE_SIZE];

                archive_sample_encode(&writer->samples[i], bytes);
                header->samples_crc = crc32c(header->samples_crc, bytes, sizeof bytes);
                r = put(writer, bytes, sizeof bytes);
        }
        header->size = writer->offset;
        return r;
}

static int step_index(ArchiveWriter *writer)
{
        Store *store = writer->source.store;
        unsigned char bytes[ARCHIVE_HEADER_SIZE];
        int r = put_index(writer);

        r = r ?: put_names(writer);
        r = r ?: put_samples(writer);
        r = r ?: flush_out(writer);
        if (r)
                return r;
        archive_header_encode(&writer->header, bytes);
        r = disk_write(writer->file, bytes, sizeof bytes, 0, 0);
        r = r ?: sync_file(writer);
        r = r ?: disk_rename(store->disk, writer->new_path, writer->path);
        if (r)
                return r;
        writer->stage = STAGE_DONE;
        return disk_sync_folder(store->disk, store->archive_path);
}

bool archive_writer_is_unreadable(const ArchiveWriter *writer)
{
        return writer->is_unreadable;
}

int archive_writer_step(ArchiveWriter *writer)
{
        switch (writer->stage) {
        case STAGE_LIST:
                return step_list(writer);
        case STAGE_DATA:
                return step_data(writer);
        case STAGE_INDEX:
                return step_index(writer);
        case STAGE_DONE:
                return 0;
        }
        dd_unreachable();
}
