/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include <structmember.h>

ObjectObject *object_object_new(const PythonRuntime *python, const RuntimeObject *object)
{
        PyTypeObject *type = module_types.object;
        ObjectObject *self;

        self = (ObjectObject *)type->tp_alloc(type, 0);
        if (!self)
                return NULL;
        self->class_index = object->class_index;
        self->class_name =
                PyUnicode_FromString(python->config->classes[object->class_index].class_name);
        self->id = PyUnicode_FromString(object->id_text);
        self->name = object->name.len ? PyUnicode_DecodeUTF8(object->name.data,
                                                (Py_ssize_t)object->name.len, "surrogateescape")
                                      : Py_NewRef(Py_None);
        self->path = PyUnicode_DecodeFSDefault(object->path);
        self->instance = Py_NewRef(Py_None);
        self->data = PyDict_New();
        if (!self->class_name || !self->id || !self->name || !self->path || !self->data) {
                Py_DECREF(self);
                return NULL;
        }
        return self;
}

static int object_traverse(PyObject *object, visitproc visit, void *arg)
{
        ObjectObject *self = (ObjectObject *)object;

        Py_VISIT(Py_TYPE(object));
        Py_VISIT(self->instance);
        Py_VISIT(self->data);
        return 0;
}

static int object_clear(PyObject *object)
{
        ObjectObject *self = (ObjectObject *)object;

        Py_CLEAR(self->instance);
        Py_CLEAR(self->data);
        return 0;
}

static void object_dealloc(PyObject *object)
{
        ObjectObject *self = (ObjectObject *)object;
        PyTypeObject *type = Py_TYPE(object);

        PyObject_GC_UnTrack(object);
        object_clear(object);
        Py_CLEAR(self->class_name);
        Py_CLEAR(self->id);
        Py_CLEAR(self->name);
        Py_CLEAR(self->path);
        type->tp_free(object);
        Py_DECREF(type);
}

static PyObject *object_repr(PyObject *object)
{
        ObjectObject *self = (ObjectObject *)object;

        return PyUnicode_FromFormat("<Object %U %U>", self->class_name, self->id);
}

static PyMemberDef object_members[] = {
        { "class_index", T_UINT, offsetof(ObjectObject, class_index), READONLY, NULL },
        { "class_name", T_OBJECT, offsetof(ObjectObject, class_name), READONLY, NULL },
        { "id", T_OBJECT, offsetof(ObjectObject, id), READONLY, "64 hex digits." },
        { "name", T_OBJECT, offsetof(ObjectObject, name), READONLY, "Its name, or None." },
        { "path", T_OBJECT, offsetof(ObjectObject, path), READONLY, "Its database file." },
        { "instance", T_OBJECT, offsetof(ObjectObject, instance), 0, "The guest's instance." },
        { "data", T_OBJECT, offsetof(ObjectObject, data), 0, "A dict, free to use." },
        { NULL, 0, 0, 0, NULL },
};

static PyType_Slot object_slots[] = {
        { Py_tp_doc, (void *)(uintptr_t) "One object, while it is in memory." },
        { Py_tp_dealloc, object_dealloc },
        { Py_tp_traverse, object_traverse },
        { Py_tp_clear, object_clear },
        { Py_tp_repr, object_repr },
        { Py_tp_members, object_members },
        { 0, NULL },
};

PyType_Spec object_type_spec = {
        .name = "_durabled.Object",
        .basicsize = sizeof(ObjectObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = object_slots,
};
