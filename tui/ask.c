/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/ask.h"

#include <stdio.h>

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

static bool says_absent(const char *error)
{
        const char *name = strrchr(error, '.');

        return name && strcmp(name, ".NoSuchObject") == 0;
}

/* A person who waits sees that it goes on. */
static void show_wait(unsigned seconds)
{
        if (seconds > 1)
                fprintf(stderr, "\r\033[Kwaiting for the daemon: %u s", seconds);
}

static int call(
        Client *client, const char *method, json_t *parameters, int timeout_ms, VarlinkReply *reply)
{
        bool is_terminal = isatty(STDERR_FILENO) == 1;
        int r;

        if (is_terminal)
                client_on_wait(client, show_wait);
        r = client_call(client, method, parameters, timeout_ms, reply);
        if (is_terminal)
                fputs("\r\033[K", stderr);
        return r;
}

int ask(const char *socket, const char *method, json_t *parameters, int timeout_ms, json_t **ret,
        int *ret_fd)
{
        _cleanup_(client_close_p) Client *client = NULL;
        _cleanup_(free_p) char *found = socket ? NULL : client_default_path();
        const char *path = socket ? socket : found;
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
        r = call(client, method, parameters, timeout_ms, &reply);
        if (r) {
                complain("%s on '%s': %s", method, path, strerror(-r));
                return EXIT_FAILED;
        }
        if (reply.error) {
                complain_of_reply(&reply);
                r = says_absent(reply.error) ? EXIT_ABSENT : EXIT_FAILED;
                varlink_reply_done(&reply);
                return r;
        }
        if (ret_fd)
                *ret_fd = client_take_fd(client);
        *ret = json_incref(reply.parameters);
        varlink_reply_done(&reply);
        return EXIT_OK;
}

void print_json(json_t *value)
{
        json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
}

const char *text_of(json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));

        return text ? text : "";
}

long long number_of(json_t *object, const char *key)
{
        return (long long)json_number_value(json_object_get(object, key));
}
