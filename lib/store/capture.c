/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/page-set.h"

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

static int maker_append(Maker *maker, JournalUse use, uint64_t *ret_lsn)
{
        JournalAppend append = {
                .node = maker->node,
                .segment = maker->segment,
                .records = maker->data,
                .len = maker->len,
                .n_records = maker->n_records,
                .use = use,
        };
        int r = journal_append(maker->node->store, &append);

        if (r)
                return r;
        maker->node->named_segment = maker->segment;
        *ret_lsn = append.ret_last_lsn;
        return 0;
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

/* The record of a set goes behind those that maker_begin() made. */
static int make_record(Maker *maker, PageSet *set, Record record)
{
        size_t len;
        int r = page_set_put(set, maker->segment, maker->data + maker->len + RECORD_HEADER_SIZE,
                &len, &record.n_pages);

        if (r)
                return r;
        maker_add(maker, record, NULL, len);
        return 0;
}

static JournalUse get_use(const Record *record)
{
        if (record->type == RECORD_DELETE && !record->page_size)
                return JOURNAL_DELETE;
        return record->flags & RECORD_COPY ? JOURNAL_COPY : JOURNAL_COMMIT;
}

/* Makes and appends a record until it lands in the segment that it was made for. first: of the
 * frames in it, or 0. */
static int append_inline(PageSet *set, uint32_t first, Record record, uint64_t *ret_lsn)
{
        Node *node = set->node;
        _cleanup_(maker_done) Maker maker = {};
        uint64_t segment;
        int r = maker_init(&maker, node, page_set_get_room(set));

        if (r)
                return r;
        do {
                r = journal_prepare(node, maker.room, get_use(&record), &segment);
                if (r)
                        break;
                maker_begin(&maker, segment, first != 0);
                r = make_record(&maker, set, record);
                if (!r && first)
                        r = add_mark(node, first, segment);
                r = r ?: maker_append(&maker, get_use(&record), ret_lsn);
        } while (r == -ESTALE);
        return r;
}

/* Pages too many for the journal go to a file that is synced before it is named. */
static int make_spill(PageSet *set, SpillRef *ret, uint32_t *ret_n, Spill **ret_spill)
{
        Store *store = set->node->store;
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
        r = page_set_write(set, file, &ref, ret_n);
        r = r ?: disk_sync_folder(store->disk, store->journal_path);
        if (r) {
                disk_unlink(store->disk, path);
                return r;
        }
        spill->file = ref.file;
        spill->size = ref.size;
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
        if (segment == store->journal.last_segment)
                store->journal.spilled += spill->size;
        store->stats.spill_bytes += spill->size;
        store->stats.spills++;
        store_unlock(store);
}

static int append_spill(PageSet *set, uint32_t first, Record record, uint64_t *ret_lsn)
{
        Node *node = set->node;
        _cleanup_(maker_done) Maker maker = {};
        unsigned char payload[SPILL_REF_SIZE];
        SpillRef ref = {};
        Spill *spill = NULL;
        uint64_t segment = 0;
        int r = maker_init(&maker, node, sizeof payload);

        record.flags |= RECORD_SPILL;
        r = r ?: make_spill(set, &ref, &record.n_pages, &spill);
        if (r)
                return r;
        spill_encode(&ref, payload);
        do {
                r = journal_prepare(node, maker.room, get_use(&record), &segment);
                if (r)
                        break;
                maker_begin(&maker, segment, first != 0);
                maker_add(&maker, record, payload, sizeof payload);
                if (first)
                        r = add_mark(node, first, segment);
                r = r ?: maker_append(&maker, get_use(&record), ret_lsn);
        } while (r == -ESTALE);
        /* Without its record the file means nothing: segment 0 is always retired. */
        keep_spill(node->store, spill, r ? 0 : segment);
        return r;
}

static int append_set(PageSet *set, uint32_t first, Record record, uint64_t *ret_lsn)
{
        bool is_large = page_set_get_room(set) > set->node->store->options.spill_size;
        int r;

        if (record.type == RECORD_TXN)
                record.page_size = set->page_size;
        record.db_pages = set->db_pages;
        record.pages_before = set->pages_before;
        r = is_large ? append_spill(set, first, record, ret_lsn)
                     : append_inline(set, first, record, ret_lsn);
        if (!r)
                page_set_keep(set);
        return r;
}

static int append_frames(
        Node *node, uint32_t first, uint32_t last, unsigned flags, uint32_t db_pages, uint64_t *ret)
{
        _cleanup_(page_set_done) PageSet set = {};
        Record record = { .type = RECORD_TXN, .flags = flags };
        bool undo = node->store->archive_path && !(flags & RECORD_COPY);
        int r = page_set_init(&set, node, first, last, db_pages, undo);

        return r ?: append_set(&set, first, record, ret);
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

        node->wanted = 0;
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

        if (r)
                return r;
        cancel_encode(node->txn_lsn, payload);
        do {
                r = journal_prepare(node, maker.room, JOURNAL_CANCEL, &segment);
                if (r)
                        break;
                maker_begin(&maker, segment, false);
                maker_add(&maker, (Record){ .type = RECORD_CANCEL }, payload, sizeof payload);
                r = maker_append(&maker, JOURNAL_CANCEL, &lsn);
        } while (r == -ESTALE);
        /* When memory is out the next commit tries again. */
        page_set_rebuild(node);
        node->n_superseded = 0;
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
        SegmentMark *marks = TAKE_PTR(node->marks);
        size_t n_marks = node->n_marks;
        uint64_t lsn;
        int r;

        node->n_marks = 0;
        r = append_frames(node, done + 1, node->captured, RECORD_COPY, db_pages, &lsn);
        if (r) {
                free(node->marks);
                node->marks = marks;
                node->n_marks = n_marks;
                return r;
        }
        free(marks);
        store_lock(store);
        node_set_first_segment(node, node->marks[0].segment);
        store->stats.copies++;
        store_unlock(store);
        return 0;
}

int capture_delete(Node *node, bool tells)
{
        _cleanup_(page_set_done) PageSet set = {};
        Record record = { .type = RECORD_DELETE };
        uint64_t lsn;
        int r = page_set_init(&set, node, 1, 0, 0, tells);

        /* One that tells nothing has no pages at all. */
        if (tells)
                record.page_size = set.page_size;
        node->wanted = 0;
        r = r ?: append_set(&set, 0, record, &lsn);
        if (r)
                return r;
        atomic_store(&node->deleted, true);
        return 0;
}
