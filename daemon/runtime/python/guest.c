/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include <errno.h>

/* Lets go of the Python side. With the GIL. */
static void guest_drop(Guest *guest)
{
        ObjectObject *object = (ObjectObject *)TAKE_PTR(guest->python_object);

        list_unlink(&guest->link);
        guest->object->guest = NULL;
        if (!object)
                return;
        Py_CLEAR(object->instance);
        PyDict_Clear(object->data);
        Py_DECREF(object);
}

/* Loop thread. */
static void guest_tell_evicted(RingPost *post)
{
        Guest *guest = CONTAINER_OF(post, Guest, post);
        PythonRuntime *python = guest->python;

        python->n_evicting--;
        guest->evicted(guest->object, guest->evicted_data);
        free(guest);
        python_settle(python);
}

static void guest_evict_work(Work *work)
{
        Guest *guest = CONTAINER_OF(work, Guest, work);
        PyObject *result = NULL;

        if (guest->python_object) {
                result = PyObject_CallOneArg(guest->python->evict, guest->python_object);
                if (!result)
                        interpreter_log_error("an object was not closed in order");
                Py_XDECREF(result);
        }
        guest_drop(guest);
        ring_post(guest->python->config->ring, &guest->post);
}

static Guest *guest_new(PythonRuntime *python, RuntimeObject *object)
{
        Guest *guest = calloc(1, sizeof *guest);

        if (!guest)
                return NULL;
        guest->python = python;
        guest->object = object;
        guest->work.run = guest_evict_work;
        guest->post.fn = guest_tell_evicted;
        list_init(&guest->link);
        list_init(&guest->work.link);
        return guest;
}

PyObject *guest_get_object(PythonRuntime *python, RuntimeObject *object)
{
        Guest *guest = object->guest;

        if (guest)
                return guest->python_object;
        guest = guest_new(python, object);
        if (!guest)
                return PyErr_NoMemory();
        guest->python_object = (PyObject *)object_object_new(python, object);
        if (!guest->python_object) {
                free(guest);
                return NULL;
        }
        list_append(&python->guests, &guest->link);
        object->guest = guest;
        return guest->python_object;
}

void guest_evict(PythonRuntime *python, RuntimeObject *object,
        void (*evicted)(RuntimeObject *object, void *data), void *data)
{
        /* While the interpreter ends, what objects it has is the first runner's business. */
        bool closing = python->state == PYTHON_CLOSING;
        bool known = !closing && object->guest;
        Guest *guest = known ? object->guest : guest_new(python, object);

        if (!guest) {
                evicted(object, data);
                return;
        }
        guest->evicted = evicted;
        guest->evicted_data = data;
        python->n_evicting++;
        if (closing)
                list_append(&python->late_evictions, &guest->link);
        else if (!known)
                ring_defer(python->config->ring, &guest->post);
        else if (!runners_push(python->runners, &guest->work))
                dd_unreachable();
}

void guest_tell_late(PythonRuntime *python)
{
        List *link;

        while ((link = list_pop(&python->late_evictions)))
                guest_tell_evicted(&list_entry(link, Guest, link)->post);
}

void guest_drop_all(PythonRuntime *python)
{
        List *link;

        while ((link = list_first(&python->guests))) {
                Guest *guest = list_entry(link, Guest, link);

                guest_drop(guest);
                free(guest);
        }
}
