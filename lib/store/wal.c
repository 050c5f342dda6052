/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/wal.h"

#include "lib/store/journal-format.h"
#include "lib/store/page-pool.h"

#include <errno.h>

#define PAGES_MIN 4u
#define ROOM_FIRST 8u
#define MAP_FIRST 16u
/* A map is cut down to nothing when it is cleared beyond this. */
#define MAP_KEEP 256u

void wal_init(Wal *wal, Disk *disk, uint64_t heap_max)
{
        *wal = (Wal){ .disk = disk, .heap_max = heap_max };
}

/* Where a page is that the overflow file has. */
static unsigned char in_file[1];

static bool is_in_heap(const Wal *wal, uint32_t index)
{
        return wal->pages[index] && wal->pages[index] != in_file;
}

void wal_drop_page(Wal *wal, uint32_t frame)
{
        uint32_t index = frame - 1;

        if (frame == 0 || frame > wal->n_frames || !is_in_heap(wal, index))
                return;
        page_pool_put(wal->pages[index], wal->page_size);
        wal->pages[index] = NULL;
        wal->n_pages--;
}

static void drop_frames(Wal *wal)
{
        for (uint32_t frame = 1; frame <= wal->n_frames; frame++)
                wal_drop_page(wal, frame);
        wal->n_frames = 0;
        wal->overflow = disk_close(wal->overflow);
}

static void drop_memory(Wal *wal)
{
        drop_frames(wal);
        free(wal->headers);
        free(wal->pages);
        wal->headers = NULL;
        wal->pages = NULL;
        wal->room = 0;
}

void wal_reset(Wal *wal)
{
        drop_memory(wal);
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
        return (uint64_t)wal->n_pages * wal->page_size +
               wal->room * (uint64_t)(sizeof *wal->headers + sizeof *wal->pages);
}

static int set_header(Wal *wal, const unsigned char *header)
{
        uint32_t page_size = get_be32(header + 8);
        uint64_t pages;

        if (page_size < 512 || page_size > 65536 || page_size & (page_size - 1))
                return -EINVAL;
        if (page_size != wal->page_size)
                drop_memory(wal);
        else
                drop_frames(wal);
        memcpy(wal->header, header, WAL_HEADER_SIZE);
        wal->has_header = true;
        wal->page_size = page_size;
        pages = MAX(wal->heap_max / page_size, (uint64_t)PAGES_MIN);
        wal->max_pages = (uint32_t)MIN(pages, (uint64_t)UINT32_MAX);
        return 0;
}

/* Room for frames up to index, which were never written. */
static int extend(Wal *wal, uint32_t index)
{
        if (index >= wal->room) {
                uint32_t room = MAX(2 * wal->room, index + ROOM_FIRST);
                void *headers = realloc(wal->headers, room * sizeof *wal->headers), *pages;

                if (!headers)
                        return -ENOMEM;
                wal->headers = headers;
                pages = realloc(wal->pages, room * sizeof *wal->pages);
                if (!pages)
                        return -ENOMEM;
                wal->pages = pages;
                wal->room = room;
        }
        for (; wal->n_frames <= index; wal->n_frames++) {
                memset(wal->headers[wal->n_frames], 0, sizeof *wal->headers);
                wal->pages[wal->n_frames] = NULL;
        }
        return 0;
}

static uint64_t overflow_offset(const Wal *wal, uint32_t index)
{
        return (uint64_t)index * wal->page_size;
}

static int open_overflow(Wal *wal)
{
        int r;

        if (wal->overflow)
                return 0;
        r = disk_open(wal->disk, wal->overflow_path, DISK_CREATE, &wal->overflow);
        if (r)
                return r;
        /* Its name is of no use: what is open stays. */
        r = disk_unlink(wal->disk, wal->overflow_path);
        if (r)
                wal->overflow = disk_close(wal->overflow);
        return r;
}

/* Where the page goes: into heap, as long as there is room. A file that cannot be opened for want
 * of descriptors is no reason to fail where heap would do. */
static int place_page(Wal *wal, uint32_t index)
{
        bool is_full = wal->n_pages >= wal->max_pages;

        if (wal->pages[index])
                return 0;
        if (is_full || wal->is_squeezed) {
                int r = open_overflow(wal);

                if (!r)
                        wal->pages[index] = in_file;
                if (!r || is_full || r == -ENOSPC || r == -EDQUOT)
                        return r;
        }
        wal->pages[index] = page_pool_get(wal->page_size);
        if (!wal->pages[index])
                return -ENOMEM;
        wal->n_pages++;
        return 0;
}

static int write_page(Wal *wal, uint32_t index, uint32_t within, const void *data, size_t len)
{
        int r = place_page(wal, index);

        if (r)
                return r;
        if (wal->pages[index] == in_file)
                return disk_write(
                        wal->overflow, data, len, overflow_offset(wal, index) + within, 0);
        memcpy(wal->pages[index] + within, data, len);
        return 0;
}

/* The part of a frame that begins `within` it, at most len: its header's, or its page's. */
static size_t get_part(const Wal *wal, uint32_t within, size_t len)
{
        uint32_t end = within < WAL_FRAME_HEADER_SIZE ? WAL_FRAME_HEADER_SIZE : wal_frame_size(wal);

        return MIN(len, (size_t)(end - within));
}

static int write_part(Wal *wal, uint32_t index, uint32_t within, const void *data, size_t len)
{
        int r = extend(wal, index);

        if (r)
                return r;
        if (within >= WAL_FRAME_HEADER_SIZE)
                return write_page(wal, index, within - WAL_FRAME_HEADER_SIZE, data, len);
        memcpy(wal->headers[index] + within, data, len);
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
                size_t n = get_part(wal, within, len);

                if (index >= UINT32_MAX / 2)
                        return -EFBIG;
                r = write_part(wal, (uint32_t)index, within, bytes, n);
                if (r)
                        return r;
                bytes += n;
                offset += n;
                len -= n;
        }
        return 0;
}

static int read_page(Wal *wal, uint32_t index, uint32_t within, void *data, size_t len)
{
        size_t got = 0;
        int r;

        if (!wal->pages[index])
                return -EIO;
        if (wal->pages[index] != in_file) {
                memcpy(data, wal->pages[index] + within, len);
                return 0;
        }
        r = disk_read(wal->overflow, data, len, overflow_offset(wal, index) + within, &got);
        if (!r && got < len)
                memset((char *)data + got, 0, len - got);
        return r;
}

static int read_part(Wal *wal, uint32_t index, uint32_t within, void *data, size_t len)
{
        if (within >= WAL_FRAME_HEADER_SIZE)
                return read_page(wal, index, within - WAL_FRAME_HEADER_SIZE, data, len);
        memcpy(data, wal->headers[index] + within, len);
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
                size_t n = get_part(wal, within, len - done);

                if (index >= wal->n_frames)
                        break;
                r = read_part(wal, (uint32_t)index, within, bytes + done, n);
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
        if (frame == 0 || frame > wal->n_frames)
                return -EIO;
        *ret_page = get_be32(wal->headers[frame - 1]);
        *ret_db_pages = get_be32(wal->headers[frame - 1] + 4);
        return 0;
}

bool wal_has_page(const Wal *wal, uint32_t frame)
{
        return frame && frame <= wal->n_frames && wal->pages[frame - 1];
}

const unsigned char *wal_find_page(const Wal *wal, uint32_t frame)
{
        if (!wal_has_page(wal, frame) || !is_in_heap(wal, frame - 1))
                return NULL;
        return wal->pages[frame - 1];
}

int wal_read_page(Wal *wal, uint32_t frame, void *page)
{
        return wal_has_page(wal, frame) ? read_page(wal, frame - 1, 0, page, wal->page_size) : -EIO;
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
