/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include <errno.h>
#include <fcntl.h>
#include <structmember.h>

EventObject *event_object_new(Job *job)
{
        PyTypeObject *type = module_types.event;
        EventObject *self;

        self = (EventObject *)type->tp_alloc(type, 0);
        if (!self)
                return NULL;
        self->job = job_ref(job);
        if (job->object) {
                self->object = guest_get_object(job->python, job->object);
                if (!self->object) {
                        Py_DECREF(self);
                        return NULL;
                }
                Py_INCREF(self->object);
        } else {
                self->object = Py_NewRef(Py_None);
        }
        return self;
}

static int event_traverse(PyObject *object, visitproc visit, void *arg)
{
        EventObject *self = (EventObject *)object;

        Py_VISIT(Py_TYPE(object));
        Py_VISIT(self->state);
        Py_VISIT(self->object);
        Py_VISIT(self->headers);
        return 0;
}

static int event_clear(PyObject *object)
{
        EventObject *self = (EventObject *)object;

        Py_CLEAR(self->state);
        Py_CLEAR(self->object);
        Py_CLEAR(self->headers);
        return 0;
}

static void event_dealloc(PyObject *object)
{
        EventObject *self = (EventObject *)object;
        PyTypeObject *type = Py_TYPE(object);

        PyObject_GC_UnTrack(object);
        event_clear(object);
        job_unref(self->job);
        type->tp_free(object);
        Py_DECREF(type);
}

static PyObject *latin1(Slice slice)
{
        return PyUnicode_DecodeLatin1(slice.data, (Py_ssize_t)slice.len, NULL);
}

static const Request *get_request(PyObject *object)
{
        return ((EventObject *)object)->job->request;
}

static PyObject *event_get_entry(PyObject *object, void *closure)
{
        return PyBool_FromLong(((EventObject *)object)->object == Py_None);
}

static PyObject *event_get_id(PyObject *object, void *closure)
{
        return PyUnicode_FromString(get_request(object)->id);
}

/* closure: where in a Request the text is. */
static PyObject *event_get_text(PyObject *object, void *closure)
{
        return latin1(*(const Slice *)((const char *)get_request(object) + (size_t)closure));
}

static PyObject *event_get_url(PyObject *object, void *closure)
{
        const Request *request = get_request(object);
        PyObject *url;
        char *text;
        size_t len;

        if (request->target.len && request->target.data[0] != '/' && request->target.data[0] != '*')
                return latin1(request->target);
        len = request->scheme.len + 3 + request->authority.len + request->target.len;
        text = PyMem_Malloc(len + 1);
        if (!text)
                return PyErr_NoMemory();
        snprintf(text, len + 1, "%.*s://%.*s", SLICE_FMT(request->scheme),
                SLICE_FMT(request->authority));
        if (request->target.len)
                memcpy(text + len - request->target.len, request->target.data, request->target.len);
        url = PyUnicode_DecodeLatin1(text, (Py_ssize_t)len, NULL);
        PyMem_Free(text);
        return url;
}

static PyObject *event_get_headers(PyObject *object, void *closure)
{
        EventObject *self = (EventObject *)object;
        const Request *request = get_request(object);

        if (!self->headers)
                self->headers = headers_to_python(request->headers, request->n_headers);
        return Py_XNewRef(self->headers);
}

static PyObject *event_get_content_length(PyObject *object, void *closure)
{
        return PyLong_FromUnsignedLongLong(get_request(object)->body_len);
}

static PyObject *event_get_cancelled(PyObject *object, void *closure)
{
        const Job *job = ((EventObject *)object)->job;

        return PyBool_FromLong(__atomic_load_n(&job->cancelled, __ATOMIC_RELAXED));
}

static PyObject *event_get_over(PyObject *object, void *closure)
{
        return PyBool_FromLong(((EventObject *)object)->job->over);
}

#define TEXT(_name, _doc)                                                            \
        {                                                                            \
#_name, event_get_text, NULL, _doc, (void *)offsetof(Request, _name) \
        }

static PyGetSetDef event_getset[] = {
        { "entry", event_get_entry, NULL, "Whether it is for the app's entrypoint.", NULL },
        { "id", event_get_id, NULL, "The request id.", NULL },
        TEXT(method, "The method."),
        TEXT(scheme, "http or https."),
        TEXT(authority, "Host, or the authority of an absolute target."),
        TEXT(path, "The path, as sent."),
        TEXT(query, "The query, as sent, without '?'."),
        TEXT(peer, "The client's address."),
        { "url", event_get_url, NULL, "scheme://authority and the target as sent.", NULL },
        { "headers", event_get_headers, NULL, "A list of (name, value), Latin-1.", NULL },
        { "content_length", event_get_content_length, NULL, "Bytes of the body.", NULL },
        { "cancelled", event_get_cancelled, NULL, "Whether nobody waits for an answer.", NULL },
        { "over", event_get_over, NULL, "Whether its last step has ended.", NULL },
        { NULL, NULL, NULL, NULL, NULL },
};

static PyMemberDef event_members[] = {
        { "object", T_OBJECT, offsetof(EventObject, object), READONLY, "Its Object, or None." },
        { "state", T_OBJECT, offsetof(EventObject, state), 0, "The driver's; gone when over." },
        { NULL, 0, 0, 0, NULL },
};

/* pread() until all is there; without the GIL. */
static int read_body(int fd, char *to, size_t len)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = pread(fd, to + done, len - done, (off_t)done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }
        return 0;
}

static PyObject *event_body(PyObject *object, PyObject *args)
{
        const Request *request = get_request(object);
        PyObject *bytes;
        int r;

        if (request->body_fd < 0)
                return PyBytes_FromStringAndSize(request->body.data, (Py_ssize_t)request->body.len);
        bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)request->body_len);
        if (!bytes)
                return NULL;
        Py_BEGIN_ALLOW_THREADS r =
                read_body(request->body_fd, PyBytes_AS_STRING(bytes), request->body_len);
        Py_END_ALLOW_THREADS if (r < 0)
        {
                Py_DECREF(bytes);
                errno = -r;
                return PyErr_SetFromErrno(PyExc_OSError);
        }
        return bytes;
}

static PyObject *event_body_file(PyObject *object, PyObject *args)
{
        const Request *request = get_request(object);
        PyObject *io, *file, *bytes;
        int fd;

        io = PyImport_ImportModule("io");
        if (!io)
                return NULL;
        if (request->body_fd < 0) {
                bytes = event_body(object, NULL);
                file = bytes ? PyObject_CallMethod(io, "BytesIO", "O", bytes) : NULL;
                Py_XDECREF(bytes);
                Py_DECREF(io);
                return file;
        }
        fd = fcntl(request->body_fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0) {
                PyErr_SetFromErrno(PyExc_OSError);
                close_p(&fd);
                Py_DECREF(io);
                return NULL;
        }
        file = PyObject_CallMethod(io, "open", "is", fd, "rb");
        if (!file)
                close(fd);
        Py_DECREF(io);
        return file;
}

/* The job, when it can still be answered; NULL with an exception. */
static Job *get_answerable(PyObject *object, JobAnswer expected)
{
        Job *job = ((EventObject *)object)->job;

        if (job->over)
                PyErr_SetString(PyExc_RuntimeError, "the event is over");
        else if (job->answer != expected)
                PyErr_SetString(PyExc_RuntimeError,
                        job->answer == JOB_ANSWER_NONE ? "the answer has not been started"
                        : job->answer == JOB_ANSWER_STARTED
                                ? "the answer has been started already"
                                : "the event has been answered already");
        else
                return job;
        return NULL;
}

static ResponseHead *new_head(unsigned status, PyObject *headers, int64_t content_length)
{
        _cleanup_(py_decref_p) PyObject *sequence = NULL;
        _cleanup_(free_p) HttpHeader *list = NULL;
        ResponseHead *head = NULL;
        size_t n;
        int r;

        if (headers_from_python(headers, &list, &n, &sequence) < 0)
                return NULL;
        r = response_head_new(status, list, n, content_length, &head);
        if (r == 0)
                return head;
        if (r == -ENOMEM)
                PyErr_NoMemory();
        else if (headers_refuse(list, n) == 0)
                PyErr_Format(PyExc_ValueError,
                        "the answer's head cannot be sent: status %u must be 200 to 999 and the "
                        "content lengths must agree",
                        status);
        return NULL;
}

static PyObject *event_respond(PyObject *object, PyObject *args)
{
        ResponseHead *head = NULL;
        Chunk *chunk = NULL;
        PyObject *headers;
        unsigned status;
        Py_buffer body;
        Job *job;

        if (!PyArg_ParseTuple(args, "IOy*:respond", &status, &headers, &body))
                return NULL;
        job = get_answerable(object, JOB_ANSWER_NONE);
        /* What a HEAD or a 304 declares is the length of what it does not send. */
        if (job)
                head = new_head(status, headers,
                        !body.len && (status == 304 ||
                                             slice_equal(job->request->method, SLICE("HEAD")))
                                ? -1
                                : body.len);
        if (head) {
                chunk = chunk_new(body.buf, (size_t)body.len);
                if (!chunk)
                        PyErr_NoMemory();
        }
        PyBuffer_Release(&body);
        if (!chunk) {
                free(head);
                return NULL;
        }
        job_respond(job, head, chunk);
        Py_RETURN_NONE;
}

static PyObject *event_start(PyObject *object, PyObject *args)
{
        long long content_length = -1;
        PyObject *headers;
        ResponseHead *head;
        unsigned status;
        Job *job;

        if (!PyArg_ParseTuple(args, "IO|L:start", &status, &headers, &content_length))
                return NULL;
        job = get_answerable(object, JOB_ANSWER_NONE);
        if (!job)
                return NULL;
        head = new_head(status, headers, content_length);
        if (!head)
                return NULL;
        job_start(job, head);
        Py_RETURN_NONE;
}

static PyObject *event_write(PyObject *object, PyObject *args)
{
        Py_buffer data;
        Job *job;
        int r;

        if (!PyArg_ParseTuple(args, "y*:write", &data))
                return NULL;
        job = get_answerable(object, JOB_ANSWER_STARTED);
        r = job ? job_write(job, data.buf, (size_t)data.len) : -1;
        PyBuffer_Release(&data);
        if (!job)
                return NULL;
        if (r == -ENOMEM)
                return PyErr_NoMemory();
        if (r < 0) {
                PyErr_SetString(PyExc_BrokenPipeError, "nobody waits for the answer any more");
                return NULL;
        }
        Py_RETURN_NONE;
}

static PyObject *event_end(PyObject *object, PyObject *args)
{
        Job *job = get_answerable(object, JOB_ANSWER_STARTED);

        if (!job)
                return NULL;
        job_end(job);
        Py_RETURN_NONE;
}

static PyObject *event_abort(PyObject *object, PyObject *args, PyObject *keywords)
{
        static char *names[] = { (char *)"status", (char *)"message", (char *)"retry_after", NULL };
        unsigned status, retry_after = 0;
        const char *message;
        Job *job = ((EventObject *)object)->job;

        if (!PyArg_ParseTupleAndKeywords(
                    args, keywords, "Is|I:abort", names, &status, &message, &retry_after))
                return NULL;
        if (status < 400 || status > 599) {
                PyErr_Format(
                        PyExc_ValueError, "an abort's status must be 400 to 599, not %u", status);
                return NULL;
        }
        job = get_answerable(
                object, job->answer == JOB_ANSWER_STARTED ? JOB_ANSWER_STARTED : JOB_ANSWER_NONE);
        if (!job)
                return NULL;
        job_abort(job, status, retry_after, message);
        Py_RETURN_NONE;
}

static PyObject *event_forward(PyObject *object, PyObject *other)
{
        CallObject *call;
        bool collect;
        Job *job;

        if (!PyObject_TypeCheck(other, module_types.call)) {
                PyErr_Format(PyExc_TypeError, "forward() takes a Call, not %.100s",
                        Py_TYPE(other)->tp_name);
                return NULL;
        }
        job = get_answerable(object, JOB_ANSWER_NONE);
        if (!job)
                return NULL;
        call = (CallObject *)other;
        pthread_mutex_lock(&call->call->lock);
        collect = call->call->collect;
        if (!collect && !call->forwarded)
                call->call->forwarding = true;
        pthread_mutex_unlock(&call->call->lock);
        if (collect || call->forwarded) {
                PyErr_SetString(PyExc_RuntimeError,
                        collect ? "the call's answer is collected: it cannot be forwarded"
                                : "the call's answer has been forwarded already");
                return NULL;
        }
        call->forwarded = true;
        job_forward(job, call->call);
        Py_RETURN_NONE;
}

static PyObject *event_ready(PyObject *object, PyObject *args)
{
        job_ready(((EventObject *)object)->job);
        Py_RETURN_NONE;
}

static PyObject *event_reset(PyObject *object, PyObject *args)
{
        const EventObject *self = (EventObject *)object;

        if (self->job->over || self->object == Py_None) {
                PyErr_SetString(PyExc_RuntimeError,
                        self->job->over ? "the event is over" : "the event has no object");
                return NULL;
        }
        job_reset(self->job);
        Py_RETURN_NONE;
}

static PyObject *event_flush(PyObject *object, PyObject *args)
{
        job_flush();
        Py_RETURN_NONE;
}

static PyMethodDef event_methods[] = {
        { "body", event_body, METH_NOARGS, "The whole body as bytes." },
        { "body_file", event_body_file, METH_NOARGS, "The body as a binary file." },
        { "respond", event_respond, METH_VARARGS, "respond(status, headers, body)" },
        { "start", event_start, METH_VARARGS, "start(status, headers, content_length=-1)" },
        { "write", event_write, METH_VARARGS, "write(data): waits while the answer is full." },
        { "end", event_end, METH_NOARGS, "Ends what start() began." },
        { "abort", (PyCFunction)(void (*)(void))event_abort, METH_VARARGS | METH_KEYWORDS,
                "abort(status, message, retry_after=0)" },
        { "forward", event_forward, METH_O, "forward(call): the call's answer is this one's." },
        { "ready", event_ready, METH_NOARGS, "Any thread: it may be resumed." },
        { "reset", event_reset, METH_NOARGS, "After this step the object's guest is made anew." },
        { "flush", event_flush, METH_NOARGS, "Sends now what the step has answered." },
        { NULL, NULL, 0, NULL },
};

static PyType_Slot event_slots[] = {
        { Py_tp_doc, (void *)(uintptr_t) "One event: a request and its answer." },
        { Py_tp_dealloc, event_dealloc },
        { Py_tp_traverse, event_traverse },
        { Py_tp_clear, event_clear },
        { Py_tp_getset, event_getset },
        { Py_tp_members, event_members },
        { Py_tp_methods, event_methods },
        { 0, NULL },
};

PyType_Spec event_type_spec = {
        .name = "_durabled.Event",
        .basicsize = sizeof(EventObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = event_slots,
};
