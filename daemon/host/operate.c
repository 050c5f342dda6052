/* SPDX-License-Identifier: Apache-2.0 */

/* Operators' requests on their way to the workers that own the objects, and back. */

#include "daemon/core/log.h"
#include "daemon/host/supervisor-private.h"

#include <errno.h>

/* What a worker allows itself, and some time for the way: it answers before this. */
#define OPERATE_TIMEOUT_NS (660 * NSEC_PER_SEC)

typedef struct Pending {
        List link;
        Slot *slot;
        uint64_t id;
        RingTimer timer;
        OperateFn fn;
        void *data;
} Pending;

static void pending_end(Pending *pending, json_t *answer, int fd)
{
        ring_timer_disarm(pending->slot->supervisor->ring, &pending->timer);
        list_unlink(&pending->link);
        pending->fn(answer, fd, pending->data);
        free(pending);
}

static void pending_fail(Pending *pending, const char *error, const char *message)
{
        _cleanup_(json_decref_p) json_t *answer =
                json_pack("{s:s, s:s}", "error", error, "message", message);

        pending_end(pending, answer, -1);
}

static void pending_timed_out(RingTimer *timer)
{
        pending_fail(CONTAINER_OF(timer, Pending, timer), "Timeout",
                "the worker gives no answer: look later whether it was done");
}

int slot_operate(Slot *slot, json_t *message, int fd, OperateFn fn, void *data)
{
        Supervisor *supervisor = slot->supervisor;
        Pending *pending;
        int r;

        if (slot->life.state != SLOT_READY || slot->boot_fd < 0)
                return -EHOSTDOWN;
        pending = calloc(1, sizeof(*pending));
        if (!pending)
                return -ENOMEM;
        pending->slot = slot;
        pending->id = ++supervisor->operate_last;
        pending->fn = fn;
        pending->data = data;
        list_init(&pending->link);
        ring_timer_init(&pending->timer, pending_timed_out);
        r = json_object_set_new(message, "type", json_string("operate"));
        r = r ?: json_object_set_new(message, "id", json_integer((json_int_t)pending->id));
        if (r < 0)
                r = -ENOMEM;
        r = r ?: boot_send(slot->boot_fd, message, &fd, fd >= 0);
        /* Without a timer it ends with the worker's answer or the worker. */
        if (r < 0) {
                free(pending);
                return r;
        }
        (void)ring_timer_arm(
                supervisor->ring, &pending->timer, ring_now(supervisor->ring) + OPERATE_TIMEOUT_NS);
        list_append(&supervisor->operations, &pending->link);
        return 0;
}

void operate_abandon(Supervisor *supervisor, const void *data)
{
        list_for_each(link, &supervisor->operations) {
                const Pending *pending = list_entry(link, Pending, link);
                _cleanup_(json_decref_p) json_t *message = NULL;

                if (pending->data != data || pending->slot->boot_fd < 0)
                        continue;
                message = json_pack("{s:s, s:I}", "type", "abandon", "id", (json_int_t)pending->id);
                /* A worker that is not told does it for nobody. */
                if (message)
                        (void)boot_send(pending->slot->boot_fd, message, NULL, 0);
        }
}

void operate_answered(Slot *slot, json_t *message, int fd)
{
        uint64_t id = (uint64_t)json_integer_value(json_object_get(message, "id"));

        list_for_each_safe(link, &slot->supervisor->operations) {
                Pending *pending = list_entry(link, Pending, link);

                if (pending->slot == slot && pending->id == id) {
                        pending_end(pending, message, fd);
                        return;
                }
        }
        log_debug("%s/%u: answers a request that nobody waits for", slot->app->config->name,
                slot->index);
        close_p(&fd);
}

/* What is ended may begin another: each turn looks anew. */
static Pending *find_of(Supervisor *supervisor, const Slot *slot)
{
        list_for_each(link, &supervisor->operations) {
                Pending *pending = list_entry(link, Pending, link);

                if (!slot || pending->slot == slot)
                        return pending;
        }
        return NULL;
}

void operate_slot_lost(Slot *slot)
{
        Pending *pending;

        while ((pending = find_of(slot->supervisor, slot)))
                pending_fail(pending, "Unavailable",
                        "the object's worker has ended: look whether it was done");
}

void operate_end_all(Supervisor *supervisor)
{
        Pending *pending;

        while ((pending = find_of(supervisor, NULL)))
                pending_fail(pending, "Unavailable", "the service has stopped");
}
