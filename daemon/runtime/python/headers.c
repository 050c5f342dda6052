/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/module.h"

#include <errno.h>

PyObject *headers_to_python(const HttpHeader *headers, size_t n_headers)
{
        PyObject *list = PyList_New((Py_ssize_t)n_headers);

        for (size_t i = 0; list && i < n_headers; i++) {
                PyObject *pair = PyTuple_New(2), *name, *value;

                name = PyUnicode_DecodeLatin1(
                        headers[i].name.data, (Py_ssize_t)headers[i].name.len, NULL);
                value = PyUnicode_DecodeLatin1(
                        headers[i].value.data, (Py_ssize_t)headers[i].value.len, NULL);
                if (!pair || !name || !value) {
                        Py_XDECREF(pair);
                        Py_XDECREF(name);
                        Py_XDECREF(value);
                        Py_CLEAR(list);
                        break;
                }
                PyTuple_SET_ITEM(pair, 0, name);
                PyTuple_SET_ITEM(pair, 1, value);
                PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
        }
        return list;
}

/* The bytes of a str (Latin-1 as it stores it) or of bytes, without a copy. */
static int text_to_slice(PyObject *text, const char *what, Slice *ret)
{
        if (PyBytes_Check(text)) {
                *ret = (Slice){ PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text) };
                return 0;
        }
        if (!PyUnicode_Check(text)) {
                PyErr_Format(PyExc_TypeError, "a header's %s must be str or bytes, not %.100s",
                        what, Py_TYPE(text)->tp_name);
                return -1;
        }
#if PY_VERSION_HEX < 0x030c0000
        if (PyUnicode_READY(text) < 0)
                return -1;
#endif
        if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
                PyErr_Format(PyExc_ValueError,
                        "a header's %s must be Latin-1, encode it before: %.200R", what, text);
                return -1;
        }
        *ret = (Slice){ (const char *)PyUnicode_1BYTE_DATA(text),
                (size_t)PyUnicode_GET_LENGTH(text) };
        return 0;
}

static int pair_to_header(PyObject *pair, HttpHeader *ret)
{
        PyObject *name, *value;

        /* A tuple or a list: what is borrowed below belongs to it. */
        if (!(PyTuple_Check(pair) || PyList_Check(pair)) || PySequence_Fast_GET_SIZE(pair) != 2) {
                PyErr_Format(
                        PyExc_TypeError, "a header must be a pair (name, value), not %.200R", pair);
                return -1;
        }
        name = PySequence_Fast_GET_ITEM(pair, 0);
        value = PySequence_Fast_GET_ITEM(pair, 1);
        if (text_to_slice(name, "name", &ret->name) < 0 ||
                text_to_slice(value, "value", &ret->value) < 0)
                return -1;
        return 0;
}

int headers_from_python(
        PyObject *object, HttpHeader **ret, size_t *ret_n_headers, PyObject **ret_sequence)
{
        _cleanup_(py_decref_p) PyObject *sequence = NULL;
        _cleanup_(free_p) HttpHeader *headers = NULL;
        size_t n;

        sequence = PySequence_Fast(object, "headers must be a list of pairs (name, value)");
        if (!sequence)
                return -1;
        n = (size_t)PySequence_Fast_GET_SIZE(sequence);
        headers = calloc(n + 1, sizeof *headers);
        if (!headers) {
                PyErr_NoMemory();
                return -1;
        }
        for (size_t i = 0; i < n; i++)
                if (pair_to_header(PySequence_Fast_GET_ITEM(sequence, (Py_ssize_t)i), &headers[i]) <
                        0)
                        return -1;
        *ret = TAKE_PTR(headers);
        *ret_n_headers = n;
        *ret_sequence = TAKE_PTR(sequence);
        return 0;
}

int headers_refuse(const HttpHeader *headers, size_t n_headers)
{
        _cleanup_(py_decref_p) PyObject *name = NULL;
        ResponseHead *head = NULL;

        /* All at once; which of them it is matters only when one is refused. */
        if (response_head_new(200, headers, n_headers, -1, &head) == 0) {
                free(head);
                return 0;
        }
        for (size_t i = 0; i < n_headers; i++) {
                head = NULL;
                if (response_head_new(200, &headers[i], 1, -1, &head) != -EINVAL) {
                        free(head);
                        continue;
                }
                name = PyBytes_FromStringAndSize(
                        headers[i].name.data, (Py_ssize_t)headers[i].name.len);
                if (name)
                        PyErr_Format(PyExc_ValueError,
                                "the header %.200R cannot be sent: its name must be a token and "
                                "its value free of control characters",
                                name);
                return -1;
        }
        return 0;
}
