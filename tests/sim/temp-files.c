/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/temp-files.h"

#include "lib/base/macro.h"

#include <sqlite3.h>

#define TEMPORARY                                                                    \
        (SQLITE_OPEN_TEMP_DB | SQLITE_OPEN_TRANSIENT_DB | SQLITE_OPEN_TEMP_JOURNAL | \
                SQLITE_OPEN_SUBJOURNAL)

static sqlite3_vfs *real, shim;
static const sqlite3_io_methods *real_methods;
static sqlite3_io_methods methods;
static Rng *chance;
static unsigned rate;

static int shim_write(sqlite3_file *file, const void *data, int len, sqlite3_int64 offset)
{
        if (rate > 0 && rng_chance(chance, rate))
                return SQLITE_FULL;
        return real_methods->xWrite(file, data, len, offset);
}

static int shim_open(
        sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *ret_flags)
{
        int rc = real->xOpen(real, path, file, flags, ret_flags);

        if (rc != SQLITE_OK || !(flags & TEMPORARY))
                return rc;
        if (!real_methods) {
                real_methods = file->pMethods;
                methods = *real_methods;
                methods.xWrite = shim_write;
        }
        if (file->pMethods == real_methods)
                file->pMethods = &methods;
        return rc;
}

void temp_files_register(void)
{
        int rc;

        sqlite3_initialize();
        real = sqlite3_vfs_find("unix");
        dd_assert(real);
        shim = *real;
        shim.pNext = NULL;
        shim.xOpen = shim_open;
        rc = sqlite3_vfs_register(&shim, 1);
        dd_assert(rc == SQLITE_OK && sqlite3_vfs_find("unix") == &shim);
}

void temp_files_fail(Rng *rng, unsigned permille)
{
        chance = rng;
        rate = permille;
}
