/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include <errno.h>

/*
 * Bookmarks as texts: `%08x-%08x-%08x-%032x`, in lower case
 *
 * The LSN's high and low half, the seconds since 1970 for who reads it, and a hash of the object's
 * name. The hash keeps an object from another's bookmarks by mistake; it is no secret, so its keys
 * are fixed.
 */

#define N_PARTS 4

static const uint64_t keys[2][2] = {
        { UINT64_C(0x646f6f6b6d61726b), UINT64_C(0x6f626a6563742d31) },
        { UINT64_C(0x646f6f6b6d61726b), UINT64_C(0x6f626a6563742d32) },
};

const char *history_get_name(Store *store, const char *path)
{
        const char *name;

        if (strncmp(path, store->objects_path, store->objects_len) != 0 ||
                path[store->objects_len] != '/')
                return NULL;
        name = path + store->objects_len + 1;
        return name[0] && strlen(name) <= JOURNAL_NAME_MAX ? name : NULL;
}

Bookmark bookmark_of(const char *name, uint64_t lsn)
{
        Bookmark bookmark = { .lsn = lsn };

        for (int i = 0; i < 2; i++)
                bookmark.object[i] = siphash24(keys[i], slice_from(name));
        return bookmark;
}

void bookmark_format(const Bookmark *bookmark, char ret[STORE_BOOKMARK_LEN + 1])
{
        snprintf(ret, STORE_BOOKMARK_LEN + 1, "%08x-%08x-%08x-%016llx%016llx",
                (unsigned)(bookmark->lsn >> 32), (unsigned)bookmark->lsn, bookmark->seconds,
                (unsigned long long)bookmark->object[0], (unsigned long long)bookmark->object[1]);
}

static bool parse_hex(const char *text, size_t n, uint64_t *ret)
{
        uint64_t value = 0;

        for (size_t i = 0; i < n; i++) {
                char c = text[i];

                if (c >= '0' && c <= '9')
                        value = value << 4 | (uint64_t)(c - '0');
                else if (c >= 'a' && c <= 'f')
                        value = value << 4 | (uint64_t)(c - 'a' + 10);
                else
                        return false;
        }
        *ret = value;
        return true;
}

int bookmark_parse(const char *text, Bookmark *ret)
{
        uint64_t parts[N_PARTS - 1];
        Bookmark bookmark;

        if (strnlen(text, STORE_BOOKMARK_LEN + 1) != STORE_BOOKMARK_LEN)
                return STORE_E_BOOKMARK;
        for (int i = 0; i < N_PARTS - 1; i++)
                if (!parse_hex(text + 9 * (ptrdiff_t)i, 8, &parts[i]) ||
                        text[9 * (ptrdiff_t)i + 8] != '-')
                        return STORE_E_BOOKMARK;
        bookmark.lsn = parts[0] << 32 | parts[1];
        bookmark.seconds = (uint32_t)parts[2];
        if (!parse_hex(text + 27, 16, &bookmark.object[0]) ||
                !parse_hex(text + 43, 16, &bookmark.object[1]))
                return STORE_E_BOOKMARK;
        *ret = bookmark;
        return 0;
}

/*
 * All that is flushed counts; beyond that the object's own records alone, since others' may not
 * outlive a crash, and their numbers may then be another record's.
 */
uint64_t history_get_lsn(Store *store, const char *path)
{
        uint64_t flushed = atomic_load(&store->flushed), lsn = store_object_lsn(store, path);

        return MAX(flushed, lsn);
}

int store_get_bookmark(Store *store, const char *path, char ret[STORE_BOOKMARK_LEN + 1])
{
        const char *name = history_get_name(store, path);
        Bookmark bookmark;

        if (!name)
                return -EINVAL;
        bookmark = bookmark_of(name, history_get_lsn(store, path));
        bookmark.seconds = (uint32_t)(disk_clock_realtime(store->disk) / NSEC_PER_SEC);
        bookmark_format(&bookmark, ret);
        return 0;
}

int history_flush(Store *store, uint64_t lsn)
{
        if (!pthread_equal(pthread_self(), store->loop_thread))
                return store_sync(store, lsn);
        store_loop_run(store);
        return store_get_failure(store) ?: atomic_load(&store->flushed) < lsn ? -EDEADLK : 0;
}

int store_find_bookmark(
        Store *store, const char *path, uint64_t time_ns, char ret[STORE_BOOKMARK_LEN + 1])
{
        const char *name = history_get_name(store, path);
        Bookmark bookmark;
        uint64_t lsn;
        int r = -EAGAIN;

        if (!name)
                return -EINVAL;
        if (time_ns >= disk_clock_realtime(store->disk))
                return store_get_bookmark(store, path, ret);
        lsn = history_get_lsn(store, path);
        for (int i = 0; i < HISTORY_TRIES && r == -EAGAIN; i++) {
                r = history_flush(store, lsn);
                r = r ?: history_find_time(store, name, time_ns, lsn, &lsn);
        }
        if (r)
                return r == -EAGAIN ? -EUCLEAN : r;
        bookmark = bookmark_of(name, lsn);
        bookmark.seconds = (uint32_t)(time_ns / NSEC_PER_SEC);
        bookmark_format(&bookmark, ret);
        return 0;
}

int store_check_bookmark(Store *store, const char *path, const char *bookmark)
{
        const char *name = history_get_name(store, path);
        Bookmark present, given;
        int r = name ? bookmark_parse(bookmark, &given) : -EINVAL;

        if (r)
                return r;
        present = bookmark_of(name, history_get_lsn(store, path));
        if (memcmp(present.object, given.object, sizeof present.object) != 0)
                return STORE_E_BOOKMARK;
        return given.lsn > present.lsn ? STORE_E_FUTURE : 0;
}

const char *store_history_error(int error)
{
        switch (error) {
        case STORE_E_BOOKMARK:
                return "this is no bookmark of the object";
        case STORE_E_PRUNED:
                return "the archive does not go back to that moment";
        case STORE_E_FUTURE:
                return "the bookmark is of a moment that has not been";
        case STORE_E_ABSENT:
                return "the object did not exist at that moment";
        case STORE_E_CHANGED:
                return "the object's file is damaged, or was changed by another program since";
        case STORE_E_PAGE_SIZE:
                return "the two databases have pages of different sizes";
        default:
                return strerror(error < 0 ? -error : error);
        }
}
