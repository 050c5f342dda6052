/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/interpreter.h"

#include "daemon/core/log.h"
#include "daemon/runtime/python/module.h"

#include <errno.h>

static PyStatus configure(PyConfig *config)
{
        PyConfig_InitIsolatedConfig(config);
        config->install_signal_handlers = 0;
        config->parse_argv = 0;
        config->site_import = 1;
        config->user_site_directory = 0;
        config->pathconfig_warnings = 0;
        return PyConfig_SetBytesString(config, &config->program_name, PYTHON_PROGRAM);
}

/* Ours come first on sys.path. */
static int add_modules(const char *host_modules)
{
        PyObject *path = PySys_GetObject("path"), *folder;
        int r;

        folder = PyUnicode_DecodeFSDefault(host_modules);
        if (!path || !folder) {
                Py_XDECREF(folder);
                return -1;
        }
        r = PyList_Insert(path, 0, folder);
        Py_DECREF(folder);
        return r;
}

int interpreter_open(const char *host_modules, char **ret_error)
{
        static bool listed;
        PyPreConfig preconfig;
        PyStatus status;
        PyConfig config;

        if (!listed && PyImport_AppendInittab("_durabled", module_init) < 0)
                return -ENOMEM;
        listed = true;
        PyPreConfig_InitIsolatedConfig(&preconfig);
        preconfig.utf8_mode = 1;
        status = Py_PreInitialize(&preconfig);
        if (PyStatus_Exception(status)) {
                *ret_error = strdup(status.err_msg);
                return -EIO;
        }
        status = configure(&config);
        if (!PyStatus_Exception(status))
                status = Py_InitializeFromConfig(&config);
        PyConfig_Clear(&config);
        if (PyStatus_Exception(status)) {
                *ret_error = strdup(status.err_msg ? status.err_msg : "CPython did not start");
                return -EIO;
        }
        if (add_modules(host_modules) < 0) {
                *ret_error = interpreter_take_error();
                (void)Py_FinalizeEx();
                return -EIO;
        }
        return 0;
}

void interpreter_close(void)
{
        PyGC_Collect();
        if (Py_FinalizeEx() < 0)
                log_warn("Python could not flush its output at the end");
}

/* The pending exception, a new reference, or NULL. */
static PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
        return PyErr_GetRaisedException();
#else
        PyObject *type = NULL, *value = NULL, *trace = NULL;

        PyErr_Fetch(&type, &value, &trace);
        if (type)
                PyErr_NormalizeException(&type, &value, &trace);
        if (value && trace)
                PyException_SetTraceback(value, trace);
        Py_XDECREF(type);
        Py_XDECREF(trace);
        return value;
#endif
}

/* In words for the app's author; NULL where durabled_host is not there to find them. */
static PyObject *explain(PyObject *error)
{
        _cleanup_(py_decref_p) PyObject *module = PyImport_ImportModule("durabled_host");

        return module ? PyObject_CallMethod(module, "explain", "O", error) : NULL;
}

char *interpreter_take_error(void)
{
        _cleanup_(py_decref_p) PyObject *error = take_exception(), *lines = NULL, *text = NULL,
                                        *module = NULL, *empty = NULL;
        const char *utf8 = NULL;
        char *copy;

        if (!error)
                return strdup("unknown error");
        lines = explain(error);
        if (!lines) {
                PyErr_Clear();
                module = PyImport_ImportModule("traceback");
                if (module)
                        lines = PyObject_CallMethod(module, "format_exception", "O", error);
        }
        empty = PyUnicode_FromString("");
        if (lines && empty)
                text = PyUnicode_Join(empty, lines);
        if (!text) {
                PyErr_Clear();
                text = PyObject_Str(error);
        }
        if (text)
                utf8 = PyUnicode_AsUTF8(text);
        PyErr_Clear();
        copy = strdup(utf8 ? utf8 : "an error that cannot be written down");
        return copy;
}

void interpreter_log_error(const char *what)
{
        _cleanup_(free_p) char *text = NULL;

        if (!PyErr_Occurred())
                return;
        text = interpreter_take_error();
        log_error("%s: %s", what, text ? text : "out of memory");
}

/* Steals value, which may be NULL with an exception. */
static int put(PyObject *dict, const char *key, PyObject *value)
{
        int r;

        if (!value)
                return -1;
        r = PyDict_SetItemString(dict, key, value);
        Py_DECREF(value);
        return r;
}

static PyObject *new_text(const char *text)
{
        if (!text)
                Py_RETURN_NONE;
        return PyUnicode_DecodeFSDefault(text);
}

static PyObject *new_text_list(char **texts, size_t n)
{
        PyObject *list = PyList_New((Py_ssize_t)n);

        for (size_t i = 0; list && i < n; i++) {
                PyObject *text = new_text(texts[i]);

                if (!text)
                        Py_CLEAR(list);
                else
                        PyList_SET_ITEM(list, (Py_ssize_t)i, text);
        }
        return list;
}

static PyObject *new_path_list(const char *path)
{
        PyObject *list = PyList_New(0);
        Slice rest = slice_from(path);

        while (list && rest.len) {
                Slice part = slice_cut(&rest, ':');
                PyObject *text;

                if (!part.len)
                        continue;
                text = PyUnicode_DecodeFSDefaultAndSize(part.data, (Py_ssize_t)part.len);
                if (!text || PyList_Append(list, text) < 0)
                        Py_CLEAR(list);
                Py_XDECREF(text);
        }
        return list;
}

static PyObject *new_classes(const RuntimeConfig *config)
{
        PyObject *list = PyList_New((Py_ssize_t)config->n_classes);

        for (size_t i = 0; list && i < config->n_classes; i++) {
                PyObject *text = PyUnicode_FromString(config->classes[i].class_name);

                if (!text)
                        Py_CLEAR(list);
                else
                        PyList_SET_ITEM(list, (Py_ssize_t)i, text);
        }
        return list;
}

static PyObject *new_bindings(const RuntimeConfig *config)
{
        PyObject *dict = PyDict_New();

        for (size_t i = 0; dict && i < config->n_bindings; i++)
                if (put(dict, config->bindings[i].name,
                            PyLong_FromUnsignedLong(config->bindings[i].class_index)) < 0)
                        Py_CLEAR(dict);
        return dict;
}

static PyObject *new_env(const char *json_text)
{
        PyObject *json, *env;

        if (!json_text)
                return PyDict_New();
        json = PyImport_ImportModule("json");
        if (!json)
                return NULL;
        env = PyObject_CallMethod(json, "loads", "s", json_text);
        Py_DECREF(json);
        return env;
}

PyObject *interpreter_new_config(const RuntimeConfig *config)
{
        const Manifest *manifest = config->manifest;
        bool vendored = manifest->django_cf == MANIFEST_DJANGO_VENDORED;
        PyObject *dict = PyDict_New();

        if (!dict)
                return NULL;
        if (put(dict, "app_name", new_text(config->app_name)) == 0 &&
                put(dict, "app_directory", new_text(config->app_directory)) == 0 &&
                put(dict, "main", new_text(manifest->main)) == 0 &&
                put(dict, "python_path", new_path_list(config->python_path)) == 0 &&
                put(dict, "django_cf", new_text(vendored ? "vendored" : "ours")) == 0 &&
                put(dict, "migrate",
                        new_text(manifest->migrate_on_first_event ? "auto" : "manual")) == 0 &&
                put(dict, "env", new_env(config->env_json)) == 0 &&
                put(dict, "admin_password", new_text(config->admin_password)) == 0 &&
                put(dict, "development", PyBool_FromLong(config->development)) == 0 &&
                put(dict, "classes", new_classes(config)) == 0 &&
                put(dict, "bindings", new_bindings(config)) == 0 &&
                put(dict, "compatibility_flags",
                        new_text_list(manifest->compatibility_flags,
                                manifest->n_compatibility_flags)) == 0)
                return dict;
        Py_DECREF(dict);
        return NULL;
}
