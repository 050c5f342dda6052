/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim-node.h"

#include <stdio.h>
#include <string.h>

#define GARBLED_PERMILLE 15

void *sim_allocate(void *old, size_t size)
{
        void *p = realloc(old, size ? size : 1);

        if (!p) {
                fprintf(stderr, "sim: memory is out\n");
                abort();
        }
        return p;
}

SimNode *sim_node_new(const char *path, bool folder)
{
        SimNode *node = sim_allocate(NULL, sizeof *node);
        size_t len = strlen(path) + 1;

        *node = (SimNode){ .folder = folder, .path = sim_allocate(NULL, len) };
        memcpy(node->path, path, len);
        return node;
}

static void names_clear(SimNames *names)
{
        for (size_t i = 0; i < names->n; i++)
                free(names->names[i].name);
        free(names->names);
        *names = (SimNames){ 0 };
}

/* Changes come and go by the million: what one no longer needs is the next one's. */
static SimChange *spare;

static SimChange *change_new(void)
{
        SimChange *change = spare;

        if (!change)
                return sim_allocate(NULL, sizeof *change);
        spare = change->next;
        return change;
}

static void change_free(SimChange *change)
{
        change->next = spare;
        spare = change;
}

/* The first n stay. */
static void changes_keep(SimNode *node, size_t n)
{
        while (node->n_changes > n)
                change_free(node->changes[--node->n_changes]);
}

SimNode *sim_node_free(SimNode *node)
{
        if (!node)
                return NULL;
        names_clear(&node->names_now);
        names_clear(&node->names_safe);
        changes_keep(node, 0);
        free(node->changes);
        free(node->now.data);
        free(node->safe.data);
        free(node->path);
        free(node);
        return NULL;
}

/* What lies beyond the size is always zero. */
static void bytes_resize(SimBytes *bytes, uint64_t size)
{
        if (size > bytes->room) {
                uint64_t room = MAX(size, bytes->room * 2);

                bytes->data = sim_allocate(bytes->data, room);
                memset(bytes->data + bytes->room, 0, room - bytes->room);
                bytes->room = room;
        }
        if (size < bytes->size)
                memset(bytes->data + size, 0, bytes->size - size);
        bytes->size = size;
}

static void bytes_put(SimBytes *bytes, const void *data, size_t len, uint64_t offset)
{
        if (offset + len > bytes->size)
                bytes_resize(bytes, offset + len);
        if (len > 0)
                memcpy(bytes->data + offset, data, len);
}

static void bytes_copy(SimBytes *to, const SimBytes *from)
{
        bytes_resize(to, from->size);
        if (from->size > 0)
                memcpy(to->data, from->data, from->size);
}

static uint64_t get_start(const SimChange *change)
{
        return change->at * SIM_SECTOR + change->from;
}

static void change_apply(const SimChange *change, SimBytes *bytes)
{
        switch (change->kind) {
        case SIM_CHANGE_SECTOR:
                bytes_put(bytes, change->data, change->len, get_start(change));
                break;
        case SIM_CHANGE_SIZE:
                bytes_resize(bytes, change->at);
                break;
        case SIM_CHANGE_GROW:
                if (change->at > bytes->size)
                        bytes_resize(bytes, change->at);
                break;
        }
}

static SimChange *change_add(SimNode *node, SimChangeKind kind, uint64_t at)
{
        SimChange *change;

        if (node->n_changes == node->changes_room) {
                node->changes_room = MAX(node->changes_room * 2, (size_t)16);
                node->changes =
                        sim_allocate(node->changes, node->changes_room * sizeof *node->changes);
        }
        change = node->changes[node->n_changes++] = change_new();
        change->kind = kind;
        change->at = at;
        change->from = change->len = 0;
        return change;
}

void sim_node_write(SimNode *node, const void *data, size_t len, uint64_t offset)
{
        const unsigned char *p = data;
        uint64_t at = offset;

        if (len == 0)
                return;
        if (offset + len > node->now.size)
                change_add(node, SIM_CHANGE_GROW, offset + len);
        while (at < offset + len) {
                SimChange *change = change_add(node, SIM_CHANGE_SECTOR, at / SIM_SECTOR);

                change->from = (uint16_t)(at % SIM_SECTOR);
                change->len = (uint16_t)MIN(SIM_SECTOR - change->from, offset + len - at);
                memcpy(change->data, p + (at - offset), change->len);
                at += change->len;
        }
        bytes_put(&node->now, data, len, offset);
}

void sim_node_truncate(SimNode *node, uint64_t size)
{
        change_add(node, SIM_CHANGE_SIZE, size);
        bytes_resize(&node->now, size);
}

void sim_node_grow(SimNode *node, uint64_t size)
{
        if (size <= node->now.size)
                return;
        change_add(node, SIM_CHANGE_GROW, size);
        bytes_resize(&node->now, size);
}

void sim_node_sync(SimNode *node)
{
        for (size_t i = 0; i < node->n_changes; i++)
                change_apply(node->changes[i], &node->safe);
        changes_keep(node, 0);
}

/* A change that stays in the list must not bring back what a later truncation, now safe, cut. */
static bool survives_cut(SimChange *change, uint64_t size)
{
        if (change->kind == SIM_CHANGE_GROW)
                return change->at <= size;
        if (change->kind == SIM_CHANGE_SECTOR) {
                if (get_start(change) >= size)
                        return false;
                change->len = (uint16_t)MIN((uint64_t)change->len, size - get_start(change));
        }
        return true;
}

/* Of the first n changes, those that are still more than what is safe. */
static size_t cut_changes(SimChange **changes, size_t n, uint64_t size)
{
        size_t kept = 0;

        for (size_t i = 0; i < n; i++)
                if (survives_cut(changes[i], size))
                        changes[kept++] = changes[i];
                else
                        change_free(changes[i]);
        return kept;
}

void sim_node_sync_range(SimNode *node, uint64_t offset, size_t len)
{
        uint64_t first = offset / SIM_SECTOR, last = (offset + len - 1) / SIM_SECTOR;
        size_t kept = 0;

        if (len == 0)
                return;
        for (size_t i = 0; i < node->n_changes; i++) {
                SimChange *change = node->changes[i];

                if (change->kind == SIM_CHANGE_SIZE)
                        kept = cut_changes(node->changes, kept, change->at);
                else if (change->kind != SIM_CHANGE_SECTOR || change->at < first ||
                         change->at > last) {
                        node->changes[kept++] = change;
                        continue;
                }
                change_apply(change, &node->safe);
                change_free(change);
        }
        node->n_changes = kept;
}

void sim_node_lose_sync(SimNode *node, Rng *rng)
{
        for (size_t i = 0; i < node->n_changes; i++)
                if (rng_chance(rng, 500))
                        change_apply(node->changes[i], &node->safe);
        node->apart = true;
        changes_keep(node, 0);
}

void sim_node_cut(SimNode *node, Rng *rng, SimLosses *losses)
{
        static const unsigned rates[] = { 0, 100, 500, 900, 1000 };
        unsigned rate = rates[rng_below(rng, ELEMENTSOF(rates))];
        /* Now and then just a beginning of the changes is there, as an ordered disk does it. */
        size_t end = rng_chance(rng, 200) ? rng_below(rng, node->n_changes + 1) : SIZE_MAX;

        for (size_t i = 0; i < node->n_changes; i++) {
                SimChange *change = node->changes[i];
                bool keep = end != SIZE_MAX ? i < end : rng_chance(rng, rate);

                if (keep && change->kind == SIM_CHANGE_SECTOR &&
                        rng_chance(rng, GARBLED_PERMILLE)) {
                        rng_fill(rng, change->data, change->len);
                        losses->garbled++;
                }
                if (keep) {
                        change_apply(change, &node->safe);
                        losses->kept++;
                } else
                        losses->lost++;
        }
        if (node->n_changes > 0 || node->apart)
                bytes_copy(&node->now, &node->safe);
        node->apart = false;
        changes_keep(node, 0);
}

static size_t names_index(const SimNames *names, const char *name)
{
        size_t i = 0;

        while (i < names->n && strcmp(names->names[i].name, name) != 0)
                i++;
        return i;
}

SimNode *sim_names_find(const SimNames *names, const char *name)
{
        size_t i = names_index(names, name);

        return i < names->n ? names->names[i].node : NULL;
}

void sim_names_set(SimNames *names, const char *name, SimNode *node)
{
        size_t i = names_index(names, name);

        if (i == names->n) {
                size_t len = strlen(name) + 1;

                if (names->n == names->room) {
                        names->room = MAX(names->room * 2, (size_t)8);
                        names->names =
                                sim_allocate(names->names, names->room * sizeof *names->names);
                }
                names->names[i].name = memcpy(sim_allocate(NULL, len), name, len);
                names->n++;
        }
        names->names[i].node = node;
}

void sim_names_remove(SimNames *names, const char *name)
{
        size_t i = names_index(names, name);

        if (i == names->n)
                return;
        free(names->names[i].name);
        names->names[i] = names->names[--names->n];
}

void sim_names_copy(SimNames *to, const SimNames *from)
{
        names_clear(to);
        for (size_t i = 0; i < from->n; i++)
                sim_names_set(to, from->names[i].name, from->names[i].node);
}
