/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A worker whose loop does not turn is killed: systemd's watchdog judges the supervisor alone
 *
 * Each ready worker is asked for its figures from time to time, and answers from its loop, which
 * waits for no guest and no disk. One that has not answered for worker_timeout= will not.
 */

#include "daemon/core/log.h"
#include "daemon/host/supervisor-private.h"

#define ASK_ID 0 /* of no query */

/* A question a quarter of the time: one that is lost, or late on a busy machine, kills nobody. */
static uint64_t watch_step_ns(const Supervisor *supervisor)
{
        return MAX(supervisor->config->worker_timeout_ns / 4, NSEC_PER_MSEC);
}

void watch_heard(Slot *slot)
{
        slot->heard = ring_now(slot->supervisor->ring);
}

static void watch_slot(Slot *slot, uint64_t now)
{
        uint64_t timeout = slot->supervisor->config->worker_timeout_ns;

        if (slot->life.state != SLOT_READY)
                return;
        if (slot->heard && now - slot->heard > timeout) {
                log_error("%s/%u: has given no sign of life for %.1f s, killed",
                        slot->app->config->name, slot->index,
                        (double)(now - slot->heard) / (double)NSEC_PER_SEC);
                slot->heard = 0; /* said once */
                slot_kill(slot);
        } else {
                (void)slot_ask_stats(slot, ASK_ID);
        }
}

static void watch_all(RingTimer *timer)
{
        Supervisor *supervisor = CONTAINER_OF(timer, Supervisor, watch_timer);
        uint64_t now = ring_now(supervisor->ring), step = watch_step_ns(supervisor);
        /* Who was stopped itself has heard nobody. */
        bool late = supervisor->watch_last && now - supervisor->watch_last > 2 * step;

        supervisor->watch_last = now;
        for (unsigned i = 0; late && i < supervisor->n_slots; i++)
                watch_heard(supervisor_get_slot(supervisor, i));
        for (unsigned i = 0; i < supervisor->n_slots; i++)
                watch_slot(supervisor_get_slot(supervisor, i), now);
        if (ring_timer_arm(supervisor->ring, timer, now + step) < 0)
                log_error("out of memory for a timer: workers that hang are not noticed any more");
}

void watch_begin(Supervisor *supervisor)
{
        ring_timer_init(&supervisor->watch_timer, watch_all);
        if (supervisor->config->worker_timeout_ns)
                watch_all(&supervisor->watch_timer);
}
