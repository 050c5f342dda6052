/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include <errno.h>
#include <sys/mman.h>

/*
 * The wal-index in heap: regions, locks, and what the engine itself does in it
 *
 * SQLite's "WAL-mode File Format", 2: two copies of a header of 48 bytes, then the checkpoint info.
 * The engine acts there as one more connection would: it takes the same locks (all lock operations
 * pass by the node's mutex), and reads and writes the same words with atomic operations. SQLite
 * itself never checkpoints: its request for the CKPT lock alone is refused.
 */

#define AT_MAX_FRAME 16
#define AT_N_PAGES 20
#define AT_SALT 32
#define AT_CHECKSUM 40
#define HEADER_SIZE 48
#define AT_BACKFILL 96
#define AT_READ_MARKS 100
#define AT_ATTEMPTED 128
#define N_READERS 5
#define MARK_UNUSED UINT32_MAX
#define MAX_REGIONS 65536
#define KEPT_OF_FIRST 4096

enum { LOCK_WRITE = 0, LOCK_CKPT = 1, LOCK_RECOVER = 2, LOCK_READ = 3 };

static uint32_t load_word(const unsigned char *at)
{
        return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_ACQUIRE);
}

static void store_word(unsigned char *at, uint32_t value)
{
        __atomic_store_n((uint32_t *)(void *)at, value, __ATOMIC_RELEASE);
}

static void load_header(const unsigned char *at, uint32_t out[HEADER_SIZE / 4])
{
        for (int i = 0; i < HEADER_SIZE / 4; i++)
                out[i] = load_word(at + 4 * (ptrdiff_t)i);
}

/* The checksum of the header's first 40 bytes, over words in the machine's own order. */
static void sum_header(const uint32_t words[HEADER_SIZE / 4], uint32_t out[2])
{
        uint32_t a = 0, b = 0;

        for (int i = 0; i < AT_CHECKSUM / 4; i += 2) {
                a += words[i] + b;
                b += words[i + 1] + a;
        }
        out[0] = a;
        out[1] = b;
}

static bool read_words(const Node *node, uint32_t words[HEADER_SIZE / 4])
{
        uint32_t second[HEADER_SIZE / 4], sum[2];

        if (!node->n_regions)
                return false;
        load_header(node->regions[0], words);
        load_header(node->regions[0] + HEADER_SIZE, second);
        sum_header(words, sum);
        return memcmp(words, second, sizeof second) == 0 && words[AT_CHECKSUM / 4] == sum[0] &&
               words[AT_CHECKSUM / 4 + 1] == sum[1];
}

bool wal_index_read(const Node *node, WalIndex *ret)
{
        uint32_t words[HEADER_SIZE / 4];

        if (!read_words(node, words))
                return false;
        *ret = (WalIndex){
                .max_frame = words[AT_MAX_FRAME / 4],
                .n_pages = words[AT_N_PAGES / 4],
                .salt = { words[AT_SALT / 4], words[AT_SALT / 4 + 1] },
                .backfilled = load_word(node->regions[0] + AT_BACKFILL),
        };
        return true;
}

uint32_t wal_index_get_safe(Node *node, uint32_t max_frame)
{
        uint32_t safe = max_frame;

        for (int i = 1; i < N_READERS; i++) {
                unsigned char *at = node->regions[0] + AT_READ_MARKS + 4 * (ptrdiff_t)i;
                uint32_t mark = load_word(at);

                if (safe <= mark)
                        continue;
                if (node->locks[LOCK_READ + i] == 0)
                        store_word(at, i == 1 ? safe : MARK_UNUSED);
                else
                        safe = mark;
        }
        return safe;
}

void wal_index_set_backfilled(Node *node, uint32_t frame)
{
        store_word(node->regions[0] + AT_ATTEMPTED, frame);
        store_word(node->regions[0] + AT_BACKFILL, frame);
}

/* The tables of frames, which SQLite clears before it fills them: their memory is not needed until
 * then. The header's page stays. */
static void give_back(Node *node)
{
        for (int i = 0; i < node->n_regions; i++) {
                size_t keep = i ? 0 : KEPT_OF_FIRST;

                madvise(node->regions[i] + keep, SHM_REGION_SIZE - keep, MADV_DONTNEED);
        }
}

bool wal_index_restart(Node *node)
{
        uint32_t words[HEADER_SIZE / 4];
        unsigned char *base;

        if (node->locks[LOCK_WRITE] || node->locks[LOCK_RECOVER] || node->locks[LOCK_CKPT])
                return false;
        for (int i = 0; i < N_READERS; i++)
                if (node->locks[LOCK_READ + i] < 0 || (i > 0 && node->locks[LOCK_READ + i]))
                        return false;
        if (!read_words(node, words))
                return false;
        base = node->regions[0];
        words[AT_MAX_FRAME / 4] = 0;
        /* Salt 1 is a big-endian number and counts up; salt 2 is drawn. */
        words[AT_SALT / 4] = htobe32(be32toh(words[AT_SALT / 4]) + 1);
        disk_random(node->store->disk, &words[AT_SALT / 4 + 1], 4);
        sum_header(words, words + AT_CHECKSUM / 4);
        for (int i = 0; i < HEADER_SIZE / 4; i++)
                store_word(base + HEADER_SIZE + 4 * (ptrdiff_t)i, words[i]);
        for (int i = 0; i < HEADER_SIZE / 4; i++)
                store_word(base + 4 * (ptrdiff_t)i, words[i]);
        store_word(base + AT_BACKFILL, 0);
        store_word(base + AT_ATTEMPTED, 0);
        store_word(base + AT_READ_MARKS + 4, 0);
        for (int i = 2; i < N_READERS; i++)
                store_word(base + AT_READ_MARKS + 4 * (ptrdiff_t)i, MARK_UNUSED);
        give_back(node);
        return true;
}

void wal_index_drop(Node *node)
{
        for (int i = 0; i < node->n_regions; i++)
                munmap(node->regions[i], SHM_REGION_SIZE);
        free(node->regions);
        node->regions = NULL;
        node->n_regions = 0;
}

static int add_region(Node *node)
{
        unsigned char **regions;
        void *region;

        if (node->n_regions == MAX_REGIONS)
                return SQLITE_FULL;
        regions = realloc(node->regions, ((size_t)node->n_regions + 1) * sizeof *regions);
        if (!regions)
                return SQLITE_IOERR_NOMEM;
        node->regions = regions;
        region = mmap(
                NULL, SHM_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (region == MAP_FAILED)
                return SQLITE_IOERR_NOMEM;
        node->regions[node->n_regions++] = region;
        return SQLITE_OK;
}

int shm_map(sqlite3_file *base, int region, int size, int extend, void volatile **ret)
{
        DurableFile *file = (DurableFile *)base;
        Node *node = file->node;
        int rc = SQLITE_OK;

        *ret = NULL;
        if (size != SHM_REGION_SIZE || region < 0)
                return SQLITE_IOERR_SHMMAP;
        node_lock(node);
        file->has_shm = true;
        while (extend && rc == SQLITE_OK && node->n_regions <= region)
                rc = add_region(node);
        if (rc == SQLITE_OK && region < node->n_regions)
                *ret = node->regions[region];
        node_unlock(node);
        return rc;
}

/* Of the log; READ0 means the file alone. */
static bool has_readers(const Node *node)
{
        for (int i = 1; i < N_READERS; i++)
                if (node->locks[LOCK_READ + i])
                        return true;
        return false;
}

static void unlock_bits(DurableFile *file, unsigned bits)
{
        Node *node = file->node;

        for (int i = 0; i < SHM_N_LOCKS; i++) {
                if (!(bits >> i & 1))
                        continue;
                if (file->exclusive >> i & 1)
                        node->locks[i] = 0;
                else if (file->shared >> i & 1)
                        node->locks[i]--;
        }
        file->exclusive &= (unsigned char)~bits;
        file->shared &= (unsigned char)~bits;
        if (!node->txn_first && !has_readers(node))
                node_drop_pages(node);
}

static int lock_shared(DurableFile *file, int at)
{
        Node *node = file->node;

        if (file->shared >> at & 1)
                return SQLITE_OK;
        if (node->locks[at] < 0)
                return SQLITE_BUSY;
        node->locks[at]++;
        file->shared |= (unsigned char)(1u << at);
        return SQLITE_OK;
}

static int lock_exclusive(DurableFile *file, int offset, int n)
{
        Node *node = file->node;

        /* CKPT alone is a checkpoint, which is the background's; with RECOVER it is the first look
         * at a log. */
        if (offset == LOCK_CKPT && n == 1)
                return SQLITE_BUSY;
        for (int i = offset; i < offset + n; i++)
                if (node->locks[i] && !(file->exclusive >> i & 1))
                        return SQLITE_BUSY;
        for (int i = offset; i < offset + n; i++) {
                node->locks[i] = -1;
                file->exclusive |= (unsigned char)(1u << i);
        }
        return SQLITE_OK;
}

int shm_lock(sqlite3_file *base, int offset, int n, int flags)
{
        DurableFile *file = (DurableFile *)base;
        Node *node = file->node;
        unsigned bits = (1u << (offset + n)) - (1u << offset);
        bool settled = false;
        int rc = SQLITE_OK;

        if (flags == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) && !file->shared && !file->exclusive &&
                atomic_load(&node->captured) >= node->long_log)
                node_wait_for_end(node);
        node_lock(node);
        if (flags & SQLITE_SHM_UNLOCK) {
                settled = bits & file->exclusive & 1u << LOCK_WRITE;
                if (settled)
                        capture_settle(node);
                unlock_bits(file, bits);
        } else if (flags & SQLITE_SHM_SHARED) {
                rc = lock_shared(file, offset);
        } else {
                rc = lock_exclusive(file, offset, n);
        }
        node_unlock(node);
        if (settled)
                journal_wake(node->store);
        return rc;
}

void shm_barrier(sqlite3_file *file)
{
        atomic_thread_fence(memory_order_seq_cst);
}

int shm_unmap(sqlite3_file *base, int delete)
{
        DurableFile *file = (DurableFile *)base;
        Node *node = file->node;

        bool settled;

        node_lock(node);
        settled = file->exclusive & 1u << LOCK_WRITE;
        if (settled)
                capture_settle(node);
        unlock_bits(file, (1u << SHM_N_LOCKS) - 1);
        file->has_shm = false;
        node_unlock(node);
        if (settled)
                journal_wake(node->store);
        return SQLITE_OK;
}
