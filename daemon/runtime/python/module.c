/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include "daemon/core/log.h"
#include "lib/store/db.h"
#include "lib/store/store.h"

#include <errno.h>

ModuleTypes module_types;

/* blocking() */

typedef struct BlockingObject {
        PyObject_HEAD
} BlockingObject;

static PyObject *blocking_enter(PyObject *object, PyObject *args)
{
        job_flush();
        runner_leave();
        Py_RETURN_NONE;
}

static PyObject *blocking_exit(PyObject *object, PyObject *args)
{
        runner_return();
        Py_RETURN_FALSE;
}

static void blocking_dealloc(PyObject *object)
{
        PyTypeObject *type = Py_TYPE(object);

        type->tp_free(object);
        Py_DECREF(type);
}

static PyMethodDef blocking_methods[] = {
        { "__enter__", blocking_enter, METH_NOARGS, NULL },
        { "__exit__", blocking_exit, METH_VARARGS, NULL },
        { NULL, NULL, 0, NULL },
};

static PyType_Slot blocking_slots[] = {
        { Py_tp_dealloc, blocking_dealloc },
        { Py_tp_methods, blocking_methods },
        { 0, NULL },
};

PyType_Spec blocking_type_spec = {
        .name = "_durabled.Blocking",
        .basicsize = sizeof(BlockingObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = blocking_slots,
};

static PyObject *module_blocking(PyObject *module, PyObject *args)
{
        return module_types.blocking->tp_alloc(module_types.blocking, 0);
}

/* Ids */

static const RuntimeClass *find_class(unsigned class_index)
{
        const RuntimeConfig *config = python_runtime->config;

        if (class_index < config->n_classes)
                return &config->classes[class_index];
        PyErr_Format(PyExc_ValueError, "class_index %u: the app has %zu classes", class_index,
                config->n_classes);
        return NULL;
}

static PyObject *id_to_python(int r, const ObjectId *id)
{
        char text[IDENT_TEXT_SIZE];

        if (r < 0) {
                errno = -r;
                return PyErr_SetFromErrno(PyExc_OSError);
        }
        ident_format(id, text);
        return PyUnicode_FromString(text);
}

static PyObject *module_id_from_name(PyObject *module, PyObject *args)
{
        const RuntimeClass *class;
        unsigned class_index;
        const char *name;
        Py_ssize_t len;
        ObjectId id;

        if (!PyArg_ParseTuple(args, "Is#:id_from_name", &class_index, &name, &len))
                return NULL;
        class = find_class(class_index);
        if (!class)
                return NULL;
        return id_to_python(
                ident_from_name(slice_from(class->unique_key), (Slice){ name, (size_t)len }, &id),
                &id);
}

static PyObject *module_id_new(PyObject *module, PyObject *args)
{
        const RuntimeClass *class;
        unsigned class_index;
        ObjectId id;

        if (!PyArg_ParseTuple(args, "I:id_new", &class_index))
                return NULL;
        class = find_class(class_index);
        if (!class)
                return NULL;
        return id_to_python(ident_new_unique(slice_from(class->unique_key), &id), &id);
}

static PyObject *module_id_check(PyObject *module, PyObject *args)
{
        const RuntimeClass *class;
        unsigned class_index;
        const char *text;
        Py_ssize_t len;
        ObjectId id;
        int r;

        if (!PyArg_ParseTuple(args, "Is#:id_check", &class_index, &text, &len))
                return NULL;
        class = find_class(class_index);
        if (!class)
                return NULL;
        r = ident_parse((Slice){ text, (size_t)len }, &id);
        if (r == 0)
                r = ident_check(slice_from(class->unique_key), &id);
        if (r == 0)
                Py_RETURN_NONE;
        if (r == IDENT_E_FOREIGN)
                PyErr_Format(PyExc_TypeError,
                        "the id is not one of class %s: it belongs to another namespace",
                        class->class_name);
        else if (r < 0)
                id_to_python(r, NULL);
        else
                PyErr_SetString(PyExc_ValueError, "an id must be 64 hex digits");
        return NULL;
}

/* Others */

/* Why a database file cannot be opened, for people. */
static const char *open_words(int error)
{
        switch (error) {
        case EUCLEAN:
                return "it is damaged, no database, or that of an object of another name";
        case EISDIR:
                return "it is a folder";
        case EBUSY:
        case EAGAIN:
                return "another program has it open";
        case ENOSPC:
        case EDQUOT:
                return "the disk is full";
        default:
                return strerror(error);
        }
}

static PyObject *module_open_object(PyObject *module, PyObject *args)
{
        PyThreadState *thread_state;
        const char *path, *name;
        char words[240] = "", pending[DB_METADATA_MAX] = "";
        Py_ssize_t len;
        Db *db = NULL;
        int r;

        if (!PyArg_ParseTuple(args, "sz#:open_object", &path, &name, &len))
                return NULL;
        job_flush();
        thread_state = runner_pause();
        r = db_open_object(path, (Slice){ name, name ? (size_t)len : 0 }, &db);
        if (r == 0)
                r = db_read_metadata(db, "restore", pending, sizeof pending);
        if (db)
                db_close(db);
        if (r)
                snprintf(words, sizeof words, "The object's database cannot be opened: %s",
                        open_words(r < 0 ? -r : EIO));
        runner_unpause(thread_state);
        if (r) {
                _cleanup_(py_decref_p) PyObject *value =
                        Py_BuildValue("(iss)", r < 0 ? -r : EIO, words, path);

                if (value)
                        PyErr_SetObject(PyExc_OSError, value);
                return NULL;
        }
        if (pending[0])
                return PyUnicode_FromString(pending);
        Py_RETURN_NONE;
}

/* Waits until all that the object at path has committed is durable. */
static PyObject *module_sync(PyObject *module, PyObject *args)
{
        Store *store = python_runtime->config->store;
        PyThreadState *thread_state;
        const char *path;
        uint64_t lsn;
        int r = 0;

        if (!PyArg_ParseTuple(args, "s:sync", &path))
                return NULL;
        lsn = store ? store_object_lsn(store, path) : 0;
        if (!store || lsn <= store_flushed(store))
                Py_RETURN_NONE;
        job_flush();
        thread_state = runner_pause();
        r = store_sync(store, lsn);
        runner_unpause(thread_state);
        if (r) {
                PyErr_SetString(PyExc_OSError, "The journal cannot be written.");
                return NULL;
        }
        Py_RETURN_NONE;
}

/* For the step that this thread executes, when it is an object's. */
static PyObject *module_refused(PyObject *module, PyObject *args)
{
        return PyBool_FromLong(store_was_refused());
}

static PyObject *module_broken(PyObject *module, PyObject *args)
{
        return PyBool_FromLong(store_was_broken());
}

static PyObject *module_log(PyObject *module, PyObject *args)
{
        const char *fields[7] = { "APP", python_runtime->config->app_name };
        PyObject *object;
        const char *text;
        int level;

        if (!PyArg_ParseTuple(args, "iOs:log", &level, &object, &text))
                return NULL;
        if (level < LOG_ERROR || level > LOG_DEBUG_) {
                PyErr_Format(
                        PyExc_ValueError, "level must be 3 (error) to 7 (debug), not %d", level);
                return NULL;
        }
        if (PyObject_TypeCheck(object, module_types.object)) {
                const ObjectObject *self = (const ObjectObject *)object;
                size_t n = 2;

                fields[n++] = "OBJECT_ID";
                fields[n++] = PyUnicode_AsUTF8(self->id);
                if (self->name != Py_None) {
                        fields[n++] = "OBJECT_NAME";
                        fields[n] = PyUnicode_AsUTF8(self->name);
                        if (!fields[n]) {
                                PyErr_Clear();
                                fields[n - 1] = NULL;
                        }
                }
                if (!fields[3])
                        return NULL;
        }
        {
                /* fields has at most 6 strings and its last stays NULL. */
                Py_BEGIN_ALLOW_THREADS log_fields((LogLevel)level, fields, "%s", text);
                Py_END_ALLOW_THREADS
        }
        Py_RETURN_NONE;
}

static PyObject *module_stats(PyObject *module, PyObject *args)
{
        RunnersStats stats;

        runners_get_stats(python_runtime->runners, &stats);
        return Py_BuildValue("{s:K,s:I,s:I,s:I,s:K,s:K}", "busy_ns",
                (unsigned long long)stats.busy_ns, "runners", stats.runners, "busy", stats.busy,
                "queued", stats.queued, "revoked", (unsigned long long)stats.revoked, "refused",
                (unsigned long long)stats.refused);
}

static PyMethodDef module_methods[] = {
        { "fetch", (PyCFunction)(void (*)(void))call_fetch, METH_VARARGS | METH_KEYWORDS,
                "fetch(event, class_index, id, name, method, url, headers, body, blocking=False)" },
        { "id_from_name", module_id_from_name, METH_VARARGS, "id_from_name(class_index, name)" },
        { "id_new", module_id_new, METH_VARARGS, "id_new(class_index)" },
        { "id_check", module_id_check, METH_VARARGS, "id_check(class_index, id)" },
        { "open_object", module_open_object, METH_VARARGS,
                "open_object(path, name): the bookmark to restore first, or None" },
        { "bookmark", module_bookmark, METH_VARARGS,
                "bookmark(path, time_ns=-1): of now, or of the last commit by then" },
        { "check_bookmark", module_check_bookmark, METH_VARARGS,
                "check_bookmark(path, text): ValueError unless it is one of the object's past" },
        { "restore", module_restore, METH_VARARGS,
                "restore(path, bookmark): the bookmark that undoes it" },
        { "sync", module_sync, METH_VARARGS, "sync(path): its commits are durable at return" },
        { "refused", module_refused, METH_NOARGS,
                "refused(): a write of this step had no room, whatever became of the error" },
        { "broken", module_broken, METH_NOARGS,
                "broken(): this step met damage or an error of the disk, whatever became of it" },
        { "log", module_log, METH_VARARGS, "log(level, object, text)" },
        { "blocking", module_blocking, METH_NOARGS, "with blocking(): others run meanwhile" },
        { "stats", module_stats, METH_NOARGS, "A dict of counters." },
        { NULL, NULL, 0, NULL },
};

static void module_free(void *module)
{
        Py_CLEAR(module_types.event);
        Py_CLEAR(module_types.object);
        Py_CLEAR(module_types.call);
        Py_CLEAR(module_types.blocking);
}

static struct PyModuleDef module_def = {
        PyModuleDef_HEAD_INIT,
        .m_name = "_durabled",
        .m_doc = "The C side of the runtime.",
        .m_size = 0,
        .m_methods = module_methods,
        .m_free = module_free,
};

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret)
{
        *ret = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
        return *ret ? PyModule_AddType(module, *ret) : -1;
}

PyObject *module_init(void)
{
        PyObject *module = PyModule_Create(&module_def);

        if (!module)
                return NULL;
        if (add_type(module, &event_type_spec, &module_types.event) == 0 &&
                add_type(module, &object_type_spec, &module_types.object) == 0 &&
                add_type(module, &call_type_spec, &module_types.call) == 0 &&
                add_type(module, &blocking_type_spec, &module_types.blocking) == 0 &&
                PyModule_AddStringConstant(module, "version", DURABLED_VERSION) == 0)
                return module;
        Py_DECREF(module);
        return NULL;
}
