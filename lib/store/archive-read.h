/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Reading archive files
 *
 * A file is opened with one read, an object is found in it with a few more, however many it holds,
 * and only the object's own data is read then. A file that is open can be read though it is pruned
 * meanwhile. Nothing is believed before its crc was checked: -EBADMSG says that the file is torn or
 * damaged, and where (ArchiveDamage). -ENOENT: there is no such file (pruned). Other errors are the
 * disk's. An ArchiveFile belongs to one thread at a time.
 */

#include "lib/store/archive-format.h"
#include "lib/store/disk.h"

typedef struct ArchiveFile ArchiveFile;
typedef struct ArchiveObject ArchiveObject;

enum {
        ARCHIVE_E_ABSENT = 1, /* the file holds nothing of that */
};

/* Of an error -EBADMSG: where in the file, and what is wrong there. */
typedef struct ArchiveDamage {
        uint64_t offset;
        char what[128];
} ArchiveDamage;

/* The first LSNs of the files in a folder, ascending; none when there is no folder. The caller
 * frees *ret. */
int archive_list(Disk *disk, const char *folder, uint64_t **ret, size_t *ret_n);
/* The path of a file; the caller's. NULL when memory is out. */
char *archive_path(const char *folder, uint64_t first_lsn);

/* damage is filled in by this and later calls on the file; it is the caller's and outlives it. */
int archive_open(Disk *disk, const char *path, ArchiveDamage *damage, ArchiveFile **ret);
/* NULL is allowed; always NULL. Its objects are closed before. */
ArchiveFile *archive_close(ArchiveFile *file);
DEFINE_CLEANUP(ArchiveFile *, archive_close)
const ArchiveHeader *archive_get_header(const ArchiveFile *file);

/* What the file has of an object (its name below the objects folder); ARCHIVE_E_ABSENT. */
int archive_find(ArchiveFile *file, Slice name, ArchiveEntry *ret);
/* The entry at index, from 0 to n_objects - 1, and its name. */
int archive_get_entry(ArchiveFile *file, uint32_t index, ArchiveEntry *ret);
int archive_read_name(ArchiveFile *file, const ArchiveEntry *entry, char ret[JOURNAL_NAME_MAX + 1]);
/* The last LSN that was sealed by that time; ARCHIVE_E_ABSENT when all of the file is later. */
int archive_find_time(ArchiveFile *file, uint64_t time_ns, uint64_t *ret);
/* Reads and checks everything in it: every block, name, table, chunk, record, page. */
int archive_verify(ArchiveFile *file);

/*
 * An object's records, in memory while it is open (at most what the segment had); PAST chunks are
 * left on disk. Records by their place, 0 the oldest: who goes back begins with the last. The
 * record's payload is valid until the object is closed.
 */
int archive_object_open(ArchiveFile *file, const ArchiveEntry *entry, ArchiveObject **ret);
ArchiveObject *archive_object_close(ArchiveObject *object);
DEFINE_CLEANUP(ArchiveObject *, archive_object_close)
size_t archive_object_get_count(const ArchiveObject *object);
void archive_object_get_record(const ArchiveObject *object, size_t index, Record *ret);
/* Called for each page; non-zero stops and is returned. */
typedef int (*ArchivePageFn)(uint32_t number, const unsigned char *page, void *data);
/* The pages as they were before a record with flag SPILL. A chunk at a time is in memory. */
int archive_object_read_past(
        ArchiveObject *object, const Record *record, ArchivePageFn fn, void *data);
