/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/log.h"
#include "daemon/edge/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static void body_on_write(RingOp *op, const RingResult *result);

void body_init(Body *body)
{
        buf_init(&body->memory, 0);
        buf_init(&body->writing, 0);
        body->fd = -1;
        ring_op_init(&body->op, body_on_write);
}

void body_done(Body *body)
{
        buf_done(&body->memory);
        buf_done(&body->writing);
        close_p(&body->fd);
        body->fd = -1;
}

void body_clear(Body *body)
{
        dd_assert(!body->op.pending);
        body_done(body);
        body->written = 0;
        body->ended = false;
}

/* A file without a name: it is gone with its last descriptor, whatever happens to us. */
static int spool_open(const char *directory)
{
        char path[4096];
        int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        if (fd >= 0)
                return fd;
        if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
                return -errno;
        if ((size_t)snprintf(path, sizeof path, "%s/body-XXXXXX", directory) >= sizeof path)
                return -ENAMETOOLONG;
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0)
                return -errno;
        (void)unlink(path);
        return fd;
}

static void body_submit(Conn *conn)
{
        Body *body = &conn->body;

        ring_write(conn->edge->ring, &body->op, body->fd, buf_data(&body->writing),
                body->writing.len, body->written, false);
}

/* What has gathered goes to the file, while the next bytes gather. */
static void body_flush(Conn *conn)
{
        Body *body = &conn->body;
        Buf empty = body->writing;

        dd_assert(!body->op.pending && body->writing.len == 0);
        body->writing = body->memory;
        body->memory = empty;
        body_submit(conn);
}

static bool body_should_flush(const Body *body)
{
        return body->fd >= 0 && !body->op.pending &&
               (body->memory.len >= BODY_WRITE_SIZE || (body->ended && body->memory.len > 0));
}

int body_append(Conn *conn, Slice data)
{
        Body *body = &conn->body;
        int r = buf_append_slice(&body->memory, data);

        if (r < 0)
                return r;
        if (body->fd < 0 && body->memory.len > REQUEST_MEMORY_MAX) {
                body->fd = spool_open(conn->edge->options.spool_directory);
                if (body->fd < 0)
                        return TAKE_FD(body->fd);
        }
        if (body_should_flush(body))
                body_flush(conn);
        return 0;
}

bool body_is_full(const Body *body)
{
        return body->op.pending && body->memory.len >= BODY_WRITE_SIZE;
}

bool body_end(Conn *conn)
{
        Body *body = &conn->body;

        body->ended = true;
        if (body_should_flush(body))
                body_flush(conn);
        return !body->op.pending;
}

void body_fail(Conn *conn, int r)
{
        log_warn("request body: cannot keep it in %s: %s", conn->edge->options.spool_directory,
                strerror(-r));
        exchange_fail(conn, r == -ENOSPC ? 507 : 500, "The request's body could not be kept.");
}

static void body_on_write(RingOp *op, const RingResult *result)
{
        Conn *conn = CONTAINER_OF(op, Conn, body.op);
        Body *body = &conn->body;

        if (conn->state != CONN_BODY && conn->state != CONN_SPOOL) {
                /* The request has failed meanwhile; the pump or the end goes on from here. */
                conn_defer(conn);
                return;
        }
        if (result->res <= 0) {
                body_fail(conn, result->res == 0 ? -EIO : result->res);
                return;
        }
        body->written += (uint64_t)result->res;
        buf_consume(&body->writing, (size_t)result->res);
        if (body->writing.len > 0)
                body_submit(conn);
        else if (body_should_flush(body))
                body_flush(conn);
        if (conn->state == CONN_SPOOL && !body->op.pending)
                exchange_serve(conn);
        conn_update_receive(conn);
}
