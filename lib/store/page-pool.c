/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/page-pool.h"

#include "lib/base/list.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A chunk is as long as it is aligned, so that a page leads to it; it begins with its own page. */
#define CHUNK_SIZE (256u << 10)
#define CHUNK_PAGES (CHUNK_SIZE / POOL_PAGE_SIZE)
#define ALL_FREE (~UINT64_C(1))
#define KEPT_MAX 16u

/* With AddressSanitizer each page is on its own: a use after it was dropped is noticed. */
#ifdef __SANITIZE_ADDRESS__
#define IS_POOLED(_size) ((void)(_size), 0)
#else
#define IS_POOLED(_size) ((_size) == POOL_PAGE_SIZE)
#endif

typedef struct Chunk {
        List link;     /* of those with a free page */
        uint64_t free; /* bit i: page i */
} Chunk;

_Static_assert(CHUNK_PAGES == 64, "a chunk's pages are the bits of a word");

/* Those that were full last come first, empty ones last. */
static List chunks = { &chunks, &chunks };
static unsigned n_empty;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* With its end or beginning cut off, so that it is aligned. */
static Chunk *chunk_new(void)
{
        unsigned char *base = mmap(NULL, (size_t)2 * CHUNK_SIZE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        size_t before;
        Chunk *chunk;

        if (base == MAP_FAILED)
                return NULL;
        before = -(uintptr_t)base % CHUNK_SIZE;
        if (before)
                munmap(base, before);
        munmap(base + before + CHUNK_SIZE, CHUNK_SIZE - before);
        chunk = (Chunk *)(void *)(base + before);
        chunk->free = ALL_FREE;
        list_init(&chunk->link);
        return chunk;
}

static void chunk_free(Chunk *chunk)
{
        list_unlink(&chunk->link);
        n_empty--;
        munmap(chunk, CHUNK_SIZE);
}

static Chunk *find_chunk(void)
{
        List *link = list_first(&chunks);
        Chunk *chunk;

        if (link)
                return list_entry(link, Chunk, link);
        chunk = chunk_new();
        if (chunk) {
                list_append(&chunks, &chunk->link);
                n_empty++;
        }
        return chunk;
}

void *page_pool_get(size_t size)
{
        unsigned char *page = NULL;
        Chunk *chunk;

        if (!IS_POOLED(size))
                return malloc(size);
        pthread_mutex_lock(&mutex);
        chunk = find_chunk();
        if (chunk) {
                n_empty -= chunk->free == ALL_FREE;
                page = (unsigned char *)chunk +
                       (size_t)__builtin_ctzll(chunk->free) * POOL_PAGE_SIZE;
                chunk->free &= chunk->free - 1;
                if (!chunk->free)
                        list_unlink(&chunk->link);
        }
        pthread_mutex_unlock(&mutex);
        return page;
}

void page_pool_put(void *page, size_t size)
{
        size_t within = (uintptr_t)page % CHUNK_SIZE;
        uint64_t bit = UINT64_C(1) << within / POOL_PAGE_SIZE;
        Chunk *chunk;

        if (!page || !IS_POOLED(size)) {
                free(page);
                return;
        }
        chunk = (Chunk *)(void *)((unsigned char *)page - within);
        pthread_mutex_lock(&mutex);
        dd_assert(!(chunk->free & bit));
        chunk->free |= bit;
        /* The fuller a chunk the sooner it is used again, and the others become empty. */
        if (!list_is_linked(&chunk->link))
                list_prepend(&chunks, &chunk->link);
        if (chunk->free == ALL_FREE) {
                list_unlink(&chunk->link);
                list_append(&chunks, &chunk->link);
                if (++n_empty > KEPT_MAX)
                        chunk_free(chunk);
        }
        pthread_mutex_unlock(&mutex);
}

static void chunk_trim(Chunk *chunk)
{
        for (size_t i = 1, n; i < CHUNK_PAGES; i += n + 1) {
                for (n = 0; i + n < CHUNK_PAGES && chunk->free >> (i + n) & 1; n++)
                        ;
                if (n)
                        madvise((unsigned char *)chunk + i * POOL_PAGE_SIZE, n * POOL_PAGE_SIZE,
                                MADV_DONTNEED);
        }
}

void page_pool_trim(void)
{
        pthread_mutex_lock(&mutex);
        list_for_each_safe(each, &chunks) {
                Chunk *chunk = list_entry(each, Chunk, link);

                if (chunk->free == ALL_FREE)
                        chunk_free(chunk);
                else
                        chunk_trim(chunk);
        }
        pthread_mutex_unlock(&mutex);
}
