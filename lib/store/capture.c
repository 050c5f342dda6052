/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include "lib/store/crc32c.h"
#include "lib/store/delta.h"

#include <errno.h>

/*
 * What a record set is made of: NAME and CREATE where the segment needs them, then one record.
 * Everything is made into one piece of memory, before the journal's mutex is taken.
 */
typedef struct Maker {
        Node *node;
        uint64_t segment;
        unsigned char *data;
        size_t len, room;
        uint32_t n_records;
} Maker;

static void maker_done(Maker *maker)
{
        free(maker->data);
}

static int maker_init(Maker *maker, Node *node, size_t payload)
{
        *maker = (Maker){ .node = node };
        maker->room = record_size(strlen(node->name)) + record_size(0) + record_size(payload);
        maker->data = malloc(maker->room);
        return maker->data ? 0 : -ENOMEM;
}

static void maker_add(Maker *maker, Record record, const void *payload, size_t len)
{
        unsigned char *out = maker->data + maker->len;

        dd_assert(maker->len + record_size(len) <= maker->room);
        record.object = maker->node->object;
        if (payload)
                memcpy(out + RECORD_HEADER_SIZE, payload, len);
        record_encode(&record, len, out);
        maker->len += record_size(len);
        maker->n_records++;
}

/* Begins anew for a segment. */
static void maker_begin(Maker *maker, uint64_t segment, bool may_create)
{
        Node *node = maker->node;

        maker->segment = segment;
        maker->len = maker->n_records = 0;
        if (node->named_segment != segment) {
                size_t len = strlen(node->name);

                maker_add(maker, (Record){ .type = RECORD_NAME, .db_pages = (uint32_t)len },
                        node->name, len);
        }
        if (node->needs_create && may_create)
                maker_add(maker, (Record){ .type = RECORD_CREATE }, NULL, 0);
}

static int maker_append(Maker *maker, bool urgent, uint64_t *ret_lsn)
{
        JournalAppend append = {
                .node = maker->node,
                .segment = maker->segment,
                .records = maker->data,
                .len = maker->len,
                .n_records = maker->n_records,
                .urgent = urgent,
        };
        int r = journal_append(maker->node->store, &append);

        if (r)
                return r;
        maker->node->named_segment = maker->segment;
        *ret_lsn = append.ret_last_lsn;
        return 0;
}

/* One page as RAW, ZERO or DELTA, whichever is shortest. */
static size_t put_page(
        Node *node, uint32_t frame, uint32_t number, const unsigned char *page, unsigned char *out)
{
        uint32_t page_size = node->wal.page_size, base = page_map_find(&node->bases, number);
        const unsigned char *old = base ? wal_find_page(&node->wal, base) : NULL;
        unsigned char *bytes = out + PAGE_HEADER_SIZE;
        PageKind kind = old ? PAGE_DELTA : PAGE_ZERO;
        int len = delta_encode(old, page, page_size, bytes, page_size - 1);

        if (len < 0) {
                kind = PAGE_RAW;
                len = (int)page_size;
                memcpy(bytes, page, page_size);
        }
        if (frame)
                page_map_set(&node->bases, number, frame);
        page_encode(number, kind, (size_t)len, out);
        return PAGE_HEADER_SIZE + (size_t)len;
}

/* The pages of frames first..last into out; their length, or a negative errno. */
static ssize_t put_frames(
        Node *node, uint32_t first, uint32_t last, unsigned char *out, bool *ret_has_first)
{
        _cleanup_(free_p) unsigned char *page = malloc(node->wal.page_size);
        size_t len = 0;

        if (!page)
                return -ENOMEM;
        for (uint32_t frame = first; frame <= last; frame++) {
                uint32_t number, db_pages;
                int r = wal_read_header(&node->wal, frame, &number, &db_pages);

                r = r ?: wal_read_page(&node->wal, frame, page);
                if (!r && number == 0)
                        r = -EIO;
                if (r)
                        return r;
                *ret_has_first |= number == 1;
                len += put_page(node, frame, number, page, out + len);
        }
        return (ssize_t)len;
}

/* A new database's first commit has page 1 in it whatever it changed. */
static size_t put_first_page(Node *node, unsigned char *out)
{
        unsigned char *bytes = out + PAGE_HEADER_SIZE;

        node_first_page(node, bytes, node->wal.page_size, 0);
        page_encode(1, PAGE_RAW, node->wal.page_size, out);
        return PAGE_HEADER_SIZE + node->wal.page_size;
}

/* The bases hold for one segment alone. */
static void use_segment(Node *node, uint64_t segment)
{
        if (node->bases_segment != segment)
                page_map_clear(&node->bases);
        node->bases_segment = segment;
}

static int add_mark(Node *node, uint32_t frame, uint64_t segment)
{
        SegmentMark *marks;

        if (node->n_marks && node->marks[node->n_marks - 1].segment == segment)
                return 0;
        marks = realloc(node->marks, (node->n_marks + 1) * sizeof *marks);
        if (!marks)
                return -ENOMEM;
        node->marks = marks;
        node->marks[node->n_marks++] = (SegmentMark){ frame, segment };
        return 0;
}

static int make_commit(Maker *maker, uint32_t first, uint32_t last, Record record)
{
        Node *node = maker->node;
        bool has_first = false;
        unsigned char *payload;
        ssize_t len;

        use_segment(node, maker->segment);
        payload = maker->data + maker->len + RECORD_HEADER_SIZE;
        len = put_frames(node, first, last, payload, &has_first);
        if (len < 0)
                return (int)len;
        record.n_pages = last - first + 1;
        if (node->needs_create && !has_first) {
                len += (ssize_t)put_first_page(node, payload + len);
                record.n_pages++;
        }
        maker_add(maker, record, NULL, (size_t)len);
        return 0;
}

/* Makes and appends a commit until it lands in the segment that it was made for. */
static int append_commit(
        Maker *maker, uint32_t first, uint32_t last, Record record, uint64_t *ret_lsn)
{
        Node *node = maker->node;
        uint64_t segment;
        int r;

        do {
                r = journal_prepare(node->store, maker->room, false, &segment);
                if (r)
                        break;
                maker_begin(maker, segment, true);
                r = make_commit(maker, first, last, record);
                r = r ?: add_mark(node, first, segment);
                r = r ?: maker_append(maker, false, ret_lsn);
        } while (r == -ESTALE);
        /* The bases name frames that were not captured. */
        if (r)
                page_map_clear(&node->bases);
        return r;
}

/* Pages of a set too large for the journal go to a file that is synced before it is named. */
static int write_spill(
        Node *node, DiskFile *file, uint32_t first, uint32_t last, bool add_first, SpillRef *spill)
{
        uint32_t page_size = node->wal.page_size, number = 1, db_pages;
        _cleanup_(free_p) unsigned char *entry = malloc(4 + (size_t)page_size);
        int r = 0;

        if (!entry)
                return -ENOMEM;
        for (uint32_t frame = add_first ? first - 1 : first; !r && frame <= last; frame++) {
                if (frame < first) {
                        node_first_page(node, entry + 4, page_size, 0);
                } else {
                        r = wal_read_header(&node->wal, frame, &number, &db_pages);
                        r = r ?: wal_read_page(&node->wal, frame, entry + 4);
                }
                put_le32(entry, number);
                r = r ?: disk_write(file, entry, 4 + (size_t)page_size, spill->size, 0);
                spill->crc = crc32c(spill->crc, entry, 4 + (size_t)page_size);
                spill->size += 4 + (uint64_t)page_size;
        }
        return r ?: disk_sync(file);
}

static int make_spill(Node *node, uint32_t first, uint32_t last, SpillRef *ret, Spill **ret_spill)
{
        Store *store = node->store;
        _cleanup_(free_p) char *path = NULL;
        _cleanup_(free_p) Spill *spill = calloc(1, sizeof *spill);
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        SpillRef ref = {};
        int r;

        store_lock(store);
        ref.file = ++store->last_file;
        store_unlock(store);
        path = store_file_path(store, "spill", ref.file);
        if (!path || !spill)
                return -ENOMEM;
        r = disk_open(store->disk, path, DISK_CREATE | DISK_EXCLUSIVE, &file);
        if (r)
                return r;
        r = write_spill(node, file, first, last, node->needs_create, &ref);
        r = r ?: disk_sync_folder(store->disk, store->journal_path);
        if (r) {
                disk_unlink(store->disk, path);
                return r;
        }
        spill->file = ref.file;
        *ret = ref;
        *ret_spill = TAKE_PTR(spill);
        return 0;
}

static void keep_spill(Store *store, Spill *spill, uint64_t segment)
{
        store_lock(store);
        spill->segment = segment;
        list_init(&spill->link);
        list_append(&store->spills, &spill->link);
        store->stats.spills++;
        store_unlock(store);
}

static int append_spill(Node *node, uint32_t first, uint32_t last, Record record, uint64_t *ret_lsn)
{
        Store *store = node->store;
        _cleanup_(maker_done) Maker maker = {};
        unsigned char payload[SPILL_REF_SIZE];
        SpillRef ref = {};
        Spill *spill = NULL;
        uint64_t segment = 0;
        int r = maker_init(&maker, node, sizeof payload);

        record.flags |= RECORD_SPILL;
        record.n_pages = last - first + 1 + node->needs_create;
        r = r ?: make_spill(node, first, last, &ref, &spill);
        if (r)
                return r;
        spill_encode(&ref, payload);
        do {
                r = journal_prepare(store, maker.room, false, &segment);
                if (r)
                        break;
                maker_begin(&maker, segment, true);
                maker_add(&maker, record, payload, sizeof payload);
                r = add_mark(node, first, segment);
                r = r ?: maker_append(&maker, false, ret_lsn);
        } while (r == -ESTALE);
        page_map_clear(&node->bases);
        node->bases_segment = NO_SEGMENT;
        /* Without its record the file means nothing: segment 0 is always retired. */
        keep_spill(store, spill, r ? 0 : segment);
        return r;
}

static int append_frames(
        Node *node, uint32_t first, uint32_t last, unsigned flags, uint32_t db_pages, uint64_t *ret)
{
        _cleanup_(maker_done) Maker maker = {};
        uint32_t page_size = node->wal.page_size;
        Record record = {
                .type = RECORD_TXN, .flags = flags, .page_size = page_size, .db_pages = db_pages
        };
        size_t payload = (size_t)(last - first + 2) * (PAGE_HEADER_SIZE + page_size);
        int r;

        if (payload > node->store->options.spill_size)
                return append_spill(node, first, last, record, ret);
        r = maker_init(&maker, node, payload);
        return r ?: append_commit(&maker, first, last, record, ret);
}

/* The newer pair stays until it is durable: an object that commits all the time has one that is. */
static void note_durable(Node *node, uint32_t frame, uint64_t lsn)
{
        if (node->durable[1].lsn > atomic_load(&node->store->flushed))
                return;
        node->durable[0] = node->durable[1];
        node->durable[1].frame = frame;
        node->durable[1].lsn = lsn;
}

int capture_commit(Node *node, uint32_t upto)
{
        Store *store = node->store;
        uint32_t first = node->captured + 1, page, db_pages;
        uint64_t lsn;
        int r = wal_read_header(&node->wal, upto, &page, &db_pages);

        if (!r && db_pages == 0)
                r = -EIO;
        r = r ?: append_frames(node, first, upto, 0, db_pages, &lsn);
        if (r)
                return r;
        node->txn_first = first;
        node->txn_lsn = lsn;
        note_durable(node, upto, lsn);
        atomic_store(&node->captured, upto);
        node->needs_create = false;
        store_lock(store);
        store->stats.commits++;
        node_note_logged(node, true);
        if (upto >= store->options.checkpoint_at)
                node_note_due(node);
        store->work_waits |= upto >= store->options.checkpoint_at ||
                             atomic_load(&store->wal_bytes) > store->options.wal_total_max;
        store_unlock(store);
        return 0;
}

/* Invariant 7. */
static int capture_cancel(Node *node)
{
        Store *store = node->store;
        _cleanup_(maker_done) Maker maker = {};
        unsigned char payload[8];
        uint64_t segment, lsn;
        int r = maker_init(&maker, node, sizeof payload);

        cancel_encode(node->txn_lsn, payload);
        do {
                r = r ?: journal_prepare(store, maker.room, true, &segment);
                if (r)
                        break;
                maker_begin(&maker, segment, false);
                maker_add(&maker, (Record){ .type = RECORD_CANCEL }, payload, sizeof payload);
                r = maker_append(&maker, true, &lsn);
        } while (r == -ESTALE);
        page_map_clear(&node->bases);
        store_lock(store);
        store->stats.cancels++;
        store_unlock(store);
        return r;
}

static bool is_published(const Node *node, const WalIndex *index)
{
        return index->max_frame == node->captured &&
               memcmp(index->salt, node->wal.header + 16, 8) == 0;
}

/* A commit that was published without a sync of the log: from a connection without
 * synchronous=FULL. There is no way left to refuse it. */
static void capture_late(Node *node, const WalIndex *index)
{
        int r;

        if (index->max_frame <= node->captured ||
                memcmp(index->salt, node->wal.header + 16, 8) != 0)
                return;
        r = capture_commit(node, index->max_frame);
        if (r)
                store_fail(node->store, r,
                        "%s: a commit that asked for no sync has no room in "
                        "the journal: %s",
                        node->name, strerror(-r));
}

void capture_settle(Node *node)
{
        WalIndex index;
        bool is_there = wal_index_read(node, &index);
        int r;

        if (node->txn_first && !(is_there && is_published(node, &index)) &&
                !SABOTAGED(SABOTAGE_CANCEL)) {
                atomic_store(&node->captured, node->txn_first - 1);
                /* Nothing is known of the frames that come in their place. */
                memset(node->durable, 0, sizeof node->durable);
                /* A database of which nothing is left begins once more. */
                node->needs_create = node->is_new && node->captured == 0;
                r = capture_cancel(node);
                if (r)
                        store_fail(node->store, r,
                                "%s: a commit that failed cannot be cancelled "
                                "in the journal: %s",
                                node->name, strerror(-r));
        } else if (is_there && !node->txn_first) {
                capture_late(node, &index);
        }
        node->txn_first = 0;
        node->txn_lsn = 0;
        node->last_header = 0;
}

int capture_copy(Node *node, uint32_t done, uint32_t db_pages)
{
        Store *store = node->store;
        SegmentMark first = node->n_marks ? node->marks[0] : (SegmentMark){};
        size_t n_marks = node->n_marks;
        uint64_t lsn;
        int r;

        page_map_clear(&node->bases);
        node->bases_segment = NO_SEGMENT;
        node->n_marks = 0;
        r = append_frames(node, done + 1, node->captured, RECORD_COPY, db_pages, &lsn);
        if (r) {
                node->n_marks = n_marks;
                if (n_marks)
                        node->marks[0] = first;
                return r;
        }
        store_lock(store);
        node_set_first_segment(node, node->marks[0].segment);
        store->stats.copies++;
        store_unlock(store);
        return 0;
}

int capture_delete(Node *node)
{
        Store *store = node->store;
        _cleanup_(maker_done) Maker maker = {};
        uint64_t segment, lsn;
        int r = maker_init(&maker, node, 0);

        do {
                r = r ?: journal_prepare(store, maker.room, false, &segment);
                if (r)
                        break;
                maker_begin(&maker, segment, false);
                maker_add(&maker, (Record){ .type = RECORD_DELETE }, NULL, 0);
                r = maker_append(&maker, false, &lsn);
        } while (r == -ESTALE);
        if (r)
                return r;
        atomic_store(&node->deleted, true);
        return 0;
}
