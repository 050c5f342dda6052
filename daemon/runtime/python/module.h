/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The built-in module _durabled: what the Python side of the runtime sees of the C side
 *
 * Private to the package durabled_host; README.md lists it. All of this needs the GIL.
 */

#include "daemon/runtime/python/call.h"
#include "daemon/runtime/python/job.h"

typedef struct EventObject {
        PyObject_HEAD Job *job;
        PyObject *state;   /* the driver's */
        PyObject *object;  /* an Object, or None */
        PyObject *headers; /* made on first use */
} EventObject;

typedef struct ObjectObject {
        PyObject_HEAD unsigned class_index;
        PyObject *class_name, *id, *name, *path;
        PyObject *instance, *data;
} ObjectObject;

typedef struct CallObject {
        PyObject_HEAD Call *call;
        PyObject *wake;
        PyObject *headers, *body;
        bool forwarded;
} CallObject;

typedef struct ModuleTypes {
        PyTypeObject *event, *object, *call, *blocking;
} ModuleTypes;

/* Filled while the interpreter runs. */
extern ModuleTypes module_types;

PyObject *module_init(void);

extern PyType_Spec event_type_spec, object_type_spec, call_type_spec, blocking_type_spec;

/* New references, or NULL with an exception. */
EventObject *event_object_new(Job *job);
ObjectObject *object_object_new(const PythonRuntime *python, const RuntimeObject *object);
CallObject *call_object_new(Call *call);

/* A list of (name, value), Latin-1. */
PyObject *headers_to_python(const HttpHeader *headers, size_t n_headers);

/*
 * The converse: a sequence of pairs of str or bytes. The slices point into the sequence's items,
 * which must stay as they are. *ret is malloc'd; *ret_sequence a new reference. 0, or -1 with an
 * exception.
 */
int headers_from_python(
        PyObject *object, HttpHeader **ret, size_t *ret_n_headers, PyObject **ret_sequence);
/* 0, or -1 with a ValueError that names the first header that cannot be sent. */
int headers_refuse(const HttpHeader *headers, size_t n_headers);

/* history.c: methods of the module. */
PyObject *module_bookmark(PyObject *module, PyObject *args);
PyObject *module_check_bookmark(PyObject *module, PyObject *args);
PyObject *module_restore(PyObject *module, PyObject *args);

/* _durabled.fetch() */
PyObject *call_fetch(PyObject *module, PyObject *args, PyObject *keywords);
