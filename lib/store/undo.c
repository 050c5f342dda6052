/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include "lib/store/delta.h"

#include <errno.h>

/*
 * Taking records back
 *
 * journal-format.h says how ("What was before"). A record's pages are taken back from the last to
 * the first. Where a record says what a page was after it (RAW, ZERO), the image must say the same:
 * otherwise the file was changed by somebody whose commits are not in the journal, and nothing that
 * would come out could be trusted. For that check alone records are taken back beyond the moment
 * that is looked for, on pages laid over the image: a delta that was taken back from other bytes
 * than those that it led to shows where the page was last written whole.
 */

static int say_changed(const Undo *undo, const Record *record, const char *what, uint32_t number)
{
        store_log(undo->store, LOG_ERR,
                "%s: cannot be restored, its file was changed by another program after LSN %llu: "
                "%s %u is not as that commit left it",
                undo->name, (unsigned long long)record->lsn, what, number);
        return STORE_E_CHANGED;
}

/* The image, or what lies over it while records are only checked. */
static Image *get_image(Undo *undo)
{
        return undo->state == UNDO_BACK ? undo->image : &undo->over;
}

static int get_page(Undo *undo, uint32_t number, unsigned char **ret)
{
        return image_get_page(get_image(undo), number, ret);
}

static int say_damaged(const Undo *undo, const Record *record)
{
        store_log(undo->store, LOG_ERR, "%s: the record with LSN %llu does not decode", undo->name,
                (unsigned long long)record->lsn);
        return -EUCLEAN;
}

typedef struct Pages {
        Page *pages;
        size_t n;
        unsigned char *after;
} Pages;

static void pages_done(Pages *pages)
{
        free(pages->pages);
        free(pages->after);
}

static int list_pages(const Record *record, Pages *ret)
{
        Slice rest = record->payload;
        int r = 0;

        /* Each takes a header at least. */
        if (record->n_pages > rest.len / PAGE_HEADER_SIZE)
                return -EBADMSG;
        ret->pages = calloc((size_t)record->n_pages + 1, sizeof *ret->pages);
        ret->after = malloc(record->page_size);
        if (!ret->pages || !ret->after)
                return -ENOMEM;
        for (; !r && ret->n < record->n_pages; ret->n += !r)
                r = page_decode(&rest, record->page_size, &ret->pages[ret->n]);
        return r;
}

/* The image of a page, from what the record says it was. */
static int make_page(const Page *page, unsigned char *out, uint32_t page_size)
{
        if (page->kind == PAGE_RAW || page->kind == PAGE_BEFORE) {
                memcpy(out, page->bytes.data, page_size);
                return 0;
        }
        memset(out, 0, page_size);
        return delta_apply(page->bytes.data, page->bytes.len, out, page_size);
}

/* Whether the image has what the record says that the page was after it; -EBADMSG. */
static int check_after(Undo *undo, const Record *record, const Page *page, unsigned char *after)
{
        unsigned char *bytes;
        int r = make_page(page, after, record->page_size);

        if (r || page->number > record->db_pages)
                return r;
        r = get_page(undo, page->number, &bytes);
        if (r)
                return r;
        return memcmp(bytes, after, record->page_size) == 0
                       ? 0
                       : say_changed(undo, record, "page", page->number);
}

/* UNDO or BEFORE: of a page that the commit cut off there was nothing after it. */
static int take_back_past(Undo *undo, const Record *record, const Page *page)
{
        uint32_t page_size = record->page_size;
        unsigned char *bytes;
        int r = get_page(undo, page->number, &bytes);

        if (r)
                return r;
        if (page->kind == PAGE_BEFORE || page->number > record->db_pages)
                return make_page(page, bytes, page_size);
        return delta_apply(page->bytes.data, page->bytes.len, bytes, page_size);
}

static int take_back_delta(Undo *undo, const Record *record, const Page *page)
{
        unsigned char *bytes;
        int r;

        if (page->number > record->db_pages)
                return 0;
        r = get_page(undo, page->number, &bytes);
        return r ?: delta_apply(page->bytes.data, page->bytes.len, bytes, record->page_size);
}

static int take_back_pages(Undo *undo, const Record *record)
{
        _cleanup_(pages_done) Pages pages = {};
        int r = list_pages(record, &pages);

        for (size_t i = pages.n; !r && i > 0; i--) {
                const Page *page = &pages.pages[i - 1], *before = page - (i > 1);

                if (page->kind == PAGE_DELTA) {
                        r = take_back_delta(undo, record, page);
                } else if (!page_is_past(page->kind)) {
                        r = check_after(undo, record, page, pages.after);
                } else if (record->type == RECORD_TXN && page->number <= record->db_pages) {
                        /* What it is to be taken from comes right before it. */
                        if (before == page || before->number != page->number ||
                                (before->kind != PAGE_RAW && before->kind != PAGE_ZERO))
                                return -EBADMSG;
                        r = check_after(undo, record, before, pages.after);
                        r = r ?: take_back_past(undo, record, page);
                        i--;
                } else {
                        r = take_back_past(undo, record, page);
                }
        }
        return r;
}

typedef struct PastPages {
        Undo *undo;
        const Record *record;
} PastPages;

static int take_past_page(uint32_t number, const unsigned char *page, void *data)
{
        PastPages *past = data;
        unsigned char *bytes;
        int r;

        if (number == 0 || number > past->record->pages_before)
                return -EBADMSG;
        r = image_get_page(past->undo->image, number, &bytes);
        if (!r)
                memcpy(bytes, page, past->record->page_size);
        return r;
}

static int take_back(Undo *undo, const Record *record, UndoPastFn past, void *data)
{
        PastPages pages = { undo, record };
        int r = image_set_size(get_image(undo), MAX(record->db_pages, record->pages_before));

        if (record->flags & RECORD_SPILL)
                r = r ?: past(record, take_past_page, &pages, data);
        else
                r = r ?: take_back_pages(undo, record);
        return r ?: image_set_size(get_image(undo), record->pages_before);
}

static int undo_txn(Undo *undo, const Record *record, UndoPastFn past, void *data)
{
        Image *image = get_image(undo);

        if (record->lsn >= undo->void_from)
                return 0;
        if (!image->exists || image->page_size != record->page_size)
                return say_changed(
                        undo, record, "the size of its pages, other than", record->page_size);
        if (image->n_pages != record->db_pages)
                return say_changed(
                        undo, record, "its length in pages, other than", record->db_pages);
        return take_back(undo, record, past, data);
}

static int undo_delete(Undo *undo, const Record *record, UndoPastFn past, void *data)
{
        int r;

        if (!record->page_size)
                return STORE_E_PRUNED;
        r = image_clear(undo->image, record->page_size);
        undo->image->exists = record->pages_before > 0;
        return r ?: take_back(undo, record, past, data);
}

void undo_init(Undo *undo, Image *image, const char *name, uint64_t target)
{
        *undo = (Undo){
                .store = image->store,
                .image = image,
                .name = name,
                .target = target,
                .done = UINT64_MAX,
                .void_from = UINT64_MAX,
        };
}

void undo_done(Undo *undo)
{
        if (undo->state != UNDO_BACK)
                image_done(&undo->over);
}

static int take_record(Undo *undo, const Record *record, UndoPastFn past, void *data)
{
        uint64_t from;
        int r;

        switch (record->type) {
        case RECORD_TXN:
                return record->flags & RECORD_COPY ? 0 : undo_txn(undo, record, past, data);
        case RECORD_DELETE:
                return undo_delete(undo, record, past, data);
        case RECORD_CREATE:
                undo->image->exists = false;
                return image_clear(undo->image, undo->image->page_size);
        case RECORD_CANCEL:
                r = cancel_decode(record->payload, &from);
                if (!r)
                        undo->void_from = MIN(undo->void_from, from);
                return r;
        default:
                return 0;
        }
}

/* Until the object begins, a page set is not in the record, or memory would be too much. */
static int check_record(Undo *undo, const Record *record)
{
        int r;

        if (undo->state == UNDO_BACK) {
                image_lay_over(&undo->over, undo->image);
                undo->state = UNDO_CHECK;
        }
        if (record->type == RECORD_DELETE || record->type == RECORD_CREATE ||
                record->flags & RECORD_SPILL || !undo->over.exists) {
                undo->state = UNDO_CHECKED;
                return 0;
        }
        r = take_record(undo, record, NULL, NULL);
        if (r == -ENOBUFS)
                undo->state = UNDO_CHECKED;
        return r == -ENOBUFS ? 0 : r;
}

int undo_record(Undo *undo, const Record *record, UndoPastFn past, void *data)
{
        int r;

        if (record->lsn >= undo->done || undo->state == UNDO_CHECKED)
                return 0;
        if (record->lsn > undo->target)
                r = take_record(undo, record, past, data);
        else
                r = check_record(undo, record);
        if (r)
                return r == -EBADMSG ? say_damaged(undo, record) : r;
        undo->done = record->lsn;
        return 0;
}

void undo_end_part(Undo *undo)
{
        if (undo->state == UNDO_CHECK)
                undo->state = UNDO_CHECKED;
}
