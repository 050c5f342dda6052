/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

#include <errno.h>

/*
 *   READING <--> WAITING (the response is full) --> gone
 */
typedef struct Stream {
        RingOp op;
        Ring *ring;
        Response *response;
        Chunk *chunk; /* being read into */
        uint64_t offset, left;
        int fd;
        bool cancelled;
        bool busy; /* inside a call of the response: not freed under it */
} Stream;

static void stream_free(Stream *stream)
{
        dd_assert(!stream->op.pending);
        response_set_producer(stream->response, NULL, NULL);
        response_unref(stream->response);
        chunk_free(stream->chunk);
        close(stream->fd);
        free(stream);
}

static void stream_fail(Stream *stream, const char *message)
{
        Response *response = response_ref(stream->response);

        stream_free(stream);
        response_abort(response, 500, 0, message);
        response_unref(response);
}

/* The last use of the stream. */
static void stream_continue(Stream *stream)
{
        size_t len = stream->left < ASSET_CHUNK ? (size_t)stream->left : ASSET_CHUNK;

        if (stream->cancelled) {
                stream_free(stream);
                return;
        }
        if (stream->left == 0) {
                Response *response = response_ref(stream->response);

                stream_free(stream);
                response_end(response);
                response_unref(response);
                return;
        }
        if (response_is_full(stream->response))
                return;
        stream->chunk = chunk_new(NULL, len);
        if (!stream->chunk) {
                stream_fail(stream, "Out of memory.");
                return;
        }
        ring_read(stream->ring, &stream->op, stream->fd, stream->chunk->data, len, stream->offset);
}

static void stream_on_read(RingOp *op, const RingResult *result)
{
        Stream *stream = CONTAINER_OF(op, Stream, op);
        Chunk *chunk = TAKE_PTR(stream->chunk);

        if (stream->cancelled || result->res == -EINTR || result->res == -EAGAIN) {
                chunk_free(chunk);
                stream_continue(stream);
                return;
        }
        if (result->res <= 0) {
                chunk_free(chunk);
                stream_fail(stream, result->res ? "The file could not be read."
                                                : "The file became shorter while it was sent.");
                return;
        }
        chunk->len = (size_t)result->res;
        stream->offset += chunk->len;
        stream->left -= chunk->len;
        stream->busy = true;
        response_push(stream->response, chunk);
        stream->busy = false;
        stream_continue(stream);
}

static void stream_on_room(Response *response, void *data)
{
        Stream *stream = data;

        if (!stream->busy && !stream->op.pending)
                stream_continue(stream);
}

static void stream_on_cancel(Response *response, void *data)
{
        Stream *stream = data;

        stream->cancelled = true;
        if (stream->op.pending)
                ring_cancel(stream->ring, &stream->op);
        else if (!stream->busy)
                stream_free(stream);
}

static const ResponseProducer stream_producer = { stream_on_room, stream_on_cancel };

int asset_stream(Ring *ring, int fd, uint64_t offset, uint64_t len, Response *response)
{
        Stream *stream = malloc(sizeof *stream);

        if (!stream)
                return -ENOMEM;
        *stream = (Stream){
                .ring = ring,
                .response = response_ref(response),
                .offset = offset,
                .left = len,
                .fd = fd,
        };
        ring_op_init(&stream->op, stream_on_read);
        response_set_producer(response, &stream_producer, stream);
        stream_continue(stream);
        return 0;
}
