/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store.h"

#include <stdlib.h>

/*
 * durabled-worker for test_power.py: the engine with small segments, so that they are retired and
 * written over within seconds, or with a journal that is written but not synced
 *
 * The linker gives every store_open() of the worker to __wrap_store_open().
 */

int __real_store_open(const StoreOptions *options, Store **ret);
int __wrap_store_open(const StoreOptions *options, Store **ret);

static DiskOps changed_ops;
static const DiskOps *real_ops;

static unsigned long get_number(const char *name)
{
        const char *text = getenv(name);

        return text ? strtoul(text, NULL, 10) : 0;
}

static int submit_unsynced(Disk *disk, DiskWrite *write)
{
        write->flags &= ~(unsigned)DISK_DSYNC;
        return real_ops->submit(disk, write);
}

int __wrap_store_open(const StoreOptions *options, Store **ret)
{
        StoreOptions changed = *options;

        changed.segment_size = get_number("DURABLED_TEST_SEGMENT_SIZE");
        changed.checkpoint_at = (unsigned)get_number("DURABLED_TEST_CHECKPOINT_AT");
        if (changed.disk && getenv("DURABLED_TEST_UNSYNCED")) {
                real_ops = changed.disk->ops;
                changed_ops = *real_ops;
                changed_ops.submit = submit_unsynced;
                changed.disk->ops = &changed_ops;
        }
        return __real_store_open(&changed, ret);
}
