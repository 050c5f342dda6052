/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl status, reload, objects: questions to a running daemon
 */

#include "tui/client.h"
#include "tui/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#define CALL_TIMEOUT_MS 30000

typedef struct Question {
        const char *socket; /* NULL: the default */
        bool json, id;
        char **arguments; /* what is no option */
        int n_arguments;
} Question;

static int question_parse(int argc, char **argv, Question *ret)
{
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "id", no_argument, NULL, 'i' },
                { "socket", required_argument, NULL, 's' },
                { 0 },
        };
        Question question = { 0 };
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (c == 'j')
                        question.json = true;
                else if (c == 'i')
                        question.id = true;
                else if (c == 's')
                        question.socket = optarg;
                else
                        return EXIT_USAGE;
        }
        question.arguments = argv + optind;
        question.n_arguments = argc - optind;
        *ret = question;
        return 0;
}

/* The error's last word, and what it is about: "NoSuchClass: class Shop". */
static void complain_of_reply(const VarlinkReply *reply)
{
        const char *why = json_string_value(json_object_get(reply->parameters, "message"));
        const char *name = strrchr(reply->error, '.');
        const char *key;
        json_t *value;

        name = name ? name + 1 : reply->error;
        if (why) {
                complain("%s: %s", name, why);
                return;
        }
        json_object_foreach(reply->parameters, key, value)
        {
                if (json_is_string(value)) {
                        complain("%s: %s '%s'", name, key, json_string_value(value));
                        return;
                }
        }
        complain("the daemon refused: %s", reply->error);
}

static int ask(const Question *question, const char *method, json_t *parameters, json_t **ret)
{
        _cleanup_(client_close_p) Client *client = NULL;
        _cleanup_(free_p) char *found = question->socket ? NULL : client_default_path();
        const char *path = question->socket ? question->socket : found;
        VarlinkReply reply;
        int r;

        if (!path)
                return EXIT_FAILED;
        r = client_open(path, &client);
        if (r) {
                complain("no daemon answers on '%s': %s; start one with 'durablectl dev' or "
                         "'systemctl start durabled', or name its socket with --socket",
                        path, strerror(-r));
                return EXIT_NO_DAEMON;
        }
        r = client_call(client, method, parameters, CALL_TIMEOUT_MS, &reply);
        if (r) {
                complain("%s on '%s': %s", method, path, strerror(-r));
                return EXIT_FAILED;
        }
        if (reply.error) {
                complain_of_reply(&reply);
                varlink_reply_done(&reply);
                return EXIT_FAILED;
        }
        *ret = json_incref(reply.parameters);
        varlink_reply_done(&reply);
        return EXIT_OK;
}

static void print_json(json_t *value)
{
        json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
}

static const char *text_of(json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));

        return text ? text : "";
}

static long long number_of(json_t *object, const char *key)
{
        return (long long)json_number_value(json_object_get(object, key));
}

static void print_worker(const char *app, json_t *worker)
{
        json_t *edge = json_object_get(worker, "edge");
        json_t *objects = json_object_get(worker, "objects");
        char name[128];

        snprintf(name, sizeof name, "%s/%lld", app, number_of(worker, "slot"));
        printf("%-22s %-9s %8lld %8lld %8lld %10lld %8lld %8lld %8lld\n", name,
                text_of(worker, "state"), number_of(worker, "pid"), number_of(worker, "restarts"),
                number_of(objects, "open"), number_of(edge, "requests"),
                number_of(edge, "accepted_address"), number_of(edge, "handed_out"),
                number_of(edge, "handed_in"));
}

static void print_status(json_t *status)
{
        json_t *steering = json_object_get(status, "steering");
        json_t *apps = json_object_get(status, "apps");
        json_t *app, *worker;
        size_t i, j;

        printf("durabled %s, pid %lld, up %lld s\n", text_of(status, "version"),
                number_of(status, "pid"), number_of(status, "uptime_s"));
        if (json_is_true(json_object_get(steering, "active")))
                printf("steering in the kernel (%s): %lld by address, %lld by fallback\n",
                        text_of(steering, "mode"), number_of(steering, "address"),
                        number_of(steering, "fallback"));
        else
                printf("steering in user space: %s\n", text_of(steering, "reason"));
        printf("\n%-22s %-9s %8s %8s %8s %10s %8s %8s %8s\n", "WORKER", "STATE", "PID", "RESTARTS",
                "OBJECTS", "REQUESTS", "STEERED", "HAND-OUT", "HAND-IN");
        json_array_foreach(apps, i, app) json_array_foreach(json_object_get(app, "workers"), j,
                worker) print_worker(text_of(app, "name"), worker);
}

int command_status(int argc, char **argv)
{
        _cleanup_(json_decref_p) json_t *status = NULL;
        Question question;
        int r;

        r = question_parse(argc, argv, &question);
        if (!r && question.n_arguments) {
                complain("status takes no argument '%s'", question.arguments[0]);
                r = EXIT_USAGE;
        }
        if (!r)
                r = ask(&question, "io.durabled.Manager.Status", NULL, &status);
        if (r)
                return r;
        if (question.json)
                print_json(status);
        else
                print_status(status);
        return EXIT_OK;
}

int command_reload(int argc, char **argv)
{
        _cleanup_(json_decref_p) json_t *answer = NULL;
        Question question;
        int r;

        r = question_parse(argc, argv, &question);
        if (!r)
                r = ask(&question, "io.durabled.Manager.Reload", NULL, &answer);
        if (!r && !question.json)
                printf("reloaded\n");
        return r;
}

int command_objects(int argc, char **argv)
{
        _cleanup_(json_decref_p) json_t *answer = NULL, *parameters = NULL;
        Question question;
        const char *address;
        int r;

        r = question_parse(argc, argv, &question);
        if (r)
                return r;
        if (question.n_arguments != 4 || strcmp(question.arguments[0], "address") != 0) {
                complain("usage: durablectl objects address APP CLASS NAME [--id]");
                return EXIT_USAGE;
        }
        parameters = json_pack("{s:s,s:s,s:s}", "app", question.arguments[1], "class",
                question.arguments[2], question.id ? "id" : "name", question.arguments[3]);
        if (!parameters) {
                complain("APP, CLASS and NAME must be UTF-8");
                return EXIT_USAGE;
        }
        r = ask(&question, "io.durabled.Objects.Address", parameters, &answer);
        if (r)
                return r;
        if (question.json) {
                print_json(answer);
                return EXIT_OK;
        }
        printf("id      %s\nshard   %lld\nslot    %lld\n", text_of(answer, "id"),
                number_of(answer, "shard"), number_of(answer, "slot"));
        address = text_of(answer, "ipv6");
        if (!*address)
                address = text_of(answer, "ipv4");
        printf("address %s\n", *address ? address : "none: object addresses are off");
        if (*text_of(answer, "url"))
                printf("url     %s\n", text_of(answer, "url"));
        return EXIT_OK;
}
