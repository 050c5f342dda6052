/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim-disk.h"

#include "tests/sim/sim-node.h"

#include <errno.h>
#include <stdio.h>

#define RATE_WHOLE 100000u
#define NAME_SIZE 256
#define CLOCK_START_NS 1700000000000000000u
#define OPERATION_NS 20000u
#define SUBMITTED_NS 200000u

typedef enum NameKind { NAME_SET, NAME_REMOVE, NAME_RENAME } NameKind;

/* A change of names that is not safe yet. */
typedef struct NameChange {
        NameKind kind;
        SimNode *from_folder, *to_folder, *node;
        char *from, *to;
        bool chosen;
} NameChange;

typedef struct SimFile {
        DiskFile file;
        SimNode *node;
        unsigned flags;
} SimFile;

typedef struct Submitted {
        DiskWrite *write;
        uint64_t due;
        bool fails;
} Submitted;

struct SimDisk {
        Disk disk;
        SimNode *nodes, *root;
        NameChange *changes;
        size_t n_changes, changes_room;
        Submitted *submitted;
        size_t n_submitted, submitted_room;

        Rng rng, engine_rng;
        uint64_t now;
        uint64_t armed, armed_after;
        SimEvent event;
        unsigned events_left;
        bool dead, full, faulted;
        unsigned rates[_SIM_FAULT_MAX];
        const char *liar;
        bool trace;
        void (*yield)(void *data);
        void *yield_data;
        SimDiskStats stats;
};

static SimDisk *get_sim(Disk *disk)
{
        return (SimDisk *)disk;
}

static SimFile *get_file(DiskFile *file)
{
        return (SimFile *)file;
}

static SimDisk *file_sim(DiskFile *file)
{
        return get_sim(file->disk);
}

static char *duplicate(const char *text)
{
        size_t len = strlen(text) + 1;

        return memcpy(sim_allocate(NULL, len), text, len);
}

static int tell(const SimDisk *sim, const char *what, const char *path, uint64_t offset,
        uint64_t len, int r)
{
        if (sim->trace)
                printf("#     %s %s %llu+%llu: %d\n", what, path, (unsigned long long)offset,
                        (unsigned long long)len, r);
        return r;
}

static void die(SimDisk *sim)
{
        if (sim->dead)
                return;
        sim->dead = true;
        sim->armed = sim->events_left = 0;
        if (sim->n_submitted > 0)
                sim->stats.cuts_in_flight++;
        /* What was under way may have arrived in any part; it is not safe. */
        for (size_t i = 0; i < sim->n_submitted; i++) {
                DiskWrite *write = sim->submitted[i].write;
                unsigned rate =
                        rng_chance(&sim->rng, 500) ? 1000 : (unsigned)rng_below(&sim->rng, 1000);

                for (size_t at = 0; at < write->len; at += SIM_SECTOR)
                        if (rng_chance(&sim->rng, rate))
                                sim_node_write(get_file(write->file)->node,
                                        (const char *)write->data + at,
                                        MIN(write->len - at, (size_t)SIM_SECTOR),
                                        write->offset + at);
        }
}

static void note_event(SimDisk *sim, SimEvent event)
{
        if (sim->events_left > 0 && event == sim->event && --sim->events_left == 0)
                sim->armed = sim->armed_after;
}

/* 0, -EIO when dead, or 1: this is the operation in which the disk dies. */
static int begin_write(SimDisk *sim)
{
        if (sim->yield)
                sim->yield(sim->yield_data);
        if (sim->dead)
                return -EIO;
        sim->now += rng_below(&sim->rng, OPERATION_NS);
        sim->stats.operations++;
        if (sim->armed == 0 || --sim->armed > 0)
                return 0;
        return 1;
}

static int begin(SimDisk *sim)
{
        int r = begin_write(sim);

        if (r <= 0)
                return r;
        die(sim);
        return -EIO;
}

static bool strikes(SimDisk *sim, SimFault fault)
{
        if (sim->rates[fault] == 0 || rng_below(&sim->rng, RATE_WHOLE) >= sim->rates[fault])
                return false;
        sim->stats.faults[fault]++;
        sim->faulted = true;
        return true;
}

/* Whether a file may not grow now. */
static bool is_full(SimDisk *sim, const SimNode *node, uint64_t size)
{
        if (size <= node->now.size)
                return false;
        if (sim->full) {
                sim->stats.faults[SIM_FAULT_FULL]++;
                sim->faulted = true;
                return true;
        }
        return strikes(sim, SIM_FAULT_FULL);
}

static bool is_lied(const SimDisk *sim, const char *path)
{
        return sim->liar && strstr(path, sim->liar) != NULL;
}

/* The folder that holds the last part of the path, which goes to name. */
static int find_folder(SimDisk *sim, const char *path, char name[NAME_SIZE], SimNode **ret)
{
        SimNode *node = sim->root;

        name[0] = 0;
        for (;;) {
                size_t len;

                path += strspn(path, "/");
                len = strcspn(path, "/");
                if (len >= NAME_SIZE)
                        return -ENAMETOOLONG;
                if (len == 0)
                        break;
                if (name[0]) {
                        node = sim_names_find(&node->names_now, name);
                        if (!node)
                                return -ENOENT;
                        if (!node->folder)
                                return -ENOTDIR;
                }
                memcpy(name, path, len);
                name[len] = 0;
                path += len;
        }
        *ret = node;
        return 0;
}

static int find_node(SimDisk *sim, const char *path, SimNode **ret)
{
        char name[NAME_SIZE];
        SimNode *folder, *node;
        int r;

        r = find_folder(sim, path, name, &folder);
        if (r)
                return r;
        node = name[0] ? sim_names_find(&folder->names_now, name) : folder;
        if (!node)
                return -ENOENT;
        *ret = node;
        return 0;
}

static void name_change_apply(const NameChange *change)
{
        if (change->kind == NAME_REMOVE)
                sim_names_remove(&change->from_folder->names_safe, change->from);
        if (change->kind == NAME_RENAME &&
                sim_names_find(&change->from_folder->names_safe, change->from) == change->node)
                sim_names_remove(&change->from_folder->names_safe, change->from);
        if (change->kind != NAME_REMOVE)
                sim_names_set(&change->to_folder->names_safe, change->to, change->node);
}

static void name_change_add(SimDisk *sim, NameChange change)
{
        if (sim->n_changes == sim->changes_room) {
                sim->changes_room = MAX(sim->changes_room * 2, (size_t)16);
                sim->changes = sim_allocate(sim->changes, sim->changes_room * sizeof *sim->changes);
        }
        change.from = change.from ? duplicate(change.from) : NULL;
        change.to = change.to ? duplicate(change.to) : NULL;
        sim->changes[sim->n_changes++] = change;
        if (change.from)
                sim_names_remove(&change.from_folder->names_now, change.from);
        if (change.to)
                sim_names_set(&change.to_folder->names_now, change.to, change.node);
}

/* The chosen ones are safe, in their order. */
static void name_changes_settle(SimDisk *sim)
{
        size_t kept = 0;

        for (size_t i = 0; i < sim->n_changes; i++) {
                NameChange *change = &sim->changes[i];

                if (!change->chosen) {
                        sim->changes[kept++] = *change;
                        continue;
                }
                name_change_apply(change);
                free(change->from);
                free(change->to);
        }
        sim->n_changes = kept;
}

static void sync_names(SimDisk *sim, const SimNode *folder)
{
        for (size_t i = 0; i < sim->n_changes; i++) {
                NameChange *change = &sim->changes[i];

                change->chosen =
                        !folder || change->from_folder == folder || change->to_folder == folder;
                /* What the same file was named before is part of it. */
                for (size_t j = 0; change->chosen && j < i; j++)
                        if (sim->changes[j].node == change->node)
                                sim->changes[j].chosen = true;
        }
        name_changes_settle(sim);
}

static SimNode *add_node(SimDisk *sim, const char *path, bool folder)
{
        SimNode *node = sim_node_new(path, folder);

        node->next = sim->nodes;
        sim->nodes = node;
        return node;
}

static int sim_open(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        SimDisk *sim = get_sim(disk);
        char name[NAME_SIZE];
        SimNode *folder, *node;
        SimFile *file;
        int r;

        r = begin(sim);
        if (r)
                return r;
        if (strikes(sim, SIM_FAULT_NAMES))
                return -EIO;
        r = find_folder(sim, path, name, &folder);
        if (r)
                return r;
        node = sim_names_find(&folder->names_now, name);
        if (node && node->folder)
                return -EISDIR;
        if (node && (flags & DISK_CREATE) && (flags & DISK_EXCLUSIVE))
                return -EEXIST;
        if (!node) {
                if (!(flags & DISK_CREATE))
                        return -ENOENT;
                if (sim->full || strikes(sim, SIM_FAULT_FULL)) {
                        sim->faulted = true;
                        return -ENOSPC;
                }
                node = add_node(sim, path, false);
                tell(sim, "create", path, 0, 0, 0);
                name_change_add(sim,
                        (NameChange){
                                .kind = NAME_SET, .to_folder = folder, .to = name, .node = node });
        }
        file = sim_allocate(NULL, sizeof *file);
        *file = (SimFile){ .file.disk = disk, .node = node, .flags = flags };
        node->handles++;
        *ret = &file->file;
        return 0;
}

static void sim_close(DiskFile *file)
{
        SimFile *f = get_file(file);

        f->node->handles--;
        if (f->node->lock_owner == f)
                f->node->lock_owner = NULL;
        free(f);
}

static bool is_aligned(const SimFile *file, const void *data, size_t len, uint64_t offset)
{
        return !(file->flags & DISK_DIRECT) ||
               ((uintptr_t)data % DISK_BLOCK == 0 && len % DISK_BLOCK == 0 &&
                       offset % DISK_BLOCK == 0);
}

static int sim_read(DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        SimNode *node = get_file(file)->node;
        size_t n;
        int r;

        r = begin(file_sim(file));
        if (r)
                return r;
        if (!is_aligned(get_file(file), data, len, offset))
                return -EINVAL;
        if (strikes(file_sim(file), SIM_FAULT_READ))
                return -EIO;
        n = offset < node->now.size ? MIN(len, node->now.size - offset) : 0;
        if (n > 0)
                memcpy(data, node->now.data + offset, n);
        *ret_len = n;
        return 0;
}

static void write_part(SimDisk *sim, SimNode *node, const void *data, size_t len, uint64_t offset)
{
        sim_node_write(node, data, rng_below(&sim->rng, len + 1), offset);
}

static int do_write(DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        SimDisk *sim = file_sim(file);
        SimNode *node = get_file(file)->node;
        int r;

        r = begin_write(sim);
        if (r > 0) {
                write_part(sim, node, data, len, offset);
                die(sim);
        }
        if (r)
                return -EIO;
        if (get_file(file)->flags & DISK_READ_ONLY)
                return -EBADF;
        if (!is_aligned(get_file(file), data, len, offset))
                return -EINVAL;
        r = is_full(sim, node, offset + len) ? -ENOSPC : strikes(sim, SIM_FAULT_WRITE) ? -EIO : 0;
        if (r) {
                write_part(sim, node, data, len, offset);
                return r;
        }
        sim_node_write(node, data, len, offset);
        note_event(sim, SIM_EVENT_WRITE);
        if (!(flags & DISK_DSYNC))
                return 0;
        if (strikes(sim, SIM_FAULT_SYNC)) {
                sim_node_lose_sync(node, &sim->rng);
                return -EIO;
        }
        if (!is_lied(sim, node->path))
                sim_node_sync_range(node, offset, len);
        return 0;
}

static int sim_write(DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        return tell(file_sim(file), flags & DISK_DSYNC ? "write, dsync" : "write",
                get_file(file)->node->path, offset, len, do_write(file, data, len, offset, flags));
}

static int sim_truncate(DiskFile *file, uint64_t size)
{
        SimDisk *sim = file_sim(file);
        SimNode *node = get_file(file)->node;
        int r;

        r = begin(sim);
        if (r)
                return r;
        if (get_file(file)->flags & DISK_READ_ONLY)
                return -EBADF;
        if (strikes(sim, SIM_FAULT_WRITE))
                return -EIO;
        note_event(sim, SIM_EVENT_TRUNCATE);
        if (size != node->now.size)
                sim_node_truncate(node, size);
        return tell(sim, "truncate", node->path, 0, size, 0);
}

static int sim_sync(DiskFile *file)
{
        SimDisk *sim = file_sim(file);
        SimNode *node = get_file(file)->node;
        int r;

        r = begin(sim);
        if (r)
                return r;
        note_event(sim, SIM_EVENT_SYNC);
        if (strikes(sim, SIM_FAULT_SYNC)) {
                sim_node_lose_sync(node, &sim->rng);
                return tell(sim, "sync", node->path, 0, 0, -EIO);
        }
        if (!is_lied(sim, node->path))
                sim_node_sync(node);
        return tell(sim, "sync", node->path, 0, 0, 0);
}

static int sim_file_allocate(DiskFile *file, uint64_t offset, uint64_t len)
{
        SimDisk *sim = file_sim(file);
        SimNode *node = get_file(file)->node;
        int r;

        r = begin(sim);
        if (r)
                return r;
        r = is_full(sim, node, offset + len) ? -ENOSPC : strikes(sim, SIM_FAULT_WRITE) ? -EIO : 0;
        if (!r)
                sim_node_grow(node, offset + len);
        return r;
}

static int sim_get_size(DiskFile *file, uint64_t *ret)
{
        int r;

        r = begin(file_sim(file));
        if (r)
                return r;
        *ret = get_file(file)->node->now.size;
        return 0;
}

static int sim_lock(DiskFile *file, uint64_t offset, uint64_t len)
{
        SimNode *node = get_file(file)->node;
        int r;

        r = begin(file_sim(file));
        if (r)
                return r;
        if (node->lock_owner && node->lock_owner != file)
                return -EAGAIN;
        node->lock_owner = file;
        return 0;
}

static int sim_submit(Disk *disk, DiskWrite *write)
{
        SimDisk *sim = get_sim(disk);
        SimFile *file = get_file(write->file);
        int r;

        r = begin(sim);
        if (r)
                return r;
        if (!is_aligned(file, write->data, write->len, write->offset))
                return -EINVAL;
        if (strikes(sim, SIM_FAULT_SUBMIT))
                return -EIO;
        if (sim->n_submitted == sim->submitted_room) {
                sim->submitted_room = MAX(sim->submitted_room * 2, (size_t)8);
                sim->submitted =
                        sim_allocate(sim->submitted, sim->submitted_room * sizeof *sim->submitted);
        }
        if (write->offset == 0)
                note_event(sim, SIM_EVENT_SEGMENT);
        sim->submitted[sim->n_submitted++] = (Submitted){ .write = write,
                .due = sim->now + rng_below(&sim->rng, SUBMITTED_NS),
                .fails = strikes(sim, SIM_FAULT_SUBMIT) };
        return 0;
}

static int end_submitted(SimDisk *sim, const Submitted *submitted)
{
        DiskWrite *write = submitted->write;
        SimNode *node = get_file(write->file)->node;
        bool full = is_full(sim, node, write->offset + write->len);

        if (full || submitted->fails) {
                write_part(sim, node, write->data, write->len, write->offset);
                return full ? -ENOSPC : -EIO;
        }
        sim_node_write(node, write->data, write->len, write->offset);
        if ((write->flags & DISK_DSYNC) && strikes(sim, SIM_FAULT_SYNC)) {
                sim_node_lose_sync(node, &sim->rng);
                return -EIO;
        }
        if ((write->flags & DISK_DSYNC) && !is_lied(sim, node->path))
                sim_node_sync_range(node, write->offset, write->len);
        return 0;
}

static int sim_poll(Disk *disk)
{
        SimDisk *sim = get_sim(disk);
        size_t i = 0;
        int told = 0;

        while (i < sim->n_submitted) {
                Submitted one = sim->submitted[i];
                int r;

                if (!sim->dead && one.due > sim->now) {
                        i++;
                        continue;
                }
                memmove(&sim->submitted[i], &sim->submitted[i + 1],
                        (--sim->n_submitted - i) * sizeof one);
                r = sim->dead ? -EIO : end_submitted(sim, &one);
                tell(sim, "submitted", get_file(one.write->file)->node->path, one.write->offset,
                        one.write->len, r);
                one.write->fn(one.write, r);
                told++;
        }
        return told;
}

static int sim_stat_size(Disk *disk, const char *path, uint64_t *ret)
{
        SimNode *node;
        int r;

        r = begin(get_sim(disk));
        if (!r)
                r = find_node(get_sim(disk), path, &node);
        if (r)
                return r;
        if (node->folder)
                return -EISDIR;
        *ret = node->now.size;
        return 0;
}

static int begin_names(SimDisk *sim)
{
        int r = begin(sim);

        return r ? r : strikes(sim, SIM_FAULT_NAMES) ? -EIO : 0;
}

static int sim_mkdir(Disk *disk, const char *path)
{
        SimDisk *sim = get_sim(disk);
        char name[NAME_SIZE];
        SimNode *folder;
        int r;

        r = begin_names(sim);
        if (!r)
                r = find_folder(sim, path, name, &folder);
        if (r)
                return r;
        if (!name[0] || sim_names_find(&folder->names_now, name))
                return -EEXIST;
        if (sim->full) {
                sim->faulted = true;
                return -ENOSPC;
        }
        name_change_add(sim, (NameChange){ .kind = NAME_SET,
                                     .to_folder = folder,
                                     .to = name,
                                     .node = add_node(sim, path, true) });
        note_event(sim, SIM_EVENT_MKDIR);
        return tell(sim, "mkdir", path, 0, 0, 0);
}

static int sim_rename(Disk *disk, const char *from, const char *to)
{
        SimDisk *sim = get_sim(disk);
        char from_name[NAME_SIZE], to_name[NAME_SIZE];
        SimNode *from_folder, *to_folder, *node;
        int r;

        r = begin_names(sim);
        if (!r)
                r = find_folder(sim, from, from_name, &from_folder);
        if (!r)
                r = find_folder(sim, to, to_name, &to_folder);
        if (r)
                return r;
        node = sim_names_find(&from_folder->names_now, from_name);
        if (!node)
                return -ENOENT;
        name_change_add(sim, (NameChange){ .kind = NAME_RENAME,
                                     .from_folder = from_folder,
                                     .from = from_name,
                                     .to_folder = to_folder,
                                     .to = to_name,
                                     .node = node });
        free(node->path);
        node->path = duplicate(to);
        note_event(sim, SIM_EVENT_RENAME);
        return tell(sim, "rename", from, 0, 0, 0);
}

static int sim_unlink(Disk *disk, const char *path)
{
        SimDisk *sim = get_sim(disk);
        char name[NAME_SIZE];
        SimNode *folder, *node;
        int r;

        r = begin_names(sim);
        if (!r)
                r = find_folder(sim, path, name, &folder);
        if (r)
                return r;
        node = sim_names_find(&folder->names_now, name);
        if (!node)
                return -ENOENT;
        if (node->folder)
                return -EISDIR;
        name_change_add(sim,
                (NameChange){
                        .kind = NAME_REMOVE, .from_folder = folder, .from = name, .node = node });
        note_event(sim, SIM_EVENT_UNLINK);
        return tell(sim, "unlink", path, 0, 0, 0);
}

static int sim_list(Disk *disk, const char *path, DiskListFn fn, void *data)
{
        SimNode *folder;
        SimNames names = { 0 };
        int r;

        r = begin_names(get_sim(disk));
        if (!r)
                r = find_node(get_sim(disk), path, &folder);
        if (r)
                return r;
        if (!folder->folder)
                return -ENOTDIR;
        /* fn may remove what it is told. */
        sim_names_copy(&names, &folder->names_now);
        for (size_t i = 0; !r && i < names.n; i++)
                r = fn(names.names[i].name, data);
        sim_names_copy(&names, &(SimNames){ 0 });
        return r;
}

static int sim_sync_folder(Disk *disk, const char *path)
{
        SimDisk *sim = get_sim(disk);
        SimNode *folder;
        int r;

        r = begin_names(sim);
        if (!r)
                r = find_node(sim, path, &folder);
        if (r)
                return r;
        if (!folder->folder)
                return -ENOTDIR;
        if (!is_lied(sim, path))
                sync_names(sim, folder);
        return tell(sim, "sync_folder", path, 0, 0, 0);
}

static int sim_sync_all(Disk *disk, const char *path)
{
        SimDisk *sim = get_sim(disk);
        bool fails;
        int r;

        r = begin(sim);
        if (r)
                return r;
        fails = strikes(sim, SIM_FAULT_SYNC);
        for (SimNode *node = sim->nodes; node; node = node->next) {
                if (fails && rng_chance(&sim->rng, 500))
                        sim_node_lose_sync(node, &sim->rng);
                else if (!is_lied(sim, node->path))
                        sim_node_sync(node);
        }
        if (fails)
                return -EIO;
        sync_names(sim, NULL);
        return tell(sim, "sync_all", path, 0, 0, 0);
}

static uint64_t sim_clock_realtime(Disk *disk)
{
        return CLOCK_START_NS + get_sim(disk)->now;
}

static uint64_t sim_clock_monotonic(Disk *disk)
{
        return get_sim(disk)->now;
}

static void sim_random(Disk *disk, void *data, size_t len)
{
        rng_fill(&get_sim(disk)->engine_rng, data, len);
}

static const DiskOps sim_ops = {
        .open = sim_open,
        .close = sim_close,
        .read = sim_read,
        .write = sim_write,
        .truncate = sim_truncate,
        .sync = sim_sync,
        .allocate = sim_file_allocate,
        .get_size = sim_get_size,
        .lock = sim_lock,
        .submit = sim_submit,
        .poll = sim_poll,
        .stat_size = sim_stat_size,
        .mkdir = sim_mkdir,
        .rename = sim_rename,
        .unlink = sim_unlink,
        .list = sim_list,
        .sync_folder = sim_sync_folder,
        .sync_all = sim_sync_all,
        .clock_realtime = sim_clock_realtime,
        .clock_monotonic = sim_clock_monotonic,
        .random = sim_random,
};

int sim_disk_new(uint64_t seed, SimDisk **ret)
{
        SimDisk *sim = sim_allocate(NULL, sizeof *sim);

        *sim = (SimDisk){ .disk.ops = &sim_ops, .rng = { seed }, .now = 1 };
        sim->engine_rng = rng_fork(&sim->rng);
        sim->root = add_node(sim, "/", true);
        *ret = sim;
        return 0;
}

static void forget_names(SimDisk *sim)
{
        for (size_t i = 0; i < sim->n_changes; i++) {
                free(sim->changes[i].from);
                free(sim->changes[i].to);
        }
        sim->n_changes = 0;
}

SimDisk *sim_disk_free(SimDisk *sim)
{
        if (!sim)
                return NULL;
        forget_names(sim);
        while (sim->nodes) {
                SimNode *node = sim->nodes;

                sim->nodes = node->next;
                sim_node_free(node);
        }
        free(sim->changes);
        free(sim->submitted);
        free(sim);
        return NULL;
}

Disk *sim_disk_get(SimDisk *sim)
{
        return &sim->disk;
}

const SimDiskStats *sim_disk_get_stats(const SimDisk *sim)
{
        return &sim->stats;
}

const char *sim_fault_get_name(SimFault fault)
{
        static const char *const names[_SIM_FAULT_MAX] = {
                [SIM_FAULT_READ] = "read",
                [SIM_FAULT_WRITE] = "write",
                [SIM_FAULT_SYNC] = "sync",
                [SIM_FAULT_FULL] = "full",
                [SIM_FAULT_NAMES] = "names",
                [SIM_FAULT_SUBMIT] = "submit",
        };

        return names[fault];
}

void sim_disk_set_yield(SimDisk *sim, void (*yield)(void *data), void *data)
{
        sim->yield = yield;
        sim->yield_data = data;
}

void sim_disk_set_fault(SimDisk *sim, SimFault fault, unsigned rate)
{
        sim->rates[fault] = rate;
}

void sim_disk_set_trace(SimDisk *sim, bool trace)
{
        sim->trace = trace;
}

void sim_disk_set_full(SimDisk *sim, bool full)
{
        sim->full = full;
}

void sim_disk_set_liar(SimDisk *sim, const char *pattern)
{
        sim->liar = pattern;
}

bool sim_disk_take_faulted(SimDisk *sim)
{
        return TAKE(sim->faulted, false);
}

void sim_disk_arm(SimDisk *sim, uint64_t n)
{
        sim->armed = n;
}

void sim_disk_arm_at(SimDisk *sim, SimEvent event, unsigned k, uint64_t n)
{
        sim->event = event;
        sim->events_left = k;
        sim->armed_after = n;
}

void sim_disk_cut(SimDisk *sim)
{
        die(sim);
}

bool sim_disk_is_dead(const SimDisk *sim)
{
        return sim->dead;
}

/* Of the changes of names any part is kept; now and then a beginning. */
static void cut_names(SimDisk *sim)
{
        static const unsigned rates[] = { 0, 100, 500, 900, 1000 };
        unsigned rate = rates[rng_below(&sim->rng, ELEMENTSOF(rates))];
        size_t end =
                rng_chance(&sim->rng, 300) ? rng_below(&sim->rng, sim->n_changes + 1) : SIZE_MAX;

        for (size_t i = 0; i < sim->n_changes; i++) {
                NameChange *change = &sim->changes[i];

                change->chosen = end != SIZE_MAX ? i < end : rng_chance(&sim->rng, rate);
                if (!change->chosen)
                        sim->stats.names_lost++;
        }
        name_changes_settle(sim);
        forget_names(sim);
}

static void mark_reached(SimNode *folder)
{
        folder->reached = true;
        for (size_t i = 0; i < folder->names_now.n; i++) {
                SimNode *node = folder->names_now.names[i].node;

                if (node->folder && !node->reached)
                        mark_reached(node);
                node->reached = true;
        }
}

static void cut_power(SimDisk *sim)
{
        SimLosses losses = { 0 };
        SimNode **place = &sim->nodes;

        cut_names(sim);
        for (SimNode *node = sim->nodes; node; node = node->next) {
                sim_node_cut(node, &sim->rng, &losses);
                sim_names_copy(&node->names_now, &node->names_safe);
                node->reached = false;
        }
        mark_reached(sim->root);
        while (*place) {
                SimNode *node = *place;

                if (node->reached) {
                        place = &node->next;
                        continue;
                }
                *place = node->next;
                sim_node_free(node);
        }
        sim->stats.cuts_dirty += losses.lost + losses.kept > 0;
        sim->stats.sectors_lost += losses.lost;
        sim->stats.sectors_kept += losses.kept;
        sim->stats.sectors_garbled += losses.garbled;
}

int sim_disk_crash(SimDisk *sim, SimCrash how)
{
        die(sim);
        for (SimNode *node = sim->nodes; node; node = node->next)
                if (node->handles > 0) {
                        fprintf(stderr, "# still open: %s\n", node->path);
                        return -EBUSY;
                }
        sim->n_submitted = 0;
        if (how == SIM_CRASH_POWER)
                cut_power(sim);
        sim->dead = false;
        sim->faulted = false;
        return 0;
}

void sim_disk_pass(SimDisk *sim, uint64_t ns)
{
        sim->now += ns;
}

unsigned sim_disk_count_in_flight(const SimDisk *sim)
{
        return (unsigned)sim->n_submitted;
}

int sim_disk_peek(SimDisk *sim, const char *path, Slice *ret)
{
        SimNode *node;
        int r;

        r = find_node(sim, path, &node);
        if (r)
                return r;
        *ret = slice_of(node->now.data, node->now.size);
        return 0;
}

int sim_disk_damage(SimDisk *sim, const char *path, uint64_t offset, size_t len)
{
        SimNode *node;
        int r;

        r = find_node(sim, path, &node);
        if (r)
                return r;
        if (offset + len > node->now.size || offset + len > node->safe.size)
                return -ERANGE;
        rng_fill(&sim->rng, node->now.data + offset, len);
        memcpy(node->safe.data + offset, node->now.data + offset, len);
        return 0;
}
