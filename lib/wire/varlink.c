/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/varlink.h"

#include <errno.h>

/* A message and its NUL byte. */
typedef struct Message {
        json_t *json;
        size_t size;
} Message;

/* Looks at the first message without taking it. 0 with *ret->json == NULL when it is no object. */
static int peek(const Buf *buf, Message *ret)
{
        Slice data = buf_slice(buf);
        ptrdiff_t end = slice_find(slice_head(data, VARLINK_MESSAGE_MAX + 1u), '\0');
        json_error_t error;
        json_t *json;

        if (end < 0)
                return data.len > VARLINK_MESSAGE_MAX ? VARLINK_E_TOO_LARGE : VARLINK_E_MORE;
        json = json_loadb(data.data, (size_t)end, JSON_REJECT_DUPLICATES, &error);
        if (!json && json_error_code(&error) == json_error_out_of_memory)
                return -ENOMEM;
        if (json && !json_is_object(json)) {
                json_decref(json);
                json = NULL;
        }
        *ret = (Message){ .json = json, .size = (size_t)end + 1 };
        return 0;
}

static bool is_name_character(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
}

/* "org.example.Interface.Member": at least two parts, none of them empty. */
static bool is_qualified(const json_t *value)
{
        const char *name = json_string_value(value);
        bool dotted = false;
        char before = '.';

        if (!name || json_string_length(value) > VARLINK_NAME_MAX)
                return false;
        for (const char *at = name; *at; at++) {
                if (*at == '.' ? before == '.' : !is_name_character(*at))
                        return false;
                dotted = dotted || *at == '.';
                before = *at;
        }
        return dotted && before != '.';
}

static bool read_flag(json_t *value, bool *ret)
{
        *ret = json_is_true(value);
        return json_is_boolean(value);
}

static bool read_parameters(json_t *value, json_t **ret)
{
        if (json_is_object(value))
                *ret = value;
        return json_is_object(value) || json_is_null(value);
}

/* A borrowed view of a message of either direction. */
typedef struct Fields {
        json_t *name, *parameters;
        bool more, oneway, upgrade, continues;
} Fields;

static bool read_call_fields(json_t *json, Fields *ret)
{
        const char *key;
        json_t *value;
        bool good = true;

        json_object_foreach(json, key, value)
        {
                if (strcmp(key, "method") == 0)
                        ret->name = value;
                else if (strcmp(key, "parameters") == 0)
                        good = good && read_parameters(value, &ret->parameters);
                else if (strcmp(key, "more") == 0)
                        good = good && read_flag(value, &ret->more);
                else if (strcmp(key, "oneway") == 0)
                        good = good && read_flag(value, &ret->oneway);
                else if (strcmp(key, "upgrade") == 0)
                        good = good && read_flag(value, &ret->upgrade);
                else
                        good = false;
        }
        return good && is_qualified(ret->name) && ret->more + ret->oneway + ret->upgrade <= 1;
}

static bool read_reply_fields(json_t *json, Fields *ret)
{
        const char *key;
        json_t *value;
        bool good = true;

        json_object_foreach(json, key, value)
        {
                if (strcmp(key, "error") == 0)
                        ret->name = value;
                else if (strcmp(key, "parameters") == 0)
                        good = good && read_parameters(value, &ret->parameters);
                else if (strcmp(key, "continues") == 0)
                        good = good && read_flag(value, &ret->continues);
                else
                        good = false;
        }
        return good && (!ret->name || (is_qualified(ret->name) && !ret->continues));
}

/* Owned copies of the name and the parameters. */
static int copy_fields(const Fields *fields, char **ret_name, json_t **ret_parameters)
{
        _cleanup_(free_p) char *name = NULL;
        json_t *parameters;

        if (fields->name) {
                name = strdup(json_string_value(fields->name));
                if (!name)
                        return -ENOMEM;
        }
        parameters = fields->parameters ? json_incref(fields->parameters) : json_object();
        if (!parameters)
                return -ENOMEM;
        *ret_name = TAKE_PTR(name);
        *ret_parameters = parameters;
        return 0;
}

int varlink_take_call(Buf *buf, VarlinkCall *ret)
{
        Message message = {};
        Fields fields = {};
        VarlinkCall call = {};
        int r = peek(buf, &message);

        if (r)
                return r;
        r = VARLINK_E_MALFORMED;
        if (message.json && read_call_fields(message.json, &fields))
                r = copy_fields(&fields, &call.method, &call.parameters);
        json_decref(message.json);
        if (r < 0)
                return r;
        buf_consume(buf, message.size);
        if (r)
                return r;
        call.more = fields.more;
        call.oneway = fields.oneway;
        call.upgrade = fields.upgrade;
        *ret = call;
        return 0;
}

int varlink_take_reply(Buf *buf, VarlinkReply *ret)
{
        Message message = {};
        Fields fields = {};
        VarlinkReply reply = {};
        int r = peek(buf, &message);

        if (r)
                return r;
        r = VARLINK_E_MALFORMED;
        if (message.json && read_reply_fields(message.json, &fields))
                r = copy_fields(&fields, &reply.error, &reply.parameters);
        json_decref(message.json);
        if (r < 0)
                return r;
        buf_consume(buf, message.size);
        if (r)
                return r;
        reply.continues = fields.continues;
        *ret = reply;
        return 0;
}

void varlink_call_done(VarlinkCall *call)
{
        free(call->method);
        json_decref(call->parameters);
        *call = (VarlinkCall){};
}

void varlink_reply_done(VarlinkReply *reply)
{
        free(reply->error);
        json_decref(reply->parameters);
        *reply = (VarlinkReply){};
}

/* Appends the message {name_key: name, "parameters": parameters, flag: true} and its NUL byte. */
static int write_message(
        Buf *buf, const char *name_key, const char *name, json_t *parameters, const char *flag)
{
        _cleanup_(json_decref_p) json_t *message = json_object();
        _cleanup_(free_p) char *text = NULL;
        size_t length;

        dd_assert(!parameters || json_is_object(parameters));
        if (!message || (name && json_object_set_new(message, name_key, json_string(name))) ||
                (parameters && json_object_set(message, "parameters", parameters)) ||
                (flag && json_object_set_new(message, flag, json_true())))
                return -ENOMEM;
        text = json_dumps(message, JSON_COMPACT);
        if (!text)
                return -ENOMEM;
        length = strlen(text);
        if (length > VARLINK_MESSAGE_MAX)
                return -ENOBUFS;
        return buf_append(buf, text, length + 1);
}

int varlink_write_call(Buf *buf, const char *method, json_t *parameters, bool more)
{
        return write_message(buf, "method", method, parameters, more ? "more" : NULL);
}

int varlink_write_reply(Buf *buf, json_t *parameters, bool continues)
{
        return write_message(buf, NULL, NULL, parameters, continues ? "continues" : NULL);
}

int varlink_write_error(Buf *buf, const char *error, json_t *parameters)
{
        return write_message(buf, "error", error, parameters, NULL);
}
