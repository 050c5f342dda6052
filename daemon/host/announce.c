/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What systemd is told of the supervisor: that it is up, what it is doing, that its loop turns.
 *
 *   STARTING --each slot was ready or has failed once--> UP <--a reload--> RELOADING
 *       any --stop--> STOPPING
 */

#include "daemon/core/log.h"
#include "daemon/core/notify.h"
#include "daemon/host/supervisor-private.h"

#include <stdio.h>

/* An app that cannot be loaded does not keep the service from being up: others may have to talk to
 * it, and its operator reads the status. */
static bool slot_is_settled(const Slot *slot)
{
        return slot->life.restarts > 0 || slot->life.state == SLOT_READY ||
               slot->life.state == SLOT_BACKOFF || slot->life.state == SLOT_FAILED;
}

static bool all_settled(Supervisor *supervisor)
{
        for (unsigned i = 0; i < supervisor->n_slots; i++)
                if (!slot_is_settled(supervisor_get_slot(supervisor, i)))
                        return false;
        return true;
}

static AnnounceState state_now(Supervisor *supervisor)
{
        AnnounceState state = supervisor->announce.state;

        if (supervisor->stopping)
                return ANNOUNCE_STOPPING;
        if (state == ANNOUNCE_STARTING)
                return all_settled(supervisor) ? ANNOUNCE_UP : ANNOUNCE_STARTING;
        return supervisor->reloading ? ANNOUNCE_RELOADING : ANNOUNCE_UP;
}

/* Of an app: how many of its workers serve, and what the first that does not is about. */
static void describe_app(SupervisorApp *app, char *text, size_t size)
{
        const Slot *other = NULL;
        unsigned ready = 0;
        int n;

        for (unsigned i = 0; i < app->n_slots; i++) {
                if (app->slots[i].life.state == SLOT_READY && !app->slots[i].error)
                        ready++;
                else if (!other || app->slots[i].error)
                        other = &app->slots[i];
        }
        n = snprintf(
                text, size, "%s: %u of %u workers ready", app->config->name, ready, app->n_slots);
        if (other && n > 0 && (size_t)n < size)
                snprintf(text + n, size - (size_t)n, "; %s/%u %s%s%.*s", app->config->name,
                        other->index, slot_state_name(other->life.state), other->error ? ": " : "",
                        SLICE_FMT(slot_error_line(other)));
}

static void describe(Supervisor *supervisor, char *text, size_t size)
{
        if (supervisor->n_apps == 0)
                snprintf(text, size,
                        "no app is set up: nothing is served. Add [app NAME] with "
                        "directory=FOLDER to the settings, then restart");
        else
                describe_app(&supervisor->apps[0], text, size);
}

/* A manager that does not listen is not worth more than a line for developers. */
static void told(int r)
{
        if (r < 0)
                log_debug("systemd cannot be told: %s", strerror(-r));
}

/* A second past the time at which the last worker is killed. */
static void announce_stop(Supervisor *supervisor)
{
        told(notify_stopping("stopping: workers drain"));
        told(notify_extend(
                supervisor->config->drain_timeout_ns + SLOT_LEAVE_TIMEOUT_NS + NSEC_PER_SEC));
}

void announce_step(Supervisor *supervisor)
{
        Announce *announce = &supervisor->announce;
        AnnounceState state = state_now(supervisor);
        char text[ANNOUNCE_TEXT_MAX];

        if (!notify_is_wanted())
                return;
        describe(supervisor, text, sizeof(text));
        if (state == announce->state && strcmp(text, announce->text) == 0)
                return;
        if (state == announce->state)
                told(notify_status("%s", text));
        else if (state == ANNOUNCE_UP)
                told(notify_ready("%s", text));
        else if (state == ANNOUNCE_RELOADING)
                told(notify_reloading("%s", text));
        else
                announce_stop(supervisor);
        announce->state = state;
        memcpy(announce->text, text, strlen(text) + 1);
}

static void alive(RingTimer *timer)
{
        Supervisor *supervisor = CONTAINER_OF(timer, Supervisor, announce.watchdog);

        told(notify_watchdog());
        if (ring_timer_arm(supervisor->ring, timer,
                    ring_now(supervisor->ring) + supervisor->announce.watchdog_ns) < 0)
                log_error("out of memory for the watchdog's timer");
}

void announce_begin(Supervisor *supervisor)
{
        Announce *announce = &supervisor->announce;

        ring_timer_init(&announce->watchdog, alive);
        announce->watchdog_ns = notify_watchdog_ns();
        if (announce->watchdog_ns)
                alive(&announce->watchdog);
}
