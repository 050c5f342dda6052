/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include <errno.h>

/* What _durabled.fetch() was given; buffers are the arguments' own. */
typedef struct Fetch {
        Job *caller;
        unsigned class_index;
        ObjectId id;
        Slice name, method, url;
        const HttpHeader *headers;
        size_t n_headers;
        Py_buffer body;
        int blocking;
} Fetch;

static int refuse(PyObject *exception, const char *message)
{
        PyErr_SetString(exception, message);
        return -1;
}

/* Cuts url into the parts of the request; what a relative one lacks is the caller's. */
static int parse_url(const Fetch *fetch, RequestParts *parts)
{
        const Request *caller = fetch->caller->request;
        Slice rest = fetch->url, path;
        const char *colon;

        for (size_t i = 0; i < rest.len; i++)
                if ((unsigned char)rest.data[i] <= 0x20 || (unsigned char)rest.data[i] >= 0x7f)
                        return refuse(PyExc_ValueError,
                                "url holds a space, a control character or one beyond ASCII: "
                                "percent-encode it");
        rest = slice_cut(&rest, '#');
        parts->scheme = caller->scheme;
        parts->authority = caller->authority;
        colon = memmem(rest.data, rest.len, "://", 3);
        if (colon && rest.data[0] != '/') {
                parts->scheme = slice_head(rest, (size_t)(colon - rest.data));
                rest = slice_skip(rest, parts->scheme.len + 3);
                parts->authority = rest;
                for (size_t i = 0; i < rest.len; i++)
                        if (rest.data[i] == '/' || rest.data[i] == '?') {
                                parts->authority = slice_head(rest, i);
                                break;
                        }
                rest = slice_skip(rest, parts->authority.len);
        } else if (!rest.len || rest.data[0] != '/') {
                return refuse(PyExc_ValueError,
                        "url must be absolute, as in http://host/path, or begin with '/'");
        }
        parts->target = rest;
        path = slice_cut(&rest, '?');
        parts->query = rest;
        parts->path = path.len ? path : SLICE("/");
        return 0;
}

/* The target as it is sent: always with a path. *ret_text is malloc'd when it had to be made. */
static int complete_target(RequestParts *parts, char **ret_text)
{
        char *text;

        if (parts->target.len && parts->target.data[0] == '/')
                return 0;
        text = malloc(parts->target.len + 1);
        if (!text)
                return -ENOMEM;
        text[0] = '/';
        if (parts->target.len)
                memcpy(text + 1, parts->target.data, parts->target.len);
        parts->target = (Slice){ text, parts->target.len + 1 };
        *ret_text = text;
        return 0;
}

/* The caller's chain and the caller: malloc'd, NULL when memory is out. */
static char *new_chain(const Job *caller)
{
        Slice before = caller->request->chain;
        size_t own = caller->object ? IDENT_TEXT_SIZE : 0;
        char *chain = malloc(before.len + own + 1), *to = chain;

        if (!chain)
                return NULL;
        if (before.len) {
                memcpy(to, before.data, before.len);
                to += before.len;
        }
        if (own) {
                if (before.len)
                        *to++ = ',';
                memcpy(to, caller->object->id_text, IDENT_TEXT_SIZE - 1);
                to += IDENT_TEXT_SIZE - 1;
        }
        *to = '\0';
        return chain;
}

static int new_request(const Fetch *fetch, Request **ret)
{
        const Request *caller = fetch->caller->request;
        _cleanup_(free_p) char *chain = NULL, *target = NULL, *body = NULL;
        RequestParts parts = {
                .id = caller->id,
                .method = fetch->method,
                .peer = caller->peer,
                .headers = fetch->headers,
                .n_headers = fetch->n_headers,
                .body_fd = -1,
                .deadline = caller->deadline,
        };
        int r;

        if (parse_url(fetch, &parts) < 0)
                return -1;
        chain = new_chain(fetch->caller);
        if (fetch->body.len)
                body = malloc((size_t)fetch->body.len);
        if (!chain || (fetch->body.len && !body) || complete_target(&parts, &target) < 0) {
                PyErr_NoMemory();
                return -1;
        }
        if (body)
                memcpy(body, fetch->body.buf, (size_t)fetch->body.len);
        parts.chain = slice_from(chain);
        parts.body = body;
        parts.body_len = (size_t)fetch->body.len;
        r = request_new(&parts, ret);
        if (r < 0) {
                PyErr_NoMemory();
                return -1;
        }
        TAKE_PTR(body);
        return 0;
}

static PyObject *fetch_call(const Fetch *fetch)
{
        PythonRuntime *python = fetch->caller->python;
        CallParts parts = {
                .caller = fetch->caller,
                .class_index = fetch->class_index,
                .id = &fetch->id,
                .name = fetch->name,
                .blocking = fetch->blocking,
        };
        CallObject *object;
        Call *call;

        if (!http_is_token(fetch->method)) {
                refuse(PyExc_ValueError, "method is not a valid HTTP method");
                return NULL;
        }
        if (headers_refuse(fetch->headers, fetch->n_headers) < 0 ||
                new_request(fetch, &parts.request) < 0)
                return NULL;
        if (call_new(python, &parts, &call) < 0) {
                request_unref(parts.request);
                return PyErr_NoMemory();
        }
        object = call_object_new(call);
        if (!object) {
                call_release(call);
                return NULL;
        }
        return (PyObject *)object;
}

static int check_target(PyObject *event, const char *id, Fetch *fetch)
{
        PythonRuntime *python = python_runtime;

        fetch->caller = ((EventObject *)event)->job;
        if (fetch->caller->over)
                return refuse(PyExc_RuntimeError, "the event is over");
        if (fetch->class_index >= python->config->n_classes)
                return refuse(PyExc_ValueError, "class_index: the app has no such class");
        if (ident_parse(slice_from(id), &fetch->id))
                return refuse(PyExc_ValueError, "id must be 64 hex digits");
        return 0;
}

PyObject *call_fetch(PyObject *module, PyObject *args, PyObject *keywords)
{
        static char *names[] = { (char *)"event", (char *)"class_index", (char *)"id",
                (char *)"name", (char *)"method", (char *)"url", (char *)"headers", (char *)"body",
                (char *)"blocking", NULL };
        _cleanup_(py_decref_p) PyObject *sequence = NULL;
        _cleanup_(free_p) HttpHeader *headers = NULL;
        const char *id, *name, *method, *url;
        Py_ssize_t name_len, method_len, url_len;
        PyObject *event, *list, *call = NULL;
        Fetch fetch = { 0 };

        if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!Isz#s#s#Oz*|p:fetch", names,
                    module_types.event, &event, &fetch.class_index, &id, &name, &name_len, &method,
                    &method_len, &url, &url_len, &list, &fetch.body, &fetch.blocking))
                return NULL;
        fetch.name = (Slice){ name, name ? (size_t)name_len : 0 };
        fetch.method = (Slice){ method, (size_t)method_len };
        fetch.url = (Slice){ url, (size_t)url_len };
        if (check_target(event, id, &fetch) == 0 &&
                headers_from_python(list, &headers, &fetch.n_headers, &sequence) == 0) {
                fetch.headers = headers;
                call = fetch_call(&fetch);
        }
        PyBuffer_Release(&fetch.body);
        return call;
}
