/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/disk-memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define SECTOR 512u
#define MAX_SIZE (UINT64_C(1) << 40)

typedef struct Change {
        struct Change *next;
        bool is_truncate;
        uint64_t offset; /* or the new size */
        size_t len;
        unsigned char data[];
} Change;

typedef struct Image {
        unsigned char *data;
        size_t size, room;
} Image;

typedef struct Inode {
        unsigned n_refs;
        Image now, durable;
        Change *changes, **tail;
        DiskFile *locker;
} Inode;

typedef struct Name {
        char *path;
        uint64_t hash;
        Inode *now, *durable; /* NULL: not there; both for a folder: the one folder inode */
} Name;

typedef struct MemoryFile {
        DiskFile file;
        Inode *inode;
        uint64_t boot;
} MemoryFile;

struct MemoryDisk {
        Disk disk;
        pthread_mutex_t mutex;
        Name *names;
        size_t n_names, n_open, n_open_most;
        Inode folder;
        uint64_t calls, fail_call, cut_call, boot, now, random;
        uint64_t size_max; /* of a file */
        int fail_error;
        bool fail_forever, cut, hold;
        DiskWrite *submitted;
};

static uint64_t get_random(MemoryDisk *memory)
{
        memory->random += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t x = memory->random;

        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

static void *must(void *memory)
{
        dd_assert(memory);
        return memory;
}

static void inode_unref(MemoryDisk *memory, Inode *inode)
{
        if (!inode || inode == &memory->folder || --inode->n_refs)
                return;
        while (inode->changes) {
                Change *change = inode->changes;

                inode->changes = change->next;
                free(change);
        }
        free(inode->now.data);
        free(inode->durable.data);
        free(inode);
}

static Inode *inode_ref(Inode *inode)
{
        if (inode)
                inode->n_refs++;
        return inode;
}

/* Grows by doubling: segments are large. There is memory even for nothing. */
static void resize(Image *image, size_t want)
{
        if (want > image->room || !image->data) {
                image->room = MAX(want, image->room * 2);
                image->data = must(realloc(image->data, image->room + 1));
        }
        if (want > image->size)
                memset(image->data + image->size, 0, want - image->size);
        image->size = want;
}

static Change *inode_record(Inode *inode, uint64_t offset, const void *data, size_t len)
{
        Change *change = must(malloc(sizeof *change + len));

        *change = (Change){ .is_truncate = !data, .offset = offset, .len = len };
        if (data)
                memcpy(change->data, data, len);
        *inode->tail = change;
        inode->tail = &change->next;
        return change;
}

static void change_play(const Change *change, Inode *inode, MemoryDisk *toss)
{
        if (change->is_truncate) {
                if (!toss || get_random(toss) & 1)
                        resize(&inode->durable, change->offset);
                return;
        }
        for (size_t at = 0; at < change->len;) {
                uint64_t offset = change->offset + at;
                size_t n = MIN(change->len - at, (size_t)(SECTOR - offset % SECTOR));

                if (!toss || get_random(toss) & 1) {
                        if (offset + n > inode->durable.size)
                                resize(&inode->durable, offset + n);
                        memcpy(inode->durable.data + offset, change->data + at, n);
                }
                at += n;
        }
}

static void inode_settle(Inode *inode, MemoryDisk *toss)
{
        while (inode->changes) {
                Change *change = inode->changes;

                inode->changes = change->next;
                change_play(change, inode, toss);
                free(change);
        }
        inode->tail = &inode->changes;
}

/* FNV-1a. */
static uint64_t hash_path(const char *path)
{
        uint64_t hash = UINT64_C(14695981039346656037);

        for (; *path; path++)
                hash = (hash ^ (unsigned char)*path) * UINT64_C(1099511628211);
        return hash;
}

static Name *find_name(MemoryDisk *memory, const char *path)
{
        uint64_t hash = hash_path(path);

        for (size_t i = 0; i < memory->n_names; i++)
                if (memory->names[i].hash == hash && strcmp(memory->names[i].path, path) == 0)
                        return &memory->names[i];
        return NULL;
}

static Inode *find_inode(MemoryDisk *memory, const char *path)
{
        Name *name = find_name(memory, path);

        return name ? name->now : NULL;
}

static Name *get_name(MemoryDisk *memory, const char *path)
{
        Name *name = find_name(memory, path);

        if (name)
                return name;
        memory->names = must(realloc(memory->names, (memory->n_names + 1) * sizeof *memory->names));
        name = &memory->names[memory->n_names++];
        *name = (Name){ .path = must(strdup(path)), .hash = hash_path(path) };
        return name;
}

static bool is_in(const char *path, const char *folder, size_t *ret_name)
{
        size_t len = strlen(folder);

        if (len == 1 && folder[0] == '/')
                len = 0;
        if (strncmp(path, folder, len) != 0 || path[len] != '/' || strchr(path + len + 1, '/'))
                return false;
        *ret_name = len + 1;
        return path[len + 1] != '\0';
}

/* 0; a negative errno; 1 when the call is cut, and half of it may be done. */
static int count(MemoryDisk *memory)
{
        memory->calls++;
        if (memory->cut)
                return -EIO;
        if (memory->cut_call && memory->calls >= memory->cut_call) {
                memory->cut = true;
                return 1;
        }
        if (memory->fail_call && (memory->fail_forever ? memory->calls >= memory->fail_call
                                                       : memory->calls == memory->fail_call))
                return -memory->fail_error;
        return 0;
}

/* For calls that are done or not: a failed one changes nothing. */
static int count_whole(MemoryDisk *memory)
{
        int r = count(memory);

        if (r > 0)
                return -EIO;
        return r;
}

static MemoryDisk *lock_disk(Disk *disk)
{
        MemoryDisk *memory = (MemoryDisk *)disk;

        pthread_mutex_lock(&memory->mutex);
        return memory;
}

static int unlock_disk(MemoryDisk *memory, int r)
{
        pthread_mutex_unlock(&memory->mutex);
        return r;
}

static bool is_stale(MemoryDisk *memory, DiskFile *file)
{
        return ((MemoryFile *)file)->boot != memory->boot || memory->cut;
}

static bool has_folder(MemoryDisk *memory, const char *path)
{
        const char *slash = strrchr(path, '/');
        char folder[512];

        if (!slash || slash == path)
                return true;
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
        return find_inode(memory, folder) == &memory->folder;
}

static int open_inode(MemoryDisk *memory, const char *path, unsigned flags, Inode **ret)
{
        Inode *inode = find_inode(memory, path);
        int r;

        if (inode == &memory->folder)
                return -EISDIR;
        if (inode && (flags & DISK_CREATE) && (flags & DISK_EXCLUSIVE))
                return -EEXIST;
        if (!inode) {
                if (!(flags & DISK_CREATE) || !has_folder(memory, path))
                        return -ENOENT;
                r = count_whole(memory);
                if (r)
                        return r;
                inode = must(calloc(1, sizeof *inode));
                inode->tail = &inode->changes;
                get_name(memory, path)->now = inode_ref(inode);
        }
        *ret = inode;
        return 0;
}

static int memory_open(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        MemoryDisk *memory = lock_disk(disk);
        MemoryFile *file;
        Inode *inode = NULL;
        int r = memory->cut ? -EIO : open_inode(memory, path, flags, &inode);

        if (r)
                return unlock_disk(memory, r);
        file = must(calloc(1, sizeof *file));
        *file = (MemoryFile){ { disk }, inode_ref(inode), memory->boot };
        memory->n_open++;
        memory->n_open_most = MAX(memory->n_open_most, memory->n_open);
        *ret = &file->file;
        return unlock_disk(memory, 0);
}

static void memory_close(DiskFile *file)
{
        MemoryDisk *memory = lock_disk(file->disk);
        MemoryFile *handle = (MemoryFile *)file;

        if (handle->inode->locker == file)
                handle->inode->locker = NULL;
        inode_unref(memory, handle->inode);
        memory->n_open--;
        free(handle);
        unlock_disk(memory, 0);
}

static int memory_read(DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        MemoryDisk *memory = lock_disk(file->disk);
        Inode *inode = ((MemoryFile *)file)->inode;
        size_t n = offset >= inode->now.size ? 0 : MIN(len, inode->now.size - (size_t)offset);

        if (is_stale(memory, file))
                return unlock_disk(memory, -EIO);
        if (n)
                memcpy(data, inode->now.data + offset, n);
        *ret_len = n;
        return unlock_disk(memory, 0);
}

static int write_inode(MemoryDisk *memory, Inode *inode, const void *data, size_t len,
        uint64_t offset, unsigned flags)
{
        int r = count(memory);

        if (offset + len > memory->size_max)
                return -EFBIG;
        if (r)
                len /= 2;
        if (len) {
                if (offset + len > inode->now.size)
                        resize(&inode->now, offset + len);
                memcpy(inode->now.data + offset, data, len);
                inode_record(inode, offset, data, len);
                if (!r && (flags & DISK_DSYNC))
                        inode_settle(inode, NULL);
        }
        return r > 0 ? -EIO : r;
}

static int memory_write(
        DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        MemoryDisk *memory = lock_disk(file->disk);

        if (is_stale(memory, file))
                return unlock_disk(memory, -EIO);
        return unlock_disk(
                memory, write_inode(memory, ((MemoryFile *)file)->inode, data, len, offset, flags));
}

static int memory_truncate(DiskFile *file, uint64_t size)
{
        MemoryDisk *memory = lock_disk(file->disk);
        Inode *inode = ((MemoryFile *)file)->inode;
        int r = is_stale(memory, file)    ? -EIO
                : size > memory->size_max ? -EFBIG
                                          : count_whole(memory);

        if (!r) {
                resize(&inode->now, size);
                inode_record(inode, size, NULL, 0);
        }
        return unlock_disk(memory, r);
}

static int memory_sync(DiskFile *file)
{
        MemoryDisk *memory = lock_disk(file->disk);
        Inode *inode = ((MemoryFile *)file)->inode;
        int r = is_stale(memory, file) ? -EIO : count(memory);

        if (!r)
                inode_settle(inode, NULL);
        return unlock_disk(memory, r > 0 ? -EIO : r);
}

static int memory_allocate(DiskFile *file, uint64_t offset, uint64_t len)
{
        MemoryDisk *memory = lock_disk(file->disk);
        Inode *inode = ((MemoryFile *)file)->inode;
        int r = is_stale(memory, file) ? -EIO : count_whole(memory);

        if (!r && offset + len > inode->now.size) {
                resize(&inode->now, offset + len);
                inode_record(inode, offset + len, NULL, 0);
        }
        return unlock_disk(memory, r);
}

static int memory_get_size(DiskFile *file, uint64_t *ret)
{
        MemoryDisk *memory = lock_disk(file->disk);

        if (is_stale(memory, file))
                return unlock_disk(memory, -EIO);
        *ret = ((MemoryFile *)file)->inode->now.size;
        return unlock_disk(memory, 0);
}

static int memory_lock(DiskFile *file, uint64_t offset, uint64_t len)
{
        MemoryDisk *memory = lock_disk(file->disk);
        Inode *inode = ((MemoryFile *)file)->inode;

        if (inode->locker && inode->locker != file)
                return unlock_disk(memory, -EAGAIN);
        inode->locker = file;
        return unlock_disk(memory, 0);
}

static int memory_submit(Disk *disk, DiskWrite *write)
{
        MemoryDisk *memory = lock_disk(disk);
        DiskWrite **end = &memory->submitted;

        while (*end)
                end = &(*end)->next;
        write->next = NULL;
        *end = write;
        return unlock_disk(memory, 0);
}

/* The write happens here: until then its memory may not be touched, and a cut loses it. */
static int memory_poll(Disk *disk)
{
        MemoryDisk *memory = lock_disk(disk);
        DiskWrite *write = memory->hold ? NULL : TAKE_PTR(memory->submitted);
        int n = 0;

        for (DiskWrite *each = write; each; each = each->next) {
                Inode *inode = ((MemoryFile *)each->file)->inode;

                each->result = is_stale(memory, each->file)
                                       ? -EIO
                                       : write_inode(memory, inode, each->data, each->len,
                                                 each->offset, each->flags);
        }
        unlock_disk(memory, 0);
        while (write) {
                DiskWrite *next = write->next;

                write->fn(write, write->result);
                write = next;
                n++;
        }
        return n;
}

static int memory_stat_size(Disk *disk, const char *path, uint64_t *ret)
{
        MemoryDisk *memory = lock_disk(disk);
        Inode *inode = find_inode(memory, path);
        int r = memory->cut ? -EIO : !inode ? -ENOENT : inode == &memory->folder ? -EISDIR : 0;

        if (!r)
                *ret = inode->now.size;
        return unlock_disk(memory, r);
}

static int memory_mkdir(Disk *disk, const char *path)
{
        MemoryDisk *memory = lock_disk(disk);
        int r = memory->cut                 ? -EIO
                : find_inode(memory, path)  ? -EEXIST
                : !has_folder(memory, path) ? -ENOENT
                                            : count_whole(memory);

        if (!r)
                get_name(memory, path)->now = &memory->folder;
        return unlock_disk(memory, r);
}

static void name_set(MemoryDisk *memory, const char *path, Inode *inode)
{
        Name *name = get_name(memory, path);
        Inode *old = name->now;

        name->now = inode;
        inode_unref(memory, old);
}

static int memory_rename(Disk *disk, const char *from, const char *to)
{
        MemoryDisk *memory = lock_disk(disk);
        Inode *inode = find_inode(memory, from);
        int r = memory->cut ? -EIO : !inode ? -ENOENT : count_whole(memory);

        if (!r) {
                name_set(memory, to, inode_ref(inode));
                name_set(memory, from, NULL);
        }
        return unlock_disk(memory, r);
}

static int memory_unlink(Disk *disk, const char *path)
{
        MemoryDisk *memory = lock_disk(disk);
        int r = memory->cut ? -EIO : !find_inode(memory, path) ? -ENOENT : count_whole(memory);

        if (!r)
                name_set(memory, path, NULL);
        return unlock_disk(memory, r);
}

static int memory_list(Disk *disk, const char *path, DiskListFn fn, void *data)
{
        MemoryDisk *memory = lock_disk(disk);
        size_t at;
        int r = find_inode(memory, path) == &memory->folder ? 0 : -ENOENT;

        for (size_t i = 0; !r && i < memory->n_names; i++)
                if (memory->names[i].now && is_in(memory->names[i].path, path, &at)) {
                        char name[256];

                        snprintf(name, sizeof name, "%s", memory->names[i].path + at);
                        pthread_mutex_unlock(&memory->mutex);
                        r = fn(name, data);
                        pthread_mutex_lock(&memory->mutex);
                }
        return unlock_disk(memory, r);
}

static void name_settle(MemoryDisk *memory, Name *name)
{
        Inode *old = name->durable;

        name->durable = inode_ref(name->now);
        inode_unref(memory, old);
}

static int memory_sync_folder(Disk *disk, const char *path)
{
        MemoryDisk *memory = lock_disk(disk);
        size_t at;
        int r = memory->cut ? -EIO
                : find_inode(memory, path) != &memory->folder && strcmp(path, "/") != 0
                        ? -ENOENT
                        : count_whole(memory);

        for (size_t i = 0; !r && i < memory->n_names; i++)
                if (is_in(memory->names[i].path, path, &at))
                        name_settle(memory, &memory->names[i]);
        return unlock_disk(memory, r);
}

static int memory_sync_all(Disk *disk, const char *path)
{
        MemoryDisk *memory = lock_disk(disk);
        int r = memory->cut ? -EIO : count_whole(memory);

        for (size_t i = 0; !r && i < memory->n_names; i++) {
                name_settle(memory, &memory->names[i]);
                if (memory->names[i].now && memory->names[i].now != &memory->folder)
                        inode_settle(memory->names[i].now, NULL);
        }
        return unlock_disk(memory, r);
}

static uint64_t memory_clock(Disk *disk)
{
        MemoryDisk *memory = lock_disk(disk);
        uint64_t now = memory->now;

        unlock_disk(memory, 0);
        return now;
}

static void memory_random(Disk *disk, void *data, size_t len)
{
        MemoryDisk *memory = lock_disk(disk);

        for (size_t i = 0; i < len; i++)
                ((unsigned char *)data)[i] = (unsigned char)get_random(memory);
        unlock_disk(memory, 0);
}

static const DiskOps memory_ops = {
        .open = memory_open,
        .close = memory_close,
        .read = memory_read,
        .write = memory_write,
        .truncate = memory_truncate,
        .sync = memory_sync,
        .allocate = memory_allocate,
        .get_size = memory_get_size,
        .lock = memory_lock,
        .submit = memory_submit,
        .poll = memory_poll,
        .stat_size = memory_stat_size,
        .mkdir = memory_mkdir,
        .rename = memory_rename,
        .unlink = memory_unlink,
        .list = memory_list,
        .sync_folder = memory_sync_folder,
        .sync_all = memory_sync_all,
        .clock_realtime = memory_clock,
        .clock_monotonic = memory_clock,
        .random = memory_random,
};

MemoryDisk *memory_disk_new(uint64_t seed)
{
        MemoryDisk *memory = must(calloc(1, sizeof *memory));

        memory->disk.ops = &memory_ops;
        pthread_mutex_init(&memory->mutex, NULL);
        memory->random = seed;
        memory->boot = 1;
        memory->size_max = MAX_SIZE;
        memory->now = UINT64_C(1700000000) * 1000000000u;
        return memory;
}

static Inode *copy_inode(MemoryDisk *copy, const MemoryDisk *memory, const Inode *inode)
{
        Inode *new;

        if (inode == &memory->folder)
                return &copy->folder;
        new = must(calloc(1, sizeof *new));
        new->tail = &new->changes;
        new->n_refs = 2;
        resize(&new->now, inode->now.size);
        resize(&new->durable, inode->now.size);
        if (inode->now.size) {
                memcpy(new->now.data, inode->now.data, inode->now.size);
                memcpy(new->durable.data, inode->now.data, inode->now.size);
        }
        return new;
}

MemoryDisk *memory_disk_copy(const MemoryDisk *memory)
{
        MemoryDisk *copy = memory_disk_new(memory->random);

        for (size_t i = 0; i < memory->n_names; i++) {
                Name *name;

                if (!memory->names[i].now)
                        continue;
                name = get_name(copy, memory->names[i].path);
                name->now = name->durable = copy_inode(copy, memory, memory->names[i].now);
        }
        return copy;
}

MemoryDisk *memory_disk_free(MemoryDisk *memory)
{
        dd_assert(memory->n_open == 0);
        for (size_t i = 0; i < memory->n_names; i++) {
                inode_unref(memory, memory->names[i].now);
                inode_unref(memory, memory->names[i].durable);
                free(memory->names[i].path);
        }
        free(memory->names);
        pthread_mutex_destroy(&memory->mutex);
        free(memory);
        return NULL;
}

Disk *memory_disk_get(MemoryDisk *memory)
{
        return &memory->disk;
}

void memory_disk_set_max(MemoryDisk *memory, uint64_t size)
{
        memory->size_max = size;
}

uint64_t memory_disk_get_calls(const MemoryDisk *memory)
{
        return memory->calls;
}

void memory_disk_fail(MemoryDisk *memory, uint64_t call, int error, bool forever)
{
        memory->fail_call = call;
        memory->fail_error = error;
        memory->fail_forever = forever;
}

void memory_disk_cut(MemoryDisk *memory, uint64_t call)
{
        memory->cut_call = call;
}

bool memory_disk_is_cut(const MemoryDisk *memory)
{
        return memory->cut;
}

static void crash_name(MemoryDisk *memory, Name *name, MemoryCrash crash)
{
        bool keep = crash == CRASH_KEEP || (crash == CRASH_TEAR && get_random(memory) & 1);

        if (keep)
                name_settle(memory, name);
        name_set(memory, name->path, inode_ref(name->durable));
}

void memory_disk_crash(MemoryDisk *memory, MemoryCrash crash)
{
        for (size_t i = 0; i < memory->n_names; i++)
                crash_name(memory, &memory->names[i], crash);
        for (size_t i = 0; i < memory->n_names; i++) {
                Inode *inode = memory->names[i].now;

                if (!inode || inode == &memory->folder)
                        continue;
                if (crash == CRASH_DROP)
                        while (inode->changes) {
                                Change *change = inode->changes;

                                inode->changes = change->next;
                                free(change);
                        }
                inode_settle(inode, crash == CRASH_TEAR ? memory : NULL);
                resize(&inode->now, inode->durable.size);
                if (inode->durable.size)
                        memcpy(inode->now.data, inode->durable.data, inode->durable.size);
                inode->locker = NULL;
        }
        memory->submitted = NULL;
        memory->n_open_most = memory->n_open;
        memory->boot++;
        memory->cut = false;
        memory->cut_call = 0;
        memory->fail_call = 0;
}

void memory_disk_hold(MemoryDisk *memory, bool hold)
{
        memory->hold = hold;
}

void memory_disk_advance(MemoryDisk *memory, uint64_t ns)
{
        memory->now += ns;
}

unsigned char *memory_disk_find(MemoryDisk *memory, const char *path, size_t *ret_size)
{
        Inode *inode = find_inode(memory, path);

        if (!inode || inode == &memory->folder)
                return NULL;
        resize(&inode->now, inode->now.size);
        *ret_size = inode->now.size;
        return inode->now.data;
}

size_t memory_disk_get_open(const MemoryDisk *memory)
{
        return memory->n_open;
}

size_t memory_disk_get_open_most(const MemoryDisk *memory)
{
        return memory->n_open_most;
}
