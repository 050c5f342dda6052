/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/disk-overlay.h"

#include "lib/base/map.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#define SCRATCH_TRIES 8

typedef struct Overlay {
        Disk disk;
        Disk *below;
        char *scratch_folder;
        DiskFile *scratch;
        uint64_t scratch_size;
        pthread_mutex_t mutex; /* guards what follows, and all entries */
        Map entries;
} Overlay;

/* A block that was written, and where it lies in the scratch file. */
typedef struct Block {
        MapNode map;
        uint64_t number, at;
} Block;

/* A name that differs from below, or may. */
typedef struct Entry {
        MapNode map;
        char *path;
        bool is_there, is_folder;
        bool is_below;       /* the name stands below as well */
        uint64_t size;       /* now */
        uint64_t base_limit; /* content below counts up to here */
        Map blocks;
} Entry;

typedef struct OverlayFile {
        DiskFile file;
        Overlay *overlay;
        Entry *entry;    /* NULL: as it is below */
        DiskFile *below; /* NULL: not there */
        DiskFile *lock;
        char *path;
} OverlayFile;

static Overlay *get_overlay(Disk *disk)
{
        return (Overlay *)disk;
}

static OverlayFile *get_file(DiskFile *file)
{
        return (OverlayFile *)file;
}

static Entry *find_entry(Overlay *overlay, const char *path)
{
        MapNode *map = map_find(&overlay->entries, slice_from(path));

        return map ? CONTAINER_OF(map, Entry, map) : NULL;
}

static void free_block(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, Block, map));
}

static void drop_blocks(Entry *entry)
{
        map_for_each(&entry->blocks, free_block, NULL);
        map_done(&entry->blocks);
        map_init(&entry->blocks);
}

static void free_entry(MapNode *map, void *data)
{
        Entry *entry = CONTAINER_OF(map, Entry, map);

        drop_blocks(entry);
        map_done(&entry->blocks);
        free(entry->path);
        free(entry);
}

/* The entry of a path, as it is below when it is new. */
static int get_entry(Overlay *overlay, const char *path, Entry **ret)
{
        Entry *entry = find_entry(overlay, path);
        uint64_t size = 0;
        int r;

        if (entry) {
                *ret = entry;
                return 0;
        }
        r = disk_stat_size(overlay->below, path, &size);
        if (r && r != -ENOENT && r != -EISDIR && r != -ENOTDIR)
                return r;
        entry = calloc(1, sizeof *entry);
        if (!entry)
                return -ENOMEM;
        map_init(&entry->blocks);
        entry->path = strdup(path);
        entry->is_folder = r == -EISDIR;
        entry->is_there = entry->is_below = r == 0 || r == -EISDIR;
        entry->size = entry->base_limit = size;
        r = entry->path ? map_insert(&overlay->entries, &entry->map, slice_from(entry->path))
                        : -ENOMEM;
        if (r) {
                free_entry(&entry->map, NULL);
                return r;
        }
        *ret = entry;
        return 0;
}

static int open_scratch(Overlay *overlay)
{
        Disk *disk = disk_real();
        int r = -EEXIST;

        for (unsigned i = 0; r == -EEXIST && i < SCRATCH_TRIES; i++) {
                _cleanup_(free_p) char *path = NULL;
                uint64_t random;

                disk_random(disk, &random, sizeof random);
                if (asprintf(&path, "%s/durabled-check-%016llx", overlay->scratch_folder,
                            (unsigned long long)random) < 0) {
                        path = NULL;
                        return -ENOMEM;
                }
                r = disk_open(disk, path, DISK_CREATE | DISK_EXCLUSIVE, &overlay->scratch);
                if (!r)
                        r = disk_unlink(disk, path);
        }
        return r;
}

static int overlay_open(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        Overlay *overlay = get_overlay(disk);
        OverlayFile *file = calloc(1, sizeof *file);
        Entry *entry = NULL;
        int r = 0;

        if (!file)
                return -ENOMEM;
        *file = (OverlayFile){ .file.disk = disk, .overlay = overlay, .path = strdup(path) };
        pthread_mutex_lock(&overlay->mutex);
        entry = find_entry(overlay, path);
        if (!file->path)
                r = -ENOMEM;
        else if (!entry && !(flags & DISK_READ_ONLY))
                r = get_entry(overlay, path, &entry);
        if (!r && entry && entry->is_folder)
                r = -EISDIR;
        if (!r && entry && entry->is_there && flags & DISK_CREATE && flags & DISK_EXCLUSIVE)
                r = -EEXIST;
        if (!r && entry && !entry->is_there && !(flags & DISK_CREATE))
                r = -ENOENT;
        if (!r && (!entry || entry->base_limit))
                r = disk_open(overlay->below, path, DISK_READ_ONLY, &file->below);
        if (!r && entry)
                entry->is_there = true;
        pthread_mutex_unlock(&overlay->mutex);
        file->entry = entry;
        if (r) {
                free(file->path);
                free(file);
                return r;
        }
        *ret = &file->file;
        return 0;
}

static void overlay_close(DiskFile *base)
{
        OverlayFile *file = get_file(base);

        disk_close(file->below);
        disk_close(file->lock);
        free(file->path);
        free(file);
}

static Block *find_block(const Entry *entry, uint64_t number)
{
        MapNode *map = map_find(&entry->blocks, slice_of(&number, sizeof number));

        return map ? CONTAINER_OF(map, Block, map) : NULL;
}

/* A whole block as it is now; what is beyond the end reads as zeros. */
static int read_block(OverlayFile *file, uint64_t number, unsigned char *out)
{
        const Block *block = find_block(file->entry, number);
        uint64_t offset = number * DISK_BLOCK;
        size_t got = 0, want;
        int r;

        if (block) {
                r = disk_read(file->overlay->scratch, out, DISK_BLOCK, block->at, &got);
                return r ?: got == DISK_BLOCK ? 0 : -EIO;
        }
        memset(out, 0, DISK_BLOCK);
        if (!file->below || offset >= file->entry->base_limit)
                return 0;
        want = MIN((uint64_t)DISK_BLOCK, file->entry->base_limit - offset);
        return disk_read(file->below, out, want, offset, &got);
}

static int read_blocks(OverlayFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        unsigned char block[DISK_BLOCK];
        size_t done = 0;
        uint64_t size = file->entry->size;

        len = offset >= size ? 0 : (size_t)MIN((uint64_t)len, size - offset);
        while (done < len) {
                uint64_t at = offset + done;
                size_t skip = at % DISK_BLOCK, n = MIN(len - done, DISK_BLOCK - skip);
                int r = read_block(file, at / DISK_BLOCK, block);

                if (r)
                        return r;
                memcpy((char *)data + done, block + skip, n);
                done += n;
        }
        *ret_len = done;
        return 0;
}

static int overlay_read(DiskFile *base, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        OverlayFile *file = get_file(base);
        int r;

        if (!file->entry)
                return disk_read(file->below, data, len, offset, ret_len);
        pthread_mutex_lock(&file->overlay->mutex);
        r = read_blocks(file, data, len, offset, ret_len);
        pthread_mutex_unlock(&file->overlay->mutex);
        return r;
}

/* The block's place in the scratch file, new when it has none. */
static int place_block(OverlayFile *file, uint64_t number, uint64_t *ret)
{
        Overlay *overlay = file->overlay;
        Block *block = find_block(file->entry, number);
        int r;

        if (!block) {
                block = calloc(1, sizeof *block);
                if (!block)
                        return -ENOMEM;
                block->number = number;
                block->at = overlay->scratch_size;
                r = map_insert(&file->entry->blocks, &block->map,
                        slice_of(&block->number, sizeof block->number));
                if (r) {
                        free(block);
                        return r;
                }
                overlay->scratch_size += DISK_BLOCK;
        }
        *ret = block->at;
        return 0;
}

static int write_blocks(OverlayFile *file, const void *data, size_t len, uint64_t offset)
{
        unsigned char block[DISK_BLOCK];
        size_t done = 0;

        while (done < len) {
                uint64_t at = offset + done, place;
                size_t skip = at % DISK_BLOCK, n = MIN(len - done, DISK_BLOCK - skip);
                int r = n < DISK_BLOCK ? read_block(file, at / DISK_BLOCK, block) : 0;

                memcpy(block + skip, (const char *)data + done, n);
                r = r ?: place_block(file, at / DISK_BLOCK, &place);
                r = r ?: disk_write(file->overlay->scratch, block, DISK_BLOCK, place, 0);
                if (r)
                        return r;
                done += n;
        }
        file->entry->size = MAX(file->entry->size, offset + len);
        return 0;
}

static int overlay_write(
        DiskFile *base, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        OverlayFile *file = get_file(base);
        int r = file->entry ? 0 : -EBADF;

        if (r)
                return r;
        pthread_mutex_lock(&file->overlay->mutex);
        if (!file->overlay->scratch)
                r = open_scratch(file->overlay);
        r = r ?: write_blocks(file, data, len, offset);
        pthread_mutex_unlock(&file->overlay->mutex);
        return r;
}

typedef struct Cut {
        Entry *entry;
        uint64_t first; /* blocks from here on go */
} Cut;

static void cut_block(MapNode *map, void *data)
{
        Block *block = CONTAINER_OF(map, Block, map);
        Cut *cut = data;

        if (block->number < cut->first)
                return;
        map_remove(&cut->entry->blocks, map);
        free(block);
}

/* What is behind the end must read as zeros when the file grows again. */
static int cut_blocks(OverlayFile *file, uint64_t size)
{
        Cut cut = { .entry = file->entry, .first = (size + DISK_BLOCK - 1) / DISK_BLOCK };
        unsigned char block[DISK_BLOCK];
        Block *last = find_block(file->entry, size / DISK_BLOCK);
        int r = 0;

        if (last && size % DISK_BLOCK) {
                r = read_block(file, last->number, block);
                memset(block + size % DISK_BLOCK, 0, DISK_BLOCK - size % DISK_BLOCK);
                r = r ?: disk_write(file->overlay->scratch, block, DISK_BLOCK, last->at, 0);
        }
        map_for_each(&file->entry->blocks, cut_block, &cut);
        file->entry->base_limit = MIN(file->entry->base_limit, size);
        return r;
}

static int overlay_truncate(DiskFile *base, uint64_t size)
{
        OverlayFile *file = get_file(base);
        int r = 0;

        if (!file->entry)
                return -EBADF;
        pthread_mutex_lock(&file->overlay->mutex);
        if (size < file->entry->size)
                r = cut_blocks(file, size);
        file->entry->size = size;
        pthread_mutex_unlock(&file->overlay->mutex);
        return r;
}

static int overlay_sync(DiskFile *file)
{
        return 0;
}

static int overlay_allocate(DiskFile *base, uint64_t offset, uint64_t len)
{
        OverlayFile *file = get_file(base);

        if (!file->entry)
                return -EBADF;
        pthread_mutex_lock(&file->overlay->mutex);
        file->entry->size = MAX(file->entry->size, offset + len);
        pthread_mutex_unlock(&file->overlay->mutex);
        return 0;
}

static int overlay_get_size(DiskFile *base, uint64_t *ret)
{
        OverlayFile *file = get_file(base);

        if (!file->entry)
                return disk_get_size(file->below, ret);
        pthread_mutex_lock(&file->overlay->mutex);
        *ret = file->entry->size;
        pthread_mutex_unlock(&file->overlay->mutex);
        return 0;
}

static int overlay_lock(DiskFile *base, uint64_t offset, uint64_t len)
{
        OverlayFile *file = get_file(base);
        int r = 0;

        if (!file->lock)
                r = disk_open(file->overlay->below, file->path, 0, &file->lock);
        if (r == -ENOENT || r == -EROFS)
                return 0;
        return r ?: disk_lock(file->lock, offset, len);
}

static int overlay_submit(Disk *disk, DiskWrite *write)
{
        return -EROFS;
}

static int overlay_poll(Disk *disk)
{
        return 0;
}

static int overlay_stat_size(Disk *disk, const char *path, uint64_t *ret)
{
        Overlay *overlay = get_overlay(disk);
        Entry *entry;
        int r = 0;

        pthread_mutex_lock(&overlay->mutex);
        entry = find_entry(overlay, path);
        if (!entry)
                r = disk_stat_size(overlay->below, path, ret);
        else if (!entry->is_there)
                r = -ENOENT;
        else if (entry->is_folder)
                r = -EISDIR;
        else
                *ret = entry->size;
        pthread_mutex_unlock(&overlay->mutex);
        return r;
}

static int overlay_mkdir(Disk *disk, const char *path)
{
        Overlay *overlay = get_overlay(disk);
        Entry *entry;
        int r;

        pthread_mutex_lock(&overlay->mutex);
        r = get_entry(overlay, path, &entry);
        if (!r && entry->is_there)
                r = -EEXIST;
        if (!r)
                entry->is_there = entry->is_folder = true;
        pthread_mutex_unlock(&overlay->mutex);
        return r;
}

static int overlay_rename(Disk *disk, const char *from, const char *to)
{
        return -EROFS;
}

static int overlay_unlink(Disk *disk, const char *path)
{
        Overlay *overlay = get_overlay(disk);
        Entry *entry;
        int r;

        pthread_mutex_lock(&overlay->mutex);
        r = get_entry(overlay, path, &entry);
        if (!r && !entry->is_there)
                r = -ENOENT;
        if (!r && entry->is_folder)
                r = -EISDIR;
        if (!r) {
                entry->is_there = false;
                entry->size = entry->base_limit = 0;
                drop_blocks(entry);
        }
        pthread_mutex_unlock(&overlay->mutex);
        return r;
}

typedef struct Listing {
        Overlay *overlay;
        const char *folder;
        size_t len;
        DiskListFn fn;
        void *data;
        char **names; /* of the overlay alone */
        size_t n;
        int error;
} Listing;

static int list_below(const char *name, void *data)
{
        Listing *listing = data;
        _cleanup_(free_p) char *path = NULL;
        Entry *entry;
        bool is_there;

        if (asprintf(&path, "%s/%s", listing->folder, name) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        pthread_mutex_lock(&listing->overlay->mutex);
        entry = find_entry(listing->overlay, path);
        is_there = !entry || entry->is_there;
        pthread_mutex_unlock(&listing->overlay->mutex);
        return is_there ? listing->fn(name, listing->data) : 0;
}

static void collect_name(MapNode *map, void *data)
{
        Listing *listing = data;
        const Entry *entry = CONTAINER_OF(map, Entry, map);
        char **names;

        if (listing->error || !entry->is_there || entry->is_below ||
                strncmp(entry->path, listing->folder, listing->len) != 0 ||
                entry->path[listing->len] != '/' || strchr(entry->path + listing->len + 1, '/'))
                return;
        names = realloc(listing->names, (listing->n + 1) * sizeof *names);
        if (names) {
                listing->names = names;
                names[listing->n] = strdup(entry->path + listing->len + 1);
        }
        if (names && names[listing->n])
                listing->n++;
        else
                listing->error = -ENOMEM;
}

static int overlay_list(Disk *disk, const char *path, DiskListFn fn, void *data)
{
        Overlay *overlay = get_overlay(disk);
        Listing listing = {
                .overlay = overlay, .folder = path, .len = strlen(path), .fn = fn, .data = data
        };
        int r = disk_list(overlay->below, path, list_below, &listing);

        pthread_mutex_lock(&overlay->mutex);
        map_for_each(&overlay->entries, collect_name, &listing);
        pthread_mutex_unlock(&overlay->mutex);
        if (r == -ENOENT && listing.n)
                r = 0;
        r = r ?: listing.error;
        for (size_t i = 0; i < listing.n; i++) {
                r = r ?: fn(listing.names[i], data);
                free(listing.names[i]);
        }
        free(listing.names);
        return r;
}

static int overlay_sync_folder(Disk *disk, const char *path)
{
        return 0;
}

static uint64_t overlay_clock_realtime(Disk *disk)
{
        return disk_clock_realtime(get_overlay(disk)->below);
}

static uint64_t overlay_clock_monotonic(Disk *disk)
{
        return disk_clock_monotonic(get_overlay(disk)->below);
}

static void overlay_random(Disk *disk, void *data, size_t len)
{
        disk_random(get_overlay(disk)->below, data, len);
}

static const DiskOps overlay_ops = {
        .open = overlay_open,
        .close = overlay_close,
        .read = overlay_read,
        .write = overlay_write,
        .truncate = overlay_truncate,
        .sync = overlay_sync,
        .allocate = overlay_allocate,
        .get_size = overlay_get_size,
        .lock = overlay_lock,
        .submit = overlay_submit,
        .poll = overlay_poll,
        .stat_size = overlay_stat_size,
        .mkdir = overlay_mkdir,
        .rename = overlay_rename,
        .unlink = overlay_unlink,
        .list = overlay_list,
        .sync_folder = overlay_sync_folder,
        .sync_all = overlay_sync_folder,
        .clock_realtime = overlay_clock_realtime,
        .clock_monotonic = overlay_clock_monotonic,
        .random = overlay_random,
};

int disk_overlay_new(Disk *below, const char *scratch, Disk **ret)
{
        Overlay *overlay = calloc(1, sizeof *overlay);

        if (!overlay)
                return -ENOMEM;
        overlay->scratch_folder = strdup(scratch);
        if (!overlay->scratch_folder) {
                free(overlay);
                return -ENOMEM;
        }
        overlay->disk.ops = &overlay_ops;
        overlay->below = below;
        pthread_mutex_init(&overlay->mutex, NULL);
        map_init(&overlay->entries);
        *ret = &overlay->disk;
        return 0;
}

Disk *disk_overlay_free(Disk *disk)
{
        Overlay *overlay = get_overlay(disk);

        if (!disk)
                return NULL;
        map_for_each(&overlay->entries, free_entry, NULL);
        map_done(&overlay->entries);
        disk_close(overlay->scratch);
        pthread_mutex_destroy(&overlay->mutex);
        free(overlay->scratch_folder);
        free(overlay);
        return NULL;
}

void disk_overlay_revert(Disk *disk, const char *path)
{
        Overlay *overlay = get_overlay(disk);
        Entry *entry;

        pthread_mutex_lock(&overlay->mutex);
        entry = find_entry(overlay, path);
        if (entry) {
                map_remove(&overlay->entries, &entry->map);
                free_entry(&entry->map, NULL);
        }
        pthread_mutex_unlock(&overlay->mutex);
}

uint64_t disk_overlay_get_size(Disk *disk)
{
        return get_overlay(disk)->scratch_size;
}
