/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/wal.h"

#include "lib/store/journal-format.h"

#include <errno.h>

#define CHUNK_FRAMES 4u
#define MAP_FIRST 16u
/* A map is cut down to nothing when it is cleared beyond this. */
#define MAP_KEEP 256u

void wal_init(Wal *wal, Disk *disk, uint64_t heap_max)
{
        *wal = (Wal){ .disk = disk, .heap_max = heap_max };
}

static void drop_frames(Wal *wal)
{
        for (size_t i = 0; i < wal->n_chunks; i++)
                free(wal->chunks[i]);
        free(wal->chunks);
        wal->chunks = NULL;
        wal->n_chunks = wal->chunks_room = 0;
        wal->overflow = disk_close(wal->overflow);
        wal->n_frames = 0;
}

void wal_reset(Wal *wal)
{
        drop_frames(wal);
        wal->has_header = false;
}

uint64_t wal_size(const Wal *wal)
{
        if (!wal->has_header)
                return 0;
        return WAL_HEADER_SIZE + (uint64_t)wal->n_frames * wal_frame_size(wal);
}

uint64_t wal_memory(const Wal *wal)
{
        return (uint64_t)wal->n_chunks * CHUNK_FRAMES * wal_frame_size(wal);
}

static int set_header(Wal *wal, const unsigned char *header)
{
        uint32_t page_size = get_be32(header + 8);

        if (page_size < 512 || page_size > 65536 || page_size & (page_size - 1))
                return -EINVAL;
        if (page_size != wal->page_size)
                drop_frames(wal);
        memcpy(wal->header, header, WAL_HEADER_SIZE);
        wal->has_header = true;
        wal->page_size = page_size;
        wal->n_frames = 0;
        wal->max_heap_frames =
                (uint32_t)MAX(wal->heap_max / wal_frame_size(wal), (uint64_t)CHUNK_FRAMES);
        return 0;
}

static int make_chunk(Wal *wal, size_t chunk)
{
        if (chunk >= wal->chunks_room) {
                size_t room = MAX(2 * wal->chunks_room, chunk + 1);
                unsigned char **chunks = realloc(wal->chunks, room * sizeof *chunks);

                if (!chunks)
                        return -ENOMEM;
                wal->chunks = chunks;
                wal->chunks_room = room;
        }
        while (wal->n_chunks <= chunk) {
                wal->chunks[wal->n_chunks] = malloc((size_t)CHUNK_FRAMES * wal_frame_size(wal));
                if (!wal->chunks[wal->n_chunks])
                        return -ENOMEM;
                wal->n_chunks++;
        }
        return 0;
}

/* Where a byte of a frame (from 0) is; NULL when its chunk is not there. */
static unsigned char *find_bytes(Wal *wal, uint32_t index, uint32_t within)
{
        size_t chunk = index / CHUNK_FRAMES;

        if (chunk >= wal->n_chunks)
                return NULL;
        return wal->chunks[chunk] + (size_t)(index % CHUNK_FRAMES) * wal_frame_size(wal) + within;
}

static uint64_t overflow_offset(const Wal *wal, uint32_t index, uint32_t within)
{
        return (uint64_t)(index - wal->max_heap_frames) * wal_frame_size(wal) + within;
}

static int write_overflow(Wal *wal, uint32_t index, uint32_t within, const void *data, size_t len)
{
        int r;

        if (!wal->overflow) {
                r = disk_open(wal->disk, wal->overflow_path, DISK_CREATE, &wal->overflow);
                if (r)
                        return r;
                /* Its name is of no use: what is open stays. */
                r = disk_unlink(wal->disk, wal->overflow_path);
                if (r) {
                        wal->overflow = disk_close(wal->overflow);
                        return r;
                }
        }
        return disk_write(wal->overflow, data, len, overflow_offset(wal, index, within), 0);
}

static int write_frame(Wal *wal, uint32_t index, uint32_t within, const void *data, size_t len)
{
        int r;

        if (index >= wal->max_heap_frames)
                return write_overflow(wal, index, within, data, len);
        r = make_chunk(wal, index / CHUNK_FRAMES);
        if (r)
                return r;
        memcpy(find_bytes(wal, index, within), data, len);
        return 0;
}

int wal_write(Wal *wal, const void *data, size_t len, uint64_t offset)
{
        const unsigned char *bytes = data;
        int r;

        if (offset < WAL_HEADER_SIZE)
                return offset == 0 && len == WAL_HEADER_SIZE ? set_header(wal, bytes) : -EINVAL;
        if (!wal->has_header)
                return -EINVAL;
        offset -= WAL_HEADER_SIZE;
        while (len) {
                uint64_t index = offset / wal_frame_size(wal);
                uint32_t within = (uint32_t)(offset % wal_frame_size(wal));
                size_t n = MIN(len, (size_t)(wal_frame_size(wal) - within));

                if (index >= UINT32_MAX)
                        return -EFBIG;
                r = write_frame(wal, (uint32_t)index, within, bytes, n);
                if (r)
                        return r;
                wal->n_frames = MAX(wal->n_frames, (uint32_t)index + 1);
                bytes += n;
                offset += n;
                len -= n;
        }
        return 0;
}

static int read_frame(Wal *wal, uint32_t index, uint32_t within, void *data, size_t len)
{
        const unsigned char *bytes;
        size_t got = 0;
        int r;

        if (index >= wal->max_heap_frames) {
                if (!wal->overflow)
                        return -EIO;
                r = disk_read(wal->overflow, data, len, overflow_offset(wal, index, within), &got);
                if (!r && got < len)
                        memset((char *)data + got, 0, len - got);
                return r;
        }
        bytes = find_bytes(wal, index, within);
        if (!bytes)
                return -EIO;
        memcpy(data, bytes, len);
        return 0;
}

static size_t read_header(const Wal *wal, void *data, size_t len, uint64_t offset)
{
        size_t n = 0;

        if (wal->has_header && offset < WAL_HEADER_SIZE) {
                n = MIN(len, (size_t)(WAL_HEADER_SIZE - offset));
                memcpy(data, wal->header + offset, n);
        }
        return n;
}

int wal_read(Wal *wal, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        unsigned char *bytes = data;
        size_t done = read_header(wal, data, len, offset);
        int r;

        while (done < len && wal->has_header && offset + done >= WAL_HEADER_SIZE) {
                uint64_t at = offset + done - WAL_HEADER_SIZE;
                uint64_t index = at / wal_frame_size(wal);
                uint32_t within = (uint32_t)(at % wal_frame_size(wal));
                size_t n = MIN(len - done, (size_t)(wal_frame_size(wal) - within));

                if (index >= wal->n_frames)
                        break;
                r = read_frame(wal, (uint32_t)index, within, bytes + done, n);
                if (r)
                        return r;
                done += n;
        }
        memset(bytes + done, 0, len - done);
        *ret_len = done;
        return 0;
}

int wal_read_header(Wal *wal, uint32_t frame, uint32_t *ret_page, uint32_t *ret_db_pages)
{
        unsigned char header[8];
        int r = frame == 0 || frame > wal->n_frames
                        ? -EIO
                        : read_frame(wal, frame - 1, 0, header, sizeof header);

        if (r)
                return r;
        *ret_page = get_be32(header);
        *ret_db_pages = get_be32(header + 4);
        return 0;
}

const unsigned char *wal_find_page(Wal *wal, uint32_t frame)
{
        if (frame == 0 || frame > wal->n_frames || frame > wal->max_heap_frames)
                return NULL;
        return find_bytes(wal, frame - 1, WAL_FRAME_HEADER_SIZE);
}

int wal_read_page(Wal *wal, uint32_t frame, void *page)
{
        if (frame == 0 || frame > wal->n_frames)
                return -EIO;
        return read_frame(wal, frame - 1, WAL_FRAME_HEADER_SIZE, page, wal->page_size);
}

static int compare_pages(const void *a, const void *b)
{
        const PageFrame *x = a, *y = b;

        if (x->page != y->page)
                return x->page < y->page ? -1 : 1;
        return x->frame < y->frame ? -1 : x->frame > y->frame;
}

int wal_list_pages(Wal *wal, uint32_t first, uint32_t last, PageFrame **ret, size_t *ret_n)
{
        size_t n = (size_t)last - first + 1, kept = 0;
        _cleanup_(free_p) PageFrame *pages = malloc(n * sizeof *pages);

        if (!pages)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                uint32_t db_pages;
                int r;

                pages[i].frame = first + (uint32_t)i;
                r = wal_read_header(wal, pages[i].frame, &pages[i].page, &db_pages);
                if (r)
                        return r;
        }
        qsort(pages, n, sizeof *pages, compare_pages);
        for (size_t i = 0; i < n; i++)
                if (i + 1 == n || pages[i].page != pages[i + 1].page)
                        pages[kept++] = pages[i];
        *ret = TAKE_PTR(pages);
        *ret_n = kept;
        return 0;
}

/* Where the page is, or would be. */
static PageFrame *find_entry(const PageMap *map, uint32_t page)
{
        uint32_t hash = page * UINT32_C(2654435761);
        size_t at = hash & (map->size - 1);

        while (map->entries[at].page && map->entries[at].page != page)
                at = (at + 1) & (map->size - 1);
        return &map->entries[at];
}

uint32_t page_map_find(const PageMap *map, uint32_t page)
{
        if (!map->size)
                return 0;
        return find_entry(map, page)->frame;
}

bool page_map_reserve(PageMap *map, size_t n)
{
        PageMap bigger = { .size = MAX(map->size, (size_t)MAP_FIRST), .len = map->len };

        while (4 * (map->len + n) > 3 * bigger.size)
                bigger.size *= 2;
        if (bigger.size == map->size)
                return true;
        bigger.entries = calloc(bigger.size, sizeof *bigger.entries);
        if (!bigger.entries)
                return false;
        for (size_t i = 0; i < map->size; i++)
                if (map->entries[i].page)
                        *find_entry(&bigger, map->entries[i].page) = map->entries[i];
        free(map->entries);
        *map = bigger;
        return true;
}

void page_map_set(PageMap *map, uint32_t page, uint32_t frame)
{
        PageFrame *entry;

        dd_assert(map->len < map->size);
        entry = find_entry(map, page);
        map->len += entry->page == 0;
        *entry = (PageFrame){ page, frame };
}

void page_map_clear(PageMap *map)
{
        if (map->size > MAP_KEEP) {
                free(map->entries);
                *map = (PageMap){};
        } else if (map->len) {
                memset(map->entries, 0, map->size * sizeof *map->entries);
                map->len = 0;
        }
}
