/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/page-set.h"

#include "lib/store/crc32c.h"
#include "lib/store/delta.h"

#include <errno.h>

static int count_before(Node *node, uint32_t page_size, uint32_t *ret)
{
        uint32_t page;

        if (node->needs_create) {
                *ret = 0;
                return 0;
        }
        if (node->captured)
                return wal_read_header(&node->wal, node->captured, &page, ret);
        *ret = (uint32_t)((node->size + page_size - 1) / page_size);
        return 0;
}

int page_set_rebuild(Node *node)
{
        node->newest_unknown = true;
        page_map_clear(&node->newest);
        for (uint32_t frame = 1; frame <= node->captured; frame++) {
                uint32_t page, db_pages;
                int r = wal_read_header(&node->wal, frame, &page, &db_pages);

                if (r)
                        return r;
                if (!page_map_reserve(&node->newest, 1))
                        return -ENOMEM;
                page_map_set(&node->newest, page, frame);
        }
        node->newest_unknown = false;
        return 0;
}

int page_set_init(
        PageSet *set, Node *node, uint32_t first, uint32_t last, uint32_t db_pages, bool undo)
{
        uint32_t page_size =
                node->captured || first <= last ? node->wal.page_size : node->page_size;
        int r = 0;

        *set = (PageSet){ .node = node, .page_size = page_size, .db_pages = db_pages };
        set->page = malloc(2 * (size_t)page_size);
        if (!set->page)
                return -ENOMEM;
        set->old = set->page + page_size;
        if (node->newest_unknown)
                r = page_set_rebuild(node);
        if (!r && first <= last)
                r = wal_list_pages(&node->wal, first, last, &set->pages, &set->n);
        if (!r && undo)
                r = count_before(node, page_size, &set->pages_before);
        if (r)
                return r;
        if (set->n && set->pages[0].page == 0)
                return -EIO;
        set->add_first = node->needs_create && set->n && set->pages[0].page != 1;
        return page_map_reserve(&node->newest, set->n) ? 0 : -ENOMEM;
}

void page_set_done(PageSet *set)
{
        free(set->pages);
        free(set->page);
}

/* Pages that were there before and are not any more. */
static uint32_t count_gone(const PageSet *set)
{
        return set->pages_before > set->db_pages ? set->pages_before - set->db_pages : 0;
}

/* A page of the set that was there before, and still is. */
static bool has_past(const PageSet *set, uint32_t number)
{
        return number <= set->pages_before && number <= set->db_pages;
}

size_t page_set_get_room(const PageSet *set)
{
        size_t n = set->n + set->add_first + count_gone(set);

        for (size_t i = 0; i < set->n; i++)
                n += has_past(set, set->pages[i].page);
        return n * (PAGE_HEADER_SIZE + (size_t)set->page_size);
}

/* What the page is before the set, into set->old. */
static int read_old(PageSet *set, uint32_t number)
{
        Node *node = set->node;
        uint32_t frame = page_map_find(&node->newest, number);
        size_t got;
        int r;

        if (frame && wal_has_page(&node->wal, frame))
                return wal_read_page(&node->wal, frame, set->old);
        r = node_read(
                node, set->old, set->page_size, (uint64_t)(number - 1) * set->page_size, &got);
        if (!r)
                memset(set->old + got, 0, set->page_size - got);
        return r;
}

typedef struct Out {
        unsigned char *data;
        size_t len, page_size;
        uint32_t n;
} Out;

/* False when the delta would be no shorter than the page. */
static bool put_delta(Out *out, uint32_t number, PageKind kind, const void *from, const void *to)
{
        unsigned char *head = out->data + out->len;
        int len =
                delta_encode(from, to, out->page_size, head + PAGE_HEADER_SIZE, out->page_size - 1);

        if (len < 0)
                return false;
        page_encode(number, kind, (size_t)len, head);
        out->len += PAGE_HEADER_SIZE + (size_t)len;
        out->n++;
        return true;
}

static void put_whole(Out *out, uint32_t number, PageKind kind, const void *page)
{
        unsigned char *head = out->data + out->len;

        memcpy(head + PAGE_HEADER_SIZE, page, out->page_size);
        page_encode(number, kind, out->page_size, head);
        out->len += PAGE_HEADER_SIZE + out->page_size;
        out->n++;
}

/* What the page was before, when it is as `now` (NULL: zeros). */
static int put_past(PageSet *set, Out *out, uint32_t number, const void *now)
{
        int r = SABOTAGED(SABOTAGE_UNDO) ? 0 : read_old(set, number);

        if (!r && !SABOTAGED(SABOTAGE_UNDO) && !put_delta(out, number, PAGE_UNDO, now, set->old))
                put_whole(out, number, PAGE_BEFORE, set->old);
        return r;
}

/* The newest frame of the page that records of the segment lead to, if it is in heap. */
static const unsigned char *find_base(const PageSet *set, uint64_t segment, uint32_t number)
{
        Node *node = set->node;
        const SegmentMark *mark = node->n_marks ? &node->marks[node->n_marks - 1] : NULL;
        uint32_t frame = page_map_find(&node->newest, number);

        if (!frame || !mark || mark->segment != segment || frame < mark->frame)
                return NULL;
        return wal_find_page(&node->wal, frame);
}

static int put_page(PageSet *set, Out *out, uint64_t segment, const PageFrame *at)
{
        const unsigned char *base = find_base(set, segment, at->page);
        int r = wal_read_page(&set->node->wal, at->frame, set->page);

        if (r)
                return r;
        if (put_delta(out, at->page, base ? PAGE_DELTA : PAGE_ZERO, base, set->page)) {
                if (base)
                        return 0;
        } else {
                put_whole(out, at->page, PAGE_RAW, set->page);
        }
        return has_past(set, at->page) ? put_past(set, out, at->page, set->page) : 0;
}

int page_set_put(
        PageSet *set, uint64_t segment, unsigned char *bytes, size_t *ret_len, uint32_t *ret_n)
{
        Out out = { .data = bytes, .page_size = set->page_size };
        int r = 0;

        for (uint32_t i = 1; !r && i <= count_gone(set); i++)
                r = put_past(set, &out, set->db_pages + i, NULL);
        if (!r && set->add_first) {
                node_first_page(set->node, set->page, set->page_size, 0);
                put_whole(&out, 1, PAGE_RAW, set->page);
        }
        for (size_t i = 0; !r && i < set->n; i++)
                r = put_page(set, &out, segment, &set->pages[i]);
        if (r)
                return r;
        *ret_len = out.len;
        *ret_n = out.n;
        return 0;
}

static int write_entry(
        const PageSet *set, DiskFile *file, uint32_t number, const void *page, SpillRef *ref)
{
        unsigned char head[4];
        int r;

        put_le32(head, number);
        ref->crc = crc32c(crc32c(ref->crc, head, sizeof head), page, set->page_size);
        r = disk_write(file, head, sizeof head, ref->size, 0);
        r = r ?: disk_write(file, page, set->page_size, ref->size + sizeof head, 0);
        ref->size += sizeof head + set->page_size;
        return r;
}

static int write_past(PageSet *set, DiskFile *file, uint32_t number, SpillRef *ref)
{
        int r = read_old(set, number);

        return r ?: write_entry(set, file, number, set->old, ref);
}

int page_set_write(PageSet *set, DiskFile *file, SpillRef *ret, uint32_t *ret_n)
{
        SpillRef ref = { .file = ret->file };
        int r = 0;

        if (set->add_first) {
                node_first_page(set->node, set->page, set->page_size, 0);
                r = write_entry(set, file, 1, set->page, &ref);
        }
        for (size_t i = 0; !r && i < set->n; i++) {
                r = wal_read_page(&set->node->wal, set->pages[i].frame, set->page);
                r = r ?: write_entry(set, file, set->pages[i].page, set->page, &ref);
        }
        for (size_t i = 0; !r && i < set->n; i++)
                if (has_past(set, set->pages[i].page))
                        r = write_past(set, file, set->pages[i].page, &ref);
        for (uint32_t i = 1; !r && i <= count_gone(set); i++)
                r = write_past(set, file, set->db_pages + i, &ref);
        r = r ?: disk_sync(file);
        if (r)
                return r;
        *ret_n = (uint32_t)set->n + set->add_first;
        *ret = ref;
        return 0;
}

void page_set_keep(const PageSet *set)
{
        /* There is room since page_set_init(). */
        for (size_t i = 0; i < set->n; i++) {
                node_note_superseded(set->node, &set->pages[i]);
                page_map_set(&set->node->newest, set->pages[i].page, set->pages[i].frame);
        }
}
