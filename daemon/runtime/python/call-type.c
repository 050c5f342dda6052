/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include <errno.h>

CallObject *call_object_new(Call *call)
{
        PyTypeObject *type = module_types.call;
        CallObject *self;

        self = (CallObject *)type->tp_alloc(type, 0);
        if (!self)
                return NULL;
        self->call = call;
        self->wake = Py_NewRef(Py_None);
        return self;
}

static int call_traverse(PyObject *object, visitproc visit, void *arg)
{
        CallObject *self = (CallObject *)object;

        Py_VISIT(Py_TYPE(object));
        Py_VISIT(self->wake);
        Py_VISIT(self->headers);
        return 0;
}

static int call_clear(PyObject *object)
{
        CallObject *self = (CallObject *)object;

        Py_CLEAR(self->wake);
        Py_CLEAR(self->headers);
        return 0;
}

static void call_dealloc(PyObject *object)
{
        CallObject *self = (CallObject *)object;
        PyTypeObject *type = Py_TYPE(object);

        PyObject_GC_UnTrack(object);
        call_clear(object);
        Py_CLEAR(self->body);
        if (self->call)
                call_release(TAKE_PTR(self->call));
        type->tp_free(object);
        Py_DECREF(type);
}

static CallStage get_stage(CallObject *self)
{
        CallStage stage;

        pthread_mutex_lock(&self->call->lock);
        stage = self->call->stage;
        /* While the body is collected the head alone is nothing yet. */
        if (stage == CALL_HEAD && self->call->collect)
                stage = CALL_PENDING;
        pthread_mutex_unlock(&self->call->lock);
        return stage;
}

static PyObject *call_get_state(PyObject *object, void *closure)
{
        static const char *const names[] = { "pending", "head", "complete", "failed" };

        return PyUnicode_InternFromString(names[get_stage((CallObject *)object)]);
}

static PyObject *call_get_status(PyObject *object, void *closure)
{
        CallObject *self = (CallObject *)object;
        unsigned status;

        pthread_mutex_lock(&self->call->lock);
        status = self->call->status;
        pthread_mutex_unlock(&self->call->lock);
        if (!status)
                Py_RETURN_NONE;
        return PyLong_FromUnsignedLong(status);
}

static PyObject *call_get_headers(PyObject *object, void *closure)
{
        CallObject *self = (CallObject *)object;
        ResponseHead *head;

        if (!self->headers && !self->forwarded) {
                head = call_copy_head(self->call);
                if (head) {
                        self->headers = headers_to_python(head->headers, head->n_headers);
                        free(head);
                        if (!self->headers)
                                return NULL;
                }
        }
        if (!self->headers)
                Py_RETURN_NONE;
        return Py_NewRef(self->headers);
}

static PyObject *call_get_body(PyObject *object, void *closure)
{
        CallObject *self = (CallObject *)object;
        char *to;

        if (!self->body && get_stage(self) == CALL_COMPLETE) {
                /* COMPLETE: the loop is done with it. */
                self->body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->call->body_len);
                if (!self->body)
                        return NULL;
                to = PyBytes_AS_STRING(self->body);
                for (List *link; (link = list_pop(&self->call->body));) {
                        Chunk *chunk = list_entry(link, Chunk, link);

                        memcpy(to, chunk->data, chunk->len);
                        to += chunk->len;
                        chunk_free(chunk);
                }
        }
        if (!self->body)
                Py_RETURN_NONE;
        return Py_NewRef(self->body);
}

static PyObject *call_get_error(PyObject *object, void *closure)
{
        CallObject *self = (CallObject *)object;

        if (get_stage(self) != CALL_FAILED)
                Py_RETURN_NONE;
        return PyUnicode_DecodeUTF8(self->call->error ? self->call->error : "",
                self->call->error ? (Py_ssize_t)strlen(self->call->error) : 0, "replace");
}

static PyObject *call_get_error_status(PyObject *object, void *closure)
{
        CallObject *self = (CallObject *)object;

        if (get_stage(self) != CALL_FAILED)
                Py_RETURN_NONE;
        return PyLong_FromUnsignedLong(self->call->error_status);
}

static PyObject *call_get_retry_after(PyObject *object, void *closure)
{
        CallObject *self = (CallObject *)object;

        return PyLong_FromUnsignedLong(
                get_stage(self) == CALL_FAILED ? self->call->retry_after : 0);
}

static PyObject *call_get_wake(PyObject *object, void *closure)
{
        return Py_NewRef(((CallObject *)object)->wake);
}

static int call_put_wake(PyObject *object, PyObject *value, void *closure)
{
        CallObject *self = (CallObject *)object;
        CallWake wake = CALL_WAKE_NONE;
        Job *job = NULL;
        PyObject *old;

        if (!value)
                value = Py_None;
        if (PyObject_TypeCheck(value, module_types.event)) {
                wake = CALL_WAKE_JOB;
                job = ((EventObject *)value)->job;
        } else if (PyCallable_Check(value)) {
                wake = CALL_WAKE_FUNCTION;
        } else if (value != Py_None) {
                PyErr_Format(PyExc_TypeError,
                        "wake must be an Event, a callable or None, not %.100s",
                        Py_TYPE(value)->tp_name);
                return -1;
        }
        old = self->wake;
        self->wake = Py_NewRef(value);
        call_set_wake(self->call, wake, job, object);
        Py_XDECREF(old);
        return 0;
}

static PyObject *call_collect_method(PyObject *object, PyObject *args)
{
        CallObject *self = (CallObject *)object;

        if (self->forwarded) {
                PyErr_SetString(PyExc_RuntimeError,
                        "the call's answer has been forwarded: it cannot be collected");
                return NULL;
        }
        call_collect(self->call, object);
        Py_RETURN_NONE;
}

static PyObject *call_cancel_method(PyObject *object, PyObject *args)
{
        call_cancel(((CallObject *)object)->call);
        Py_RETURN_NONE;
}

static PyObject *call_wait_method(PyObject *object, PyObject *args)
{
        Call *call = call_ref(((CallObject *)object)->call);

        call_wait(call);
        call_unref(call);
        Py_RETURN_NONE;
}

static PyGetSetDef call_getset[] = {
        { "wake", call_get_wake, call_put_wake, "Who is told: an Event, a callable, None.", NULL },
        { "state", call_get_state, NULL, "pending, head, complete or failed.", NULL },
        { "status", call_get_status, NULL, "The answer's status, or None.", NULL },
        { "headers", call_get_headers, NULL, "A list of (name, value), or None.", NULL },
        { "body", call_get_body, NULL, "bytes when complete, or None.", NULL },
        { "error", call_get_error, NULL, "Why it failed, or None.", NULL },
        { "error_status", call_get_error_status, NULL, "A status for it, or None.", NULL },
        { "retry_after", call_get_retry_after, NULL, "Seconds, or 0.", NULL },
        { NULL, NULL, NULL, NULL, NULL },
};

static PyMethodDef call_methods[] = {
        { "collect", call_collect_method, METH_NOARGS, "Collects the body: complete comes next." },
        { "cancel", call_cancel_method, METH_NOARGS, "Nobody wants the answer." },
        { "wait", call_wait_method, METH_NOARGS, "Blocks until the head or the body is there." },
        { NULL, NULL, 0, NULL },
};

static PyType_Slot call_slots[] = {
        { Py_tp_doc, (void *)(uintptr_t) "A call of another object." },
        { Py_tp_dealloc, call_dealloc },
        { Py_tp_traverse, call_traverse },
        { Py_tp_clear, call_clear },
        { Py_tp_getset, call_getset },
        { Py_tp_methods, call_methods },
        { 0, NULL },
};

PyType_Spec call_type_spec = {
        .name = "_durabled.Call",
        .basicsize = sizeof(CallObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = call_slots,
};
