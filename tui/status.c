/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl status, reload: questions to a running daemon
 */

#include "tui/ask.h"

#include <getopt.h>
#include <stdio.h>

typedef struct Question {
        const char *socket; /* NULL: the default */
        bool json;
        char **arguments; /* what is no option */
        int n_arguments;
} Question;

static int question_parse(int argc, char **argv, Question *ret)
{
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "socket", required_argument, NULL, 's' },
                { 0 },
        };
        Question question = { 0 };
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (c == 'j')
                        question.json = true;
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
                r = ask(question.socket, "io.durabled.Manager.Status", NULL, ASK_TIMEOUT_MS,
                        &status, NULL);
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
                r = ask(question.socket, "io.durabled.Manager.Reload", NULL, ASK_TIMEOUT_MS,
                        &answer, NULL);
        if (!r && !question.json)
                printf("reloaded\n");
        return r;
}
