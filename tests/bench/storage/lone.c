/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <fcntl.h>
#include <sys/uio.h>

/*
 * A lone write: one commit at a time, from its BEGIN to durable, against one RWF_DSYNC write of a
 * block into blocks that have been written, in turn. --kind threaded: the commit is made by a
 * runner, which waits for the loop's thread, as a worker does it.
 */

#define FILE_BYTES (16u << 20)

typedef struct Plain {
        int fd;
        unsigned char *block;
        uint64_t offset;
} Plain;

static void plain_open(Plain *plain, const char *folder)
{
        _cleanup_(free_p) char *path = NULL;
        void *block;

        if (asprintf(&path, "%s/plain", folder) < 0 || posix_memalign(&block, DISK_BLOCK, 1 << 20))
                die("out of memory");
        plain->block = block;
        plain->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0640);
        if (plain->fd < 0)
                die("%s cannot be made", path);
        for (plain->offset = 0; plain->offset < FILE_BYTES; plain->offset += 1 << 20)
                if (pwrite(plain->fd, block, 1 << 20, (off_t)plain->offset) != 1 << 20)
                        die("%s cannot be written", path);
        if (fdatasync(plain->fd))
                die("%s cannot be synced", path);
        plain->offset = 0;
}

static uint64_t plain_write(Plain *plain)
{
        struct iovec block = { plain->block, DISK_BLOCK };
        uint64_t begun = now_ns();

        plain->block[0]++;
        if (pwritev2(plain->fd, &block, 1, (off_t)plain->offset, RWF_DSYNC) != DISK_BLOCK)
                die("a plain write failed");
        plain->offset = (plain->offset + DISK_BLOCK) % FILE_BYTES;
        return now_ns() - begun;
}

static uint64_t lone_commit(Engine *engine, Connection *object)
{
        uint64_t begun = now_ns(), lsn;

        connection_update(object);
        lsn = store_object_lsn(engine->store, object->path);
        if (engine->threaded)
                check(store_sync(engine->store, lsn), "a commit");
        else
                while (store_flushed(engine->store) < lsn)
                        engine_turn(engine, UINT64_MAX);
        return now_ns() - begun;
}

static void print_round(Samples *ours, Samples *plain)
{
        printf("{\"side\": \"ours\", \"p50_us\": %.1f, \"p99_us\": %.1f, \"plain_p50_us\": %.1f, "
               "\"plain_p99_us\": %.1f}\n",
                samples_get(ours, 0.5), samples_get(ours, 0.99), samples_get(plain, 0.5),
                samples_get(plain, 0.99));
        fflush(stdout);
        samples_done(ours);
        samples_done(plain);
}

void case_lone(const Args *args)
{
        Samples ours = {}, plain = {};
        Connection object = {};
        Engine engine;
        Plain file;

        plain_open(&file, args->folder);
        engine_open(&engine, args->folder, &(StoreOptions){}, args->kind != NULL);
        object.path = object_path(engine.objects, 1);
        connection_open(&object, object.path, NULL);
        make_table(object.db);
        engine_sync(&engine);
        for (unsigned i = 0; i < args->pairs; i++) {
                uint64_t end = now_ns() + (uint64_t)(args->seconds * 1e9);

                while (now_ns() < end) {
                        samples_add(&ours, lone_commit(&engine, &object));
                        samples_add(&plain, plain_write(&file));
                }
                print_round(&ours, &plain);
        }
        connection_close(&object);
        free(object.path);
        close(file.fd);
        free(file.block);
        engine_close(&engine);
}
