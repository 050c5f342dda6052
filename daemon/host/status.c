/* SPDX-License-Identifier: Apache-2.0 */

/* What Status() answers: our own figures, and each ready worker's, asked for at that moment. */

#include "daemon/host/supervisor-private.h"

static json_t *status_steering(const Supervisor *supervisor)
{
        static const char *const modes[] = {
                [STEERING_AUTO] = "auto",
                [STEERING_LATE] = "late",
                [STEERING_ADDRESS] = "address",
                [STEERING_OFF] = "off",
        };
        const Steer *steer = supervisor->steer;
        SteerCounters counters = { 0 };

        if (steer) /* else no app is set up */
                steer_get_counters(steer, &counters);
        return json_pack("{s:s, s:b, s:s, s:I, s:I, s:I, s:I}", "mode",
                modes[supervisor->config->steering], "active", steer && steer_is_active(steer),
                "reason", steer ? steer_get_reason(steer) : "no app is set up", "address",
                (json_int_t)counters.address, "fallback", (json_int_t)counters.fallback, "refused",
                (json_int_t)counters.refused, "lost", (json_int_t)counters.lost);
}

/* What a worker said of itself under key, or null. */
static json_t *stats_part(const json_t *stats, const char *key)
{
        json_t *part = json_object_get(stats, key);

        return json_is_object(part) ? json_incref(part) : json_null();
}

/* A worker that serves nothing but why its app cannot be loaded has failed. */
static const char *state_of(const Slot *slot)
{
        return slot_state_name(
                slot->life.state == SLOT_READY && slot->error ? SLOT_FAILED : slot->life.state);
}

static json_t *status_worker(const Slot *slot, const json_t *stats)
{
        const Supervisor *supervisor = slot->supervisor;
        uint64_t address, fallback;

        steer_get_slot_counters(supervisor->steer, slot_number(slot), &address, &fallback);
        return json_pack("{s:i, s:i, s:s, s:f, s:i, s:I, s:o, s:{s:I, s:I}, s:o, s:o, s:o}", "slot",
                (int)slot->index, "pid", (int)slot->pid, "state", state_of(slot), "since_s",
                (double)(ring_now(supervisor->ring) - slot->life.since) / NSEC_PER_SEC, "restarts",
                (int)slot->life.restarts, "version", (json_int_t)slot->generation, "error",
                slot->error ? json_string(slot->error) : json_null(), "steered", "address",
                (json_int_t)address, "fallback", (json_int_t)fallback, "edge",
                stats_part(stats, "edge"), "objects", stats_part(stats, "objects"), "runtime",
                stats_part(stats, "runtime"));
}

static json_t *status_apps(const StatsQuery *query)
{
        const Supervisor *supervisor = query->supervisor;
        json_t *apps = json_array();

        for (size_t i = 0; i < supervisor->n_apps; i++) {
                const SupervisorApp *app = &supervisor->apps[i];
                json_t *workers = json_array();

                for (unsigned j = 0; j < app->n_slots; j++) {
                        const Slot *slot = &app->slots[j];

                        (void)json_array_append_new(
                                workers, status_worker(slot, query->stats[slot_number(slot)]));
                }
                (void)json_array_append_new(
                        apps, json_pack("{s:s, s:s, s:o}", "name", app->config->name, "directory",
                                      app->host->directory, "workers", workers));
        }
        return apps;
}

static json_t *status_listeners(const Supervisor *supervisor)
{
        const Listener *listener = supervisor->listener;
        json_t *listeners = json_array();

        for (size_t i = 0; listener && i < listener->n_groups; i++)
                (void)json_array_append_new(listeners,
                        json_pack("{s:s, s:s}", "address", listener->groups[i].name, "kind",
                                listener->groups[i].kind == LISTENER_PUBLIC ? "public"
                                                                            : "address"));
        return listeners;
}

static json_t *status_new(const StatsQuery *query)
{
        const Supervisor *supervisor = query->supervisor;

        return json_pack("{s:s, s:i, s:f, s:b, s:o, s:o, s:o, s:s}", "version", DURABLED_VERSION,
                "pid", (int)getpid(), "uptime_s",
                (double)(ring_now(supervisor->ring) - supervisor->started) / NSEC_PER_SEC,
                "development", supervisor->config->development, "steering",
                status_steering(supervisor), "apps", status_apps(query), "listeners",
                status_listeners(supervisor), "note",
                supervisor->listener ? supervisor->listener->note : "");
}

static void query_free(StatsQuery *query)
{
        for (unsigned i = 0; query->stats && i < query->supervisor->n_slots; i++)
                json_decref(query->stats[i]);
        free(query->stats);
        free(query->waiting);
        free(query);
}

static void query_end(StatsQuery *query)
{
        _cleanup_(json_decref_p) json_t *status = status_new(query);

        ring_timer_disarm(query->supervisor->ring, &query->timer);
        list_unlink(&query->link);
        query->fn(status, query->data);
        query_free(query);
}

static void query_timed_out(RingTimer *timer)
{
        query_end(CONTAINER_OF(timer, StatsQuery, timer));
}

static void query_settle(StatsQuery *query, unsigned number, json_t *stats)
{
        if (!query->waiting[number])
                return;
        query->waiting[number] = false;
        query->stats[number] = json_incref(stats);
        if (--query->n_waiting == 0)
                query_end(query);
}

void query_answered(Slot *slot, uint64_t id, json_t *stats)
{
        list_for_each_safe(link, &slot->supervisor->queries) {
                StatsQuery *query = list_entry(link, StatsQuery, link);

                if (query->id == id) {
                        query_settle(query, slot_number(slot), stats);
                        return;
                }
        }
}

void query_slot_lost(Slot *slot)
{
        list_for_each_safe(link, &slot->supervisor->queries)
                query_settle(list_entry(link, StatsQuery, link), slot_number(slot), NULL);
}

void supervisor_query(Supervisor *supervisor, void (*fn)(json_t *status, void *data), void *data)
{
        StatsQuery *query = calloc(1, sizeof(*query));

        if (!query) {
                fn(NULL, data);
                return;
        }
        query->supervisor = supervisor;
        query->id = ++supervisor->query_last;
        query->fn = fn;
        query->data = data;
        query->waiting = calloc(MAX(supervisor->n_slots, 1u), sizeof(*query->waiting));
        query->stats = calloc(MAX(supervisor->n_slots, 1u), sizeof(*query->stats));
        ring_timer_init(&query->timer, query_timed_out);
        list_init(&query->link);
        if (!query->waiting || !query->stats ||
                ring_timer_arm(supervisor->ring, &query->timer,
                        ring_now(supervisor->ring) + STATS_TIMEOUT_NS) < 0) {
                query_free(query);
                fn(NULL, data);
                return;
        }
        list_append(&supervisor->queries, &query->link);
        for (unsigned i = 0; i < supervisor->n_slots; i++) {
                query->waiting[i] = slot_ask_stats(supervisor_get_slot(supervisor, i), query->id);
                query->n_waiting += query->waiting[i];
        }
        if (query->n_waiting == 0)
                query_end(query);
}

void query_end_all(Supervisor *supervisor)
{
        list_for_each_safe(link, &supervisor->queries)
                query_end(list_entry(link, StatsQuery, link));
}
