/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/store/archive-read.h"
#include "lib/store/check-private.h"

#include <errno.h>
#include <stdio.h>

/*
 * A slot's archive folder: each file by itself, and how they follow each other. Files that are
 * pruned meanwhile are nobody's loss, so this can be done while the service runs.
 */

typedef struct ArchiveStrays {
        Check *check;
        const char *folder;
} ArchiveStrays;

static int see_archive_name(const char *name, void *data)
{
        const ArchiveStrays *strays = data;
        _cleanup_(free_p) char *path = path_join(strays->folder, name);
        uint64_t lsn;

        if (!path)
                return -ENOMEM;
        if (archive_name_decode(name, &lsn))
                return 0;
        if (slice_has_suffix(slice_from(name), SLICE(ARCHIVE_SUFFIX ".new")) ||
                slice_has_suffix(slice_from(name), SLICE(".new")))
                check_tell(strays->check, CHECK_NOTE, "archive-leftover", path, CHECK_NOWHERE,
                        "a file that was being written");
        else
                check_tell(strays->check, CHECK_ODD, "stray-file", path, CHECK_NOWHERE,
                        "no file of an archive");
        return 0;
}

/* Tells what is wrong with a file; *ret_header is filled when its header is right. */
static int check_file(Check *check, const char *path, uint64_t first_lsn, ArchiveHeader *ret_header,
        bool *ret_has)
{
        _cleanup_(archive_close_p) ArchiveFile *file = NULL;
        ArchiveDamage damage = {};
        int r = archive_open(check->below, path, &damage, &file);

        *ret_has = false;
        if (r == -ENOENT)
                return 0;
        if (!r) {
                *ret_header = *archive_get_header(file);
                *ret_has = true;
                if (ret_header->first_lsn != first_lsn)
                        check_tell(check, CHECK_DAMAGE, "archive-damage", path, 16,
                                "its first LSN is %llu, its name says another",
                                (unsigned long long)ret_header->first_lsn);
                if (!check->options.quick)
                        r = archive_verify(file);
        }
        if (r == -EBADMSG)
                check_tell(check, CHECK_DAMAGE, "archive-damage", path, damage.offset, "%s",
                        damage.what);
        else if (r == -EIO || r == -EACCES || r == -ELOOP)
                check_tell(check, CHECK_DAMAGE, "archive-damage", path, CHECK_NOWHERE,
                        "it cannot be read: %s", strerror(-r));
        else
                return r;
        return 0;
}

int check_archive(Check *check, const char *folder)
{
        _cleanup_(free_p) uint64_t *lsns = NULL;
        ArchiveStrays strays = { .check = check, .folder = folder };
        uint64_t last_lsn = 0;
        bool has_last = false;
        size_t n = 0;
        int r = archive_list(check->below, folder, &lsns, &n);

        if (!r)
                r = disk_list(check->below, folder, see_archive_name, &strays);
        if (r == -ENOENT)
                return 0;
        for (size_t i = 0; !r && i < n; i++) {
                _cleanup_(free_p) char *path = archive_path(folder, lsns[i]);
                ArchiveHeader header;
                bool has;

                if (!path)
                        return -ENOMEM;
                r = check_file(check, path, lsns[i], &header, &has);
                if (r || !has) {
                        has_last = false;
                        continue;
                }
                if (has_last && header.follows != last_lsn)
                        check_tell(check, CHECK_NOTE, "archive-gap", path, CHECK_NOWHERE,
                                "it follows LSN %llu, but the file before ends with %llu: "
                                "nothing before this file can be restored",
                                (unsigned long long)header.follows, (unsigned long long)last_lsn);
                has_last = true;
                last_lsn = header.last_lsn;
        }
        return r;
}
