/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

/*
 * A wal-index that cannot grow
 *
 * SQLite needs another region of it after it has written the log and before it publishes the
 * commit. The engine has captured the commit by then, and SQLite gives it up: invariant 7.
 */

#define REFUSED_PERMILLE 800

static const sqlite3_io_methods *real_methods;
static sqlite3_io_methods methods;
static World *faulty;

static int refuse_map(sqlite3_file *file, int region, int size, int extend, void volatile **ret)
{
        if (region > 0 && rng_chance(&faulty->rng, REFUSED_PERMILLE)) {
                *ret = NULL;
                faulty->stats.index_failures++;
                /* What CANCEL is for shows when the power fails before the object's next commits.
                 */
                if (rng_chance(&faulty->rng, 500))
                        sim_disk_arm(faulty->disk, 1 + rng_below(&faulty->rng, 200));
                return SQLITE_IOERR_SHMMAP;
        }
        return real_methods->xShmMap(file, region, size, extend, ret);
}

void index_fault_install(World *world, sqlite3 *db)
{
        sqlite3_file *file = NULL;

        sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        if (!file || !file->pMethods || file->pMethods == &methods)
                return;
        faulty = world;
        real_methods = file->pMethods;
        methods = *real_methods;
        methods.xShmMap = refuse_map;
        file->pMethods = &methods;
}
