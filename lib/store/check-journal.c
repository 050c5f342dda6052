/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/store/check-private.h"
#include "lib/store/disk-overlay.h"
#include "lib/store/recover.h"

#include <errno.h>
#include <stdio.h>

/*
 * A journal: recovered on the overlay, counted, and searched for what recovery need not see
 *
 * Recovery takes a batch that does not check at the very end for one that was never written. Here
 * its traces are looked for: a header most of whose fields are those of the next batch.
 */

#define TRACE_FIELDS 3u

typedef struct Tally {
        Check *check;
        CheckJournal *journal;
        const char *path;
        uint64_t cut_lsn;
        Ahead *ahead; /* NULL: nothing is cut */
        Map names;    /* of TallyObject */
        Map numbers;  /* of TallyNumber */
        size_t room;
} Tally;

typedef struct TallyObject {
        MapNode map;
        size_t index; /* in journal->objects, or SIZE_MAX */
        char name[];
} TallyObject;

typedef struct TallyNumber {
        MapNode map;
        uint32_t number;
        TallyObject *object;
} TallyNumber;

static void free_name(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, TallyObject, map));
}

static void free_number(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, TallyNumber, map));
}

static void drop_numbers(Tally *tally)
{
        map_for_each(&tally->numbers, free_number, NULL);
        map_done(&tally->numbers);
        map_init(&tally->numbers);
}

static void tally_done(Tally *tally)
{
        ahead_free(tally->ahead);
        map_for_each(&tally->names, free_name, NULL);
        map_done(&tally->names);
        drop_numbers(tally);
}

static int add_object(Tally *tally, TallyObject *object)
{
        CheckJournal *journal = tally->journal;

        if (journal->n_objects == CHECK_OBJECTS_MAX) {
                journal->n_more++;
                return 0;
        }
        if (journal->n_objects == tally->room) {
                size_t room = tally->room ? 2 * tally->room : 64;
                CheckObject *objects = realloc(journal->objects, room * sizeof *objects);

                if (!objects)
                        return -ENOMEM;
                journal->objects = objects;
                tally->room = room;
        }
        journal->objects[journal->n_objects] = (CheckObject){ .name = strdup(object->name) };
        if (!journal->objects[journal->n_objects].name)
                return -ENOMEM;
        object->index = journal->n_objects++;
        return 0;
}

static int get_object(Tally *tally, Slice name, TallyObject **ret)
{
        MapNode *map = map_find(&tally->names, name);
        TallyObject *object;
        int r;

        if (map) {
                *ret = CONTAINER_OF(map, TallyObject, map);
                return 0;
        }
        object = calloc(1, sizeof *object + name.len + 1);
        if (!object)
                return -ENOMEM;
        object->index = SIZE_MAX;
        memcpy(object->name, name.data, name.len);
        r = map_insert(&tally->names, &object->map, slice_of(object->name, name.len));
        if (r) {
                free(object);
                return r;
        }
        *ret = object;
        return 0;
}

static int get_number(Tally *tally, uint32_t number, TallyNumber **ret)
{
        MapNode *map = map_find(&tally->numbers, slice_of(&number, sizeof number));
        TallyNumber *known;
        int r;

        if (map) {
                *ret = CONTAINER_OF(map, TallyNumber, map);
                return 0;
        }
        known = calloc(1, sizeof *known);
        if (!known)
                return -ENOMEM;
        known->number = number;
        r = map_insert(
                &tally->numbers, &known->map, slice_of(&known->number, sizeof known->number));
        if (r) {
                free(known);
                return r;
        }
        *ret = known;
        return 0;
}

static int look_ahead(Tally *tally, size_t index, const Record *record)
{
        CheckObject *object = &tally->journal->objects[index];

        if (!tally->ahead || object->is_ahead || !object->before)
                return 0;
        return ahead_see(tally->ahead, index, object->name, record, &object->is_ahead);
}

static int count_record(Tally *tally, const Record *record)
{
        bool is_after = tally->cut_lsn && record->lsn >= tally->cut_lsn;
        CheckObject *object;
        TallyNumber *known;
        char text[40];
        int r = get_number(tally, record->object, &known);

        if (!r && record->type == RECORD_NAME)
                return get_object(tally, record->payload, &known->object);
        if (r || record->type == RECORD_CREATE || record->flags & RECORD_COPY)
                return r;
        if (!known->object) {
                /* Its name stood in what is damaged. */
                snprintf(text, sizeof text, "(object number %u)", record->object);
                r = get_object(tally, slice_from(text), &known->object);
        }
        if (!r && known->object->index == SIZE_MAX)
                r = add_object(tally, known->object);
        if (r || known->object->index == SIZE_MAX)
                return r;
        object = &tally->journal->objects[known->object->index];
        if (record->type != RECORD_CANCEL) {
                object->before += !is_after;
                object->after += is_after;
                tally->journal->lost_commits += is_after;
                if (is_after && record->type == RECORD_TXN)
                        r = look_ahead(tally, known->object->index, record);
        } else if (is_after && object->after) {
                object->after--;
                tally->journal->lost_commits--;
        } else if (!is_after && object->before) {
                object->before--;
        }
        return r;
}

/* The batch that is damaged itself, as far as its records are believable. */
static int count_damaged(Tally *tally, Found *found, uint64_t lsn, uint64_t end_lsn)
{
        Record record;
        Slice bytes;
        int r = found_read_damaged(found, &bytes);

        while (!r && record_decode(&bytes, &record) == 0 && record.lsn == lsn++ && lsn <= end_lsn)
                if (record.type == RECORD_NAME ||
                        map_find(&tally->numbers, slice_of(&record.object, sizeof record.object)))
                        r = count_record(tally, &record);
        return r;
}

/* What is damaged before a batch is its epoch's beginning, not the end of the one before. */
static bool is_first_lost(const Found *found, size_t i)
{
        const FoundBatch *before = &found->batches[i - 1];

        return found->batches[i].era != before->era &&
               before->header.batch == found_get_era(found, before->era).last_batch;
}

/* What comes before a batch: another epoch, where objects have other numbers, or damage. */
static int count_between(Tally *tally, Found *found, size_t i)
{
        const FoundBatch *batch = &found->batches[i];
        bool is_first = is_first_lost(found, i);
        int r = 0;

        if (is_first)
                drop_numbers(tally);
        if (i == found->n_batches)
                r = count_damaged(tally, found,
                        is_first ? found_get_era(found, batch->era).first_lsn : found->cut_lsn,
                        batch->header.first_lsn);
        if (!is_first && batch->era != batch[-1].era)
                drop_numbers(tally);
        return r;
}

/* Counts the records of all batches, those behind the damage too, as far as they decode. */
static int count_records(Tally *tally, Found *found)
{
        for (size_t i = 0; i < found->n_all; i++) {
                Slice bytes;
                Record record;
                int r = i ? count_between(tally, found, i) : 0;

                r = r ?: found_read(found, &found->batches[i], &bytes);
                if (r == -EBADMSG)
                        continue;
                bytes = r ? (Slice){} : slice_skip(bytes, BATCH_HEADER_SIZE);
                while (!r && record_decode(&bytes, &record) == 0)
                        r = count_record(tally, &record);
                if (r)
                        return r;
                tally->journal->time = MAX(tally->journal->time, found->batches[i].header.time);
                if (i < found->n_batches)
                        tally->journal->bytes += found->batches[i].header.len;
        }
        return 0;
}

typedef struct Trace {
        uint64_t batch, segment, first_lsn;
} Trace;

/* Whether a batch that is not whole begins there: the one that would be next. */
static int is_trace(Found *found, unsigned slot, uint64_t offset, const Trace *next, bool *ret)
{
        unsigned char head[BATCH_HEADER_SIZE];
        FoundBatch batch = { .slot = slot, .offset = offset };
        unsigned n = 0;
        size_t got;
        Slice bytes;
        int r = disk_read(found->segments[slot], head, sizeof head, offset, &got);

        *ret = false;
        if (r || got < sizeof head)
                return r;
        /* One of an earlier round is whole. */
        if (batch_decode_header(slice_of(head, got), &batch.header) == 0) {
                r = found_read(found, &batch, &bytes);
                if (r != -EBADMSG)
                        return r;
                n++;
        } else {
                n += memcmp(head, "DDBT", 4) == 0;
        }
        n += get_le64(head + 8) == found->epoch.epoch;
        n += get_le64(head + 16) == next->batch;
        n += get_le64(head + 24) == next->segment;
        n += get_le64(head + 48) == next->first_lsn;
        *ret = n >= TRACE_FIELDS;
        return 0;
}

static bool is_live(const Found *found, unsigned slot)
{
        for (size_t i = 0; i < found->n_all; i++)
                if (found->batches[i].slot == slot)
                        return true;
        return false;
}

static int find_torn(Found *found, CheckJournal *ret)
{
        const FoundBatch *newest = found->n_all ? &found->batches[found->n_all - 1] : NULL;
        /* Behind the last of an earlier epoch nothing counts. */
        const FoundBatch *last = newest && newest->era == found->epoch.n_earlier ? newest : NULL;
        Trace next = {
                .batch = last ? last->header.batch + 1 : 1,
                .segment = last ? last->header.segment : found->epoch.first_segment,
                .first_lsn = MAX(found->last_lsn + 1, found->epoch.first_lsn),
        };
        bool is_torn = false;
        int r = 0;

        if (last) {
                ret->torn_offset = last->offset + ((last->header.len + DISK_BLOCK - 1) &
                                                          ~(uint64_t)(DISK_BLOCK - 1));
                r = is_trace(found, last->slot, ret->torn_offset, &next, &is_torn);
                if (is_torn)
                        snprintf(ret->torn_path, sizeof ret->torn_path, "segment-%02u", last->slot);
                next.segment++;
        }
        for (unsigned i = 0; !r && !is_torn && i < ELEMENTSOF(found->segments); i++) {
                if (!found->segments[i] || is_live(found, i))
                        continue;
                ret->torn_offset = 0;
                r = is_trace(found, i, 0, &next, &is_torn);
                if (is_torn)
                        snprintf(ret->torn_path, sizeof ret->torn_path, "segment-%02u", i);
        }
        ret->is_torn = is_torn;
        return r;
}

/* A live segment is as long as the epoch says, and segments have numbers without a gap. */
static int check_segments(Check *check, const Found *found, const char *journal)
{
        unsigned end = 0;
        int r = 0;

        for (unsigned i = 0; i < ELEMENTSOF(found->segments); i++)
                if (found->segments[i])
                        end = i + 1;
        for (unsigned i = 0; !r && i < end; i++) {
                _cleanup_(free_p) char *path = found_segment_path(found, i);
                uint64_t size = 0;

                if (!path)
                        return -ENOMEM;
                if (!found->segments[i]) {
                        check_tell(check, CHECK_DAMAGE, "journal-damage", path, CHECK_NOWHERE,
                                "the segment is missing, while later ones are there");
                        continue;
                }
                r = disk_get_size(found->segments[i], &size);
                if (!r && is_live(found, i) && size < found->epoch.segment_size)
                        check_tell(check, CHECK_DAMAGE, "journal-damage", path, size,
                                "the segment is cut: it has %llu bytes instead of %llu",
                                (unsigned long long)size,
                                (unsigned long long)found->epoch.segment_size);
        }
        return r;
}

typedef struct Strays {
        Check *check;
        const char *journal;
} Strays;

static bool is_number(Slice text, size_t len, bool hex)
{
        for (size_t i = 0; i < text.len; i++)
                if (!strchr(hex ? "0123456789abcdef" : "0123456789", text.data[i]))
                        return false;
        return text.len == len;
}

static int see_file(const char *name, void *data)
{
        const Strays *strays = data;
        _cleanup_(free_p) char *path = path_join(strays->journal, name);
        Slice slice = slice_from(name);

        if (!path)
                return -ENOMEM;
        if (strcmp(name, "lock") == 0 || strcmp(name, "epoch") == 0 ||
                (slice_has_prefix(slice, SLICE("segment-")) &&
                        is_number(slice_skip(slice, 8), 2, false)) ||
                (slice_has_prefix(slice, SLICE("spill-")) &&
                        is_number(slice_skip(slice, 6), 16, true)))
                return 0;
        if (strcmp(name, "epoch.new") == 0 || slice_has_prefix(slice, SLICE("tail")) ||
                slice_has_prefix(slice, SLICE("overflow-")) ||
                slice_has_prefix(slice, SLICE("restore-")))
                check_tell(strays->check, CHECK_NOTE, "journal-leftover", path, CHECK_NOWHERE,
                        "left by a service that was killed; the next start removes it");
        else if (slice_has_prefix(slice, SLICE("damaged-")))
                check_tell(strays->check, CHECK_NOTE, "journal-leftover", path, CHECK_NOWHERE,
                        "set aside by durabled --recover; remove it when nobody needs it");
        else
                check_tell(strays->check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                        "no file of a journal");
        return 0;
}

typedef struct Lost {
        Check *check;
        CheckJournal *journal;
} Lost;

static void see_lost(const char *path, void *data)
{
        const Lost *lost = data;
        CheckJournal *journal = lost->journal;

        if (!journal->n_lost_files++ && journal->state != CHECK_DAMAGED) {
                journal->state = CHECK_DAMAGED;
                journal->damage_offset = CHECK_NOWHERE;
                snprintf(journal->damage_text, sizeof journal->damage_text,
                        "it has commits for databases that are missing, first %s",
                        strlen(path) > 80 ? path + strlen(path) - 80 : path);
        }
        check_tell(lost->check, CHECK_DAMAGE, "journal-lost-file", path, CHECK_NOWHERE,
                "the file is missing, but the journal has commits for it: put it back");
}

static void no_log(int priority, const char *line, void *data)
{
}

static void describe_damage(const Found *found, const char *path, CheckJournal *ret)
{
        const FoundDamage *damage = &found->damage;

        ret->state = CHECK_DAMAGED;
        ret->cut_lsn = found->cut_lsn;
        ret->damage_offset = damage->slot == FOUND_NO_SLOT ? CHECK_NOWHERE : damage->offset;
        if (damage->slot == FOUND_NO_SLOT)
                snprintf(ret->damage_path, sizeof ret->damage_path, "epoch");
        else
                snprintf(ret->damage_path, sizeof ret->damage_path, "segment-%02u", damage->slot);
        snprintf(ret->damage_text, sizeof ret->damage_text, "%s", damage->text);
}

static int tell_place(Check *check, CheckLevel level, const char *what, const char *journal,
        const char *file, uint64_t offset, const char *text)
{
        _cleanup_(free_p) char *path = path_join(journal, file);

        if (!path)
                return -ENOMEM;
        check_tell(check, level, what, path, offset, "%s", text);
        return 0;
}

static int tell_journal(Check *check, const char *path, const CheckJournal *journal)
{
        int r = 0;

        if (*journal->damage_path)
                r = tell_place(check, CHECK_DAMAGE, "journal-damage", path, journal->damage_path,
                        journal->damage_offset, journal->damage_text);
        if (!r && journal->is_torn)
                r = tell_place(check, CHECK_NOTE, "journal-torn-tail", path, journal->torn_path,
                        journal->torn_offset,
                        "the last batch is not whole: a write that a crash interrupted; it was "
                        "never acknowledged, and the next start leaves it out");
        if (journal->commits)
                check_tell(check, CHECK_NOTE, "journal-pending", path, CHECK_NOWHERE,
                        "the next start redoes %llu commits of %zu objects; databases are checked "
                        "as they are then",
                        (unsigned long long)journal->commits, journal->n_objects + journal->n_more);
        return r;
}

/* As a cut leaves them. */
static int revert_ahead(Check *check, const CheckJournal *journal)
{
        for (size_t i = 0; i < journal->n_objects; i++) {
                _cleanup_(free_p) char *path = NULL;

                if (!journal->objects[i].is_ahead)
                        continue;
                path = path_join(check->objects, journal->objects[i].name);
                if (!path)
                        return -ENOMEM;
                disk_overlay_revert(check->disk, path);
        }
        return 0;
}

/* A record that checks and yet cannot be redone: all of its batch is left out. */
static int cut_before_damage(Found *found)
{
        for (size_t i = 0; i < found->n_batches; i++)
                if (found->batches[i].slot == found->damage.slot &&
                        found->batches[i].offset == found->damage.offset)
                        found->cut_lsn = found->batches[i].header.first_lsn;
        return found->cut_lsn ? 0 : -EUCLEAN;
}

/* Without an epoch file the newest batches tell what would be lost. */
static int survey(Check *check, Store *store, const char *path, CheckJournal *ret)
{
        Lost lost = { .check = check, .journal = ret };
        _cleanup_(found_done) Found found = {
                .store = store,
                .cut = true,
                .cut_lsn = check->options.until ? check->options.until + 1 : 0,
                .lost = see_lost,
                .data = &lost,
        };
        _cleanup_(tally_done) Tally tally = { .check = check, .journal = ret, .path = path };
        int r = found_open(&found);

        map_init(&tally.names);
        map_init(&tally.numbers);
        ret->has_epoch = found.has_epoch;
        if (r == 0 && found_check_objects(&found) == -EUCLEAN) {
                /* To redo would make objects where none belong. */
                describe_damage(&found, path, ret);
        } else if (r == -EUCLEAN && !found.has_epoch) {
                describe_damage(&found, path, ret);
                found.cut_lsn = ret->cut_lsn = 1;
                r = found_guess(&found);
        } else if (r == 0 || r == -EUCLEAN) {
                r = redo_run(&found);
                if (r == -EUCLEAN && found.damage.is_there)
                        r = cut_before_damage(&found);
                if (!r && found.damage.is_there)
                        describe_damage(&found, path, ret);
                r = r ?: find_torn(&found, ret);
                r = r ?: check_segments(check, &found, path);
        }
        tally.cut_lsn = ret->cut_lsn = found.cut_lsn;
        if (!r && found.cut_lsn && found.has_epoch)
                r = ahead_new(check, &tally.ahead);
        r = r ?: count_records(&tally, &found);
        r = r ?: revert_ahead(check, ret);
        if (r)
                return r;
        ret->batches = found.n_batches;
        ret->first_lsn = found.n_all ? found.batches[0].header.first_lsn : 0;
        ret->last_lsn = found.last_lsn;
        for (size_t i = 0; i < ret->n_objects; i++)
                ret->commits += ret->objects[i].before;
        if (ret->state == CHECK_EMPTY && ret->commits)
                ret->state = CHECK_PENDING;
        return 0;
}

static int hold(Check *check, Store *store)
{
        CheckHeld *held = malloc(sizeof *held);

        if (!held)
                return -ENOMEM;
        *held = (CheckHeld){ .store = store, .next = check->held };
        check->held = held;
        return 0;
}

int check_journal(Check *check, const char *path, CheckJournal *ret)
{
        StoreOptions options = {
                .disk = check->disk, .journal = path, .objects = check->objects, .log = no_log
        };
        Strays strays = { .check = check, .journal = path };
        CheckJournal journal = {};
        Store *store = NULL;
        uint64_t size;
        int r = disk_stat_size(check->disk, path, &size);

        if (r != -EISDIR)
                return r ?: -ENOTDIR;
        r = store_new(&options, &store);
        if (r)
                return r;
        r = hold(check, store);
        if (r) {
                store_free(store);
                return r;
        }
        r = disk_list(check->disk, path, see_file, &strays);
        r = r ?: survey(check, store, path, &journal);
        r = r ?: tell_journal(check, path, &journal);
        if (r)
                check_journal_done(&journal);
        else
                *ret = journal;
        return r;
}

void check_journal_done(CheckJournal *journal)
{
        for (size_t i = 0; i < journal->n_objects; i++)
                free(journal->objects[i].name);
        free(journal->objects);
        *journal = (CheckJournal){};
}
