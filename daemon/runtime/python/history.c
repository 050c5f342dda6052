/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"
#include "lib/store/store.h"

#include <errno.h>

/*
 * Bookmarks of the object whose step runs
 *
 * All of these block on disks: the runner steps aside meanwhile. What is wrong with a bookmark is a
 * ValueError, what is wrong with the disk an OSError.
 */

/* The store, or NULL with an exception. */
static Store *get_store(void)
{
        Store *store = python_runtime->config->store;

        if (!store)
                PyErr_SetString(
                        PyExc_NotImplementedError, "without a journal there are no bookmarks");
        return store;
}

static PyObject *raise_history(int error, const char *path)
{
        const char *words = store_history_error(error);

        if (error > 0)
                PyErr_SetString(PyExc_ValueError, words);
        else if (error == -ENOMEM)
                PyErr_NoMemory();
        else {
                _cleanup_(py_decref_p) PyObject *value =
                        Py_BuildValue("(iss)", -error, words, path);

                if (value)
                        PyErr_SetObject(PyExc_OSError, value);
        }
        return NULL;
}

PyObject *module_bookmark(PyObject *module, PyObject *args)
{
        char bookmark[STORE_BOOKMARK_LEN + 1];
        PyThreadState *thread_state;
        long long time_ns = -1;
        const char *path;
        Store *store;
        int r;

        if (!PyArg_ParseTuple(args, "s|L:bookmark", &path, &time_ns))
                return NULL;
        store = get_store();
        if (!store)
                return NULL;
        if (time_ns < 0) {
                r = store_get_bookmark(store, path, bookmark);
        } else {
                job_flush();
                thread_state = runner_pause();
                r = store_find_bookmark(store, path, (uint64_t)time_ns, bookmark);
                runner_unpause(thread_state);
        }
        return r ? raise_history(r, path) : PyUnicode_FromString(bookmark);
}

PyObject *module_check_bookmark(PyObject *module, PyObject *args)
{
        const char *path, *bookmark;
        Store *store;
        int r;

        if (!PyArg_ParseTuple(args, "ss:check_bookmark", &path, &bookmark))
                return NULL;
        store = get_store();
        if (!store)
                return NULL;
        r = store_check_bookmark(store, path, bookmark);
        if (r)
                return raise_history(r, path);
        Py_RETURN_NONE;
}

PyObject *module_restore(PyObject *module, PyObject *args)
{
        char undo[STORE_BOOKMARK_LEN + 1];
        PyThreadState *thread_state;
        const char *path, *bookmark;
        Store *store;
        int r;

        if (!PyArg_ParseTuple(args, "ss:restore", &path, &bookmark))
                return NULL;
        store = get_store();
        if (!store)
                return NULL;
        job_flush();
        thread_state = runner_pause();
        r = store_restore(store, path, bookmark, path, undo);
        runner_unpause(thread_state);
        return r ? raise_history(r, path) : PyUnicode_FromString(undo);
}
