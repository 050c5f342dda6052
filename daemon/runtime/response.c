/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/response.h"

#include <errno.h>

/* What the edge writes itself, or what holds for one connection alone (RFC 9110, 7.6.1). */
static const Slice framing_headers[] = {
        { "Connection", 10 },
        { "Content-Length", 14 },
        { "Date", 4 },
        { "Keep-Alive", 10 },
        { "Proxy-Connection", 16 },
        { "TE", 2 },
        { "Trailer", 7 },
        { "Transfer-Encoding", 17 },
        { "Upgrade", 7 },
};

static bool is_framing(Slice name)
{
        for (size_t i = 0; i < ELEMENTSOF(framing_headers); i++)
                if (slice_equal_case(name, framing_headers[i]))
                        return true;
        return false;
}

static bool is_token(Slice name)
{
        static const char others[] = "!#$%&'*+-.^_`|~";

        for (size_t i = 0; i < name.len; i++) {
                char c = name.data[i];

                if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                            (c && strchr(others, c))))
                        return false;
        }
        return name.len > 0;
}

static bool is_field_value(Slice value)
{
        for (size_t i = 0; i < value.len; i++) {
                unsigned char c = (unsigned char)value.data[i];

                if ((c < 0x20 && c != '\t') || c == 0x7f)
                        return false;
        }
        return true;
}

/* Checks all, and finds what to keep. */
static int head_measure(const HttpHeader *headers, size_t n_headers, size_t *ret_n, size_t *ret_len,
        int64_t *ret_content_length)
{
        int64_t content_length = -1;
        size_t n = 0, len = 0;

        for (size_t i = 0; i < n_headers; i++) {
                const HttpHeader *h = &headers[i];
                uint64_t value;

                if (!is_token(h->name) || !is_field_value(h->value))
                        return -EINVAL;
                if (slice_equal_case(h->name, SLICE("Content-Length"))) {
                        if (!slice_to_u64(slice_trim(h->value), &value) || value > INT64_MAX)
                                return -EINVAL;
                        if (content_length >= 0 && content_length != (int64_t)value)
                                return -EINVAL;
                        content_length = (int64_t)value;
                }
                if (is_framing(h->name))
                        continue;
                n++;
                len += h->name.len + h->value.len;
        }
        *ret_n = n;
        *ret_len = len;
        *ret_content_length = content_length;
        return 0;
}

static Slice pack(char **to, Slice from)
{
        Slice copy = { *to, from.len };

        if (from.len)
                memcpy(*to, from.data, from.len);
        *to += from.len;
        return copy;
}

int response_head_new(unsigned status, const HttpHeader *headers, size_t n_headers,
        int64_t content_length, ResponseHead **ret)
{
        ResponseHead *head;
        int64_t declared;
        size_t n, len;
        char *to;
        int r;

        if (status < 200 || status > 999 || content_length < -1)
                return -EINVAL;
        r = head_measure(headers, n_headers, &n, &len, &declared);
        if (r)
                return r;
        head = malloc(sizeof *head + n * sizeof *head->headers + len);
        if (!head)
                return -ENOMEM;
        *head = (ResponseHead){
                .status = status,
                .content_length = content_length >= 0 ? content_length : declared,
        };
        to = (char *)&head->headers[n];
        for (size_t i = 0; i < n_headers; i++)
                if (!is_framing(headers[i].name))
                        head->headers[head->n_headers++] = (HttpHeader){
                                .name = pack(&to, headers[i].name),
                                .value = pack(&to, slice_trim(headers[i].value)),
                        };
        *ret = head;
        return 0;
}

int response_new(Response **ret)
{
        Response *response = malloc(sizeof *response);

        if (!response)
                return -ENOMEM;
        *response = (Response){ .refs = 1, .state = RESPONSE_OPEN, .shard = -1 };
        list_init(&response->chunks);
        *ret = response;
        return 0;
}

Response *response_ref(Response *response)
{
        response->refs++;
        return response;
}

static void response_drop_chunks(Response *response)
{
        List *link;

        while ((link = list_pop(&response->chunks)))
                chunk_free(list_entry(link, Chunk, link));
        response->queued = 0;
}

Response *response_unref(Response *response)
{
        if (response && --response->refs == 0) {
                response_drop_chunks(response);
                free(response->head);
                free(response->abort_message);
                free(response);
        }
        return NULL;
}

static bool response_is_final(const Response *response)
{
        return response->state == RESPONSE_ENDED || response->state == RESPONSE_ABORTED;
}

static void response_set_state(Response *response, ResponseState state)
{
        static const bool allowed[4][4] = {
                [RESPONSE_OPEN] = { [RESPONSE_STARTED] = true, [RESPONSE_ABORTED] = true },
                [RESPONSE_STARTED] = { [RESPONSE_ENDED] = true, [RESPONSE_ABORTED] = true },
        };

        dd_assert(allowed[response->state][state]);
        response->state = state;
}

/* Tells the consumer, without nesting: what changes while it looks is told when it has looked. */
static void response_notify(Response *response)
{
        response->notify_more = true;
        if (response->notifying)
                return;
        response_ref(response);
        response->notifying = true;
        while (response->notify_more) {
                response->notify_more = false;
                if (response->consumer && !response->cancelled)
                        response->consumer->on_change(response, response->consumer_data);
        }
        response->notifying = false;
        response_unref(response);
}

void response_set_producer(Response *response, const ResponseProducer *producer, void *data)
{
        response->producer = producer;
        response->producer_data = data;
}

void response_set_consumer(Response *response, const ResponseConsumer *consumer, void *data)
{
        response->consumer = consumer;
        response->consumer_data = data;
}

void response_start(Response *response, ResponseHead *head)
{
        if (response->state == RESPONSE_ABORTED) {
                free(head);
                return;
        }
        response_set_state(response, RESPONSE_STARTED);
        response->head = head;
        response_notify(response);
}

void response_push(Response *response, Chunk *chunk)
{
        dd_assert(response->state == RESPONSE_STARTED || response->state == RESPONSE_ABORTED);
        if (response->state == RESPONSE_ABORTED || response->cancelled || chunk->len == 0) {
                chunk_free(chunk);
                return;
        }
        list_append(&response->chunks, &chunk->link);
        response->queued += chunk->len;
        if (response_is_full(response))
                response->wait_room = true;
        response_notify(response);
}

bool response_is_full(const Response *response)
{
        return response->queued >= RESPONSE_QUEUE_MAX;
}

void response_finish(Response *response, ResponseHead *head, Chunk *chunk)
{
        if (response->state == RESPONSE_ABORTED) {
                free(head);
                chunk_free(chunk);
                return;
        }
        response_set_state(response, RESPONSE_STARTED);
        response->head = head;
        if (chunk && chunk->len && !response->cancelled) {
                list_append(&response->chunks, &chunk->link);
                response->queued += chunk->len;
        } else {
                chunk_free(chunk);
        }
        response_set_state(response, RESPONSE_ENDED);
        response_notify(response);
}

void response_end(Response *response)
{
        if (response->state == RESPONSE_ABORTED)
                return;
        response_set_state(response, RESPONSE_ENDED);
        response_notify(response);
}

void response_abort(Response *response, unsigned status, unsigned retry_after, const char *message)
{
        if (response_is_final(response))
                return;
        response_set_state(response, RESPONSE_ABORTED);
        response->abort_status = status;
        response->retry_after = retry_after;
        response->abort_message = message ? strdup(message) : NULL;
        response_drop_chunks(response);
        response_notify(response);
}

void response_finish_text(Response *response, unsigned status, const char *text)
{
        static const HttpHeader headers[] = {
                { { "Content-Type", 12 }, { "text/plain; charset=utf-8", 25 } },
        };
        size_t len = strlen(text);
        ResponseHead *head = NULL;
        Chunk *chunk;
        int r;

        chunk = chunk_new(text, len);
        r = response_head_new(status, headers, ELEMENTSOF(headers), (int64_t)len, &head);
        if (!chunk || r) {
                chunk_free(chunk);
                free(head);
                response_abort(response, 500, 0, "out of memory");
                return;
        }
        response_finish(response, head, chunk);
}

ResponseState response_get_state(const Response *response)
{
        return response->state;
}

const ResponseHead *response_get_head(const Response *response)
{
        return response->head;
}

/*
 * What the producer does now is not told: the consumer is about to use what it popped, and looks
 * again after it. Telling it from inside its own pop would let it take later chunks before.
 */
static void response_tell_room(Response *response)
{
        bool notifying = response->notifying;

        response->wait_room = false;
        if (!response->producer || !response->producer->on_room ||
                response->state != RESPONSE_STARTED)
                return;
        response_ref(response);
        response->notifying = true;
        response->producer->on_room(response, response->producer_data);
        response->notifying = notifying;
        response_unref(response);
}

Chunk *response_pop(Response *response)
{
        List *link = list_pop(&response->chunks);
        Chunk *chunk;

        if (!link)
                return NULL;
        chunk = list_entry(link, Chunk, link);
        response->queued -= chunk->len;
        /* Half empty before it is told: otherwise a producer is woken for each chunk. */
        if (response->wait_room && response->queued <= RESPONSE_QUEUE_MAX / 2)
                response_tell_room(response);
        return chunk;
}

bool response_is_drained(const Response *response)
{
        return response->state == RESPONSE_ENDED && list_is_empty(&response->chunks);
}

void response_cancel(Response *response)
{
        if (response->cancelled)
                return;
        response->cancelled = true;
        response_ref(response);
        response_drop_chunks(response);
        if (!response_is_final(response) && response->producer && response->producer->on_cancel)
                response->producer->on_cancel(response, response->producer_data);
        response_unref(response);
}

bool response_is_cancelled(const Response *response)
{
        return response->cancelled;
}

unsigned response_get_abort(
        const Response *response, unsigned *ret_retry_after, const char **ret_message)
{
        dd_assert(response->state == RESPONSE_ABORTED);
        if (ret_retry_after)
                *ret_retry_after = response->retry_after;
        if (ret_message)
                *ret_message = response->abort_message ? response->abort_message : "";
        return response->abort_status;
}

void response_set_shard(Response *response, int shard)
{
        response->shard = shard;
}

int response_get_shard(const Response *response)
{
        return response->shard;
}
