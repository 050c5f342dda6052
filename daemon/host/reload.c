/* SPDX-License-Identifier: Apache-2.0 */

/* New code, slot after slot. */

#include "daemon/core/log.h"
#include "daemon/host/supervisor-private.h"

#include <stdio.h>

#define RELOAD_FAILED "io.durabled.Manager.ReloadFailed"

/* durablectl dev prints them itself. */
static void log_notes(const SupervisorApp *app)
{
        const Manifest *manifest = app->host->manifest;

        for (size_t i = 0; i < manifest->n_notes; i++)
                log_note("%s: wrangler.jsonc:%u: %s: %s", app->config->name,
                        manifest->notes[i].line, manifest->notes[i].key,
                        manifest->notes[i].message);
}

int supervisor_load_apps(Supervisor *supervisor, Catalog *catalog, HostAppError *error)
{
        int r = 0;

        for (size_t i = 0; i < supervisor->n_apps && r == 0; i++)
                r = host_app_load(
                        supervisor->apps[i].config, catalog, &supervisor->apps[i].next, error);
        for (size_t i = 0; i < supervisor->n_apps; i++) {
                SupervisorApp *app = &supervisor->apps[i];

                if (r == 0) {
                        host_app_free(app->host);
                        app->host = TAKE_PTR(app->next);
                        if (!supervisor->config->development)
                                log_notes(app);
                } else if (app->next) {
                        app->next = host_app_free(app->next);
                }
        }
        return r;
}

/* message: NULL on success. */
static void reload_answer(Supervisor *supervisor, const char *message)
{
        _cleanup_(json_decref_p) json_t *parameters =
                json_pack("{s:s}", "message", message ? message : "");
        List *link;

        while ((link = list_pop(&supervisor->reload_calls))) {
                ReloadCall *waiting = list_entry(link, ReloadCall, link);

                if (message)
                        control_reply_error(waiting->call, RELOAD_FAILED, parameters);
                else
                        control_reply(waiting->call, NULL);
                free(waiting);
        }
}

static void reload_begin(Supervisor *supervisor)
{
        HostAppError error = { 0 };
        int r;

        supervisor->reload_again = false;
        r = supervisor_load_apps(supervisor, supervisor->catalog, &error);
        if (r < 0)
                snprintf(error.message, sizeof(error.message), "%s", strerror(-r));
        if (r != 0) {
                log_error("reload: %s. Nothing has changed", error.message);
                supervisor->reloading = false;
                reload_answer(supervisor, error.message);
                return;
        }
        supervisor->generation++;
        supervisor->reloading = true;
        log_info("reload: version %llu", (unsigned long long)supervisor->generation);
}

static void reload_end(Supervisor *supervisor, const char *message)
{
        supervisor->reloading = false;
        if (supervisor->reload_again) {
                reload_begin(supervisor);
                return;
        }
        if (!message)
                log_info("reload: done");
        reload_answer(supervisor, message);
}

/* One slot on its way to the new version: true when it is there; *ret_failed when it cannot be. */
static bool reload_slot(Supervisor *supervisor, Slot *slot, bool *ret_failed)
{
        if (slot->generation != supervisor->generation) {
                switch (slot->life.state) {
                case SLOT_STARTING:
                case SLOT_READY:
                        slot_drain(slot);
                        return false;
                case SLOT_DRAINING:
                        return false;
                case SLOT_STOPPED:
                case SLOT_BACKOFF:
                case SLOT_FAILED:
                        slot_start(slot);
                        break;
                }
        }
        if (slot->life.state == SLOT_BACKOFF || slot->life.state == SLOT_FAILED)
                *ret_failed = true;
        return slot->life.state == SLOT_READY;
}

/* Why the new version cannot be loaded, where its workers serve that; or NULL. */
static const char *first_error(Supervisor *supervisor)
{
        for (unsigned i = 0; i < supervisor->n_slots; i++)
                if (supervisor_get_slot(supervisor, i)->error)
                        return supervisor_get_slot(supervisor, i)->error;
        return NULL;
}

void reload_step(Supervisor *supervisor)
{
        while (supervisor->reloading && !supervisor->stopping) {
                unsigned ready = 0;
                bool failed = false;
                Slot *slot = NULL;

                for (; ready < supervisor->n_slots; ready++) {
                        slot = supervisor_get_slot(supervisor, ready);
                        if (!reload_slot(supervisor, slot, &failed))
                                break;
                }
                if (failed)
                        reload_end(supervisor,
                                slot->error ? slot->error : "the worker ended: see the log");
                else if (ready == supervisor->n_slots)
                        reload_end(supervisor, first_error(supervisor));
                else
                        return;
        }
        if (supervisor->stopping)
                reload_answer(supervisor, "the service is stopping");
}

void supervisor_reload(Supervisor *supervisor, ControlCall *call)
{
        if (call) {
                ReloadCall *waiting = calloc(1, sizeof(*waiting));

                if (!waiting) {
                        control_reply_error(call, RELOAD_FAILED, NULL);
                        return;
                }
                waiting->call = call;
                list_init(&waiting->link);
                list_append(&supervisor->reload_calls, &waiting->link);
        }
        if (supervisor->reloading)
                supervisor->reload_again = true;
        else if (!supervisor->stopping)
                reload_begin(supervisor);
        announce_step(supervisor);
        reload_step(supervisor);
        announce_step(supervisor);
}
