/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop/disk-ring.h"

#include <errno.h>

typedef struct Slot {
        RingOp op;
        DiskWrite *write; /* NULL: free */
        DiskRing *owner;
        size_t done; /* bytes; a write may be short */
} Slot;

struct DiskRing {
        Disk disk; /* first: what the engine sees */
        DiskOps ops;
        Ring *ring;
        Slot slots[DISK_RING_WRITES];
};

static DiskRing *ring_of(Disk *disk)
{
        return (DiskRing *)disk;
}

static void slot_start(Slot *slot)
{
        DiskWrite *write = slot->write;

        ring_write(slot->owner->ring, &slot->op, disk_real_get_fd(write->file),
                (const char *)write->data + slot->done, write->len - slot->done,
                write->offset + slot->done, write->flags & DISK_DSYNC);
}

static void on_written(RingOp *op, const RingResult *result)
{
        Slot *slot = CONTAINER_OF(op, Slot, op);
        DiskWrite *write = slot->write;
        int r = 0;

        if (result->res > 0) {
                slot->done += (size_t)result->res;
                /* What was cut short at a block is not an error yet: the rest says why. */
                if (slot->done < write->len && slot->done % DISK_BLOCK == 0) {
                        slot_start(slot);
                        return;
                }
                if (slot->done < write->len)
                        r = -EIO;
        } else {
                r = result->res < 0 ? result->res : -EIO;
        }
        slot->write = NULL;
        write->fn(write, r);
}

static int disk_ring_submit(Disk *disk, DiskWrite *write)
{
        DiskRing *self = ring_of(disk);

        for (size_t i = 0; i < DISK_RING_WRITES; i++) {
                Slot *slot = &self->slots[i];

                if (slot->write)
                        continue;
                slot->write = write;
                slot->done = 0;
                slot_start(slot);
                return 0;
        }
        return -EBUSY;
}

static int disk_ring_poll(Disk *disk)
{
        return 0;
}

int disk_ring_new(Ring *ring, DiskRing **ret)
{
        DiskRing *self = calloc(1, sizeof *self);

        if (!self)
                return -ENOMEM;
        self->ops = *disk_real()->ops;
        self->ops.submit = disk_ring_submit;
        self->ops.poll = disk_ring_poll;
        self->disk.ops = &self->ops;
        self->ring = ring;
        for (size_t i = 0; i < DISK_RING_WRITES; i++) {
                ring_op_init(&self->slots[i].op, on_written);
                self->slots[i].owner = self;
        }
        *ret = self;
        return 0;
}

DiskRing *disk_ring_free(DiskRing *disk)
{
        free(disk);
        return NULL;
}

Disk *disk_ring_get_disk(DiskRing *disk)
{
        return &disk->disk;
}
