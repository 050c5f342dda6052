/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of a Response: for response.c and forward.c alone
 */

#include "daemon/runtime/message.h"

struct Response {
        unsigned refs;
        ResponseState state;
        bool cancelled;
        bool wait_room;   /* the queue was full and on_room has not been called since */
        bool notifying;   /* inside on_change */
        bool notify_more; /* something changed inside on_change */
        bool forwarded;   /* its producer is a forward */
        int shard;
        ResponseHead *head;
        List chunks;
        size_t queued;
        const ResponseProducer *producer;
        void *producer_data;
        const ResponseConsumer *consumer;
        void *consumer_data;
        unsigned abort_status, retry_after;
        char *abort_message;
};
