/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Files and folders of a simulated disk: what is read now, what is safe, and what lies between
 *
 * A file has two contents and the list of changes from the safe one to the one that is read. A
 * folder has two sets of names; the changes between them are the disk's (sim-disk.c), since a
 * rename concerns two folders. Nodes live as long as the disk or until a crash finds no name.
 */

#include "lib/base/macro.h"
#include "tests/sim/rng.h"

#include <stdbool.h>

#define SIM_SECTOR 512u

typedef struct SimNode SimNode;

typedef struct SimBytes {
        unsigned char *data;
        uint64_t size, room;
} SimBytes;

typedef enum SimChangeKind {
        SIM_CHANGE_SECTOR, /* bytes of one sector, which make the file that long */
        SIM_CHANGE_SIZE,   /* truncated to a size */
        SIM_CHANGE_GROW,   /* at least that long */
} SimChangeKind;

typedef struct SimChange SimChange;
struct SimChange {
        SimChange *next; /* while it is spare */
        SimChangeKind kind;
        uint64_t at; /* a sector's number, or a size */
        uint16_t from, len;
        unsigned char data[SIM_SECTOR];
};

typedef struct SimName {
        char *name;
        SimNode *node;
} SimName;

typedef struct SimNames {
        SimName *names;
        size_t n, room;
} SimNames;

struct SimNode {
        SimNode *next;
        char *path; /* where it was created or last renamed to */
        bool folder, reached;
        unsigned handles;
        const void *lock_owner;

        SimBytes now, safe;
        SimChange **changes;
        size_t n_changes, changes_room;
        bool apart; /* what is read and what is safe differ by more than the changes */

        SimNames names_now, names_safe;
};

typedef struct SimLosses {
        uint64_t lost, kept, garbled;
} SimLosses;

/* Memory that is out ends the program: a simulation without it says nothing. */
void *sim_allocate(void *old, size_t size);

SimNode *sim_node_new(const char *path, bool folder);
SimNode *sim_node_free(SimNode *node);

void sim_node_write(SimNode *node, const void *data, size_t len, uint64_t offset);
void sim_node_truncate(SimNode *node, uint64_t size);
void sim_node_grow(SimNode *node, uint64_t size);
/* Everything is safe. */
void sim_node_sync(SimNode *node);
/* The sectors of a range, and the size needed to read them, are safe. */
void sim_node_sync_range(SimNode *node, uint64_t offset, size_t len);
/* Each change is safe or lost for good; what is read stays. */
void sim_node_lose_sync(SimNode *node, Rng *rng);
/* What is read is what a power cut leaves. */
void sim_node_cut(SimNode *node, Rng *rng, SimLosses *losses);

SimNode *sim_names_find(const SimNames *names, const char *name);
void sim_names_set(SimNames *names, const char *name, SimNode *node);
void sim_names_remove(SimNames *names, const char *name);
void sim_names_copy(SimNames *to, const SimNames *from);
