/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/jsonc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define BYTE_ORDER_MARK "\xef\xbb\xbf"

static void set_error(JsoncError *error, Slice text, size_t at, const char *format, ...)
        _printf_(4, 5);

/* The position of the byte at `at`: lines by line feeds, columns in characters of UTF-8. */
static void set_error(JsoncError *error, Slice text, size_t at, const char *format, ...)
{
        va_list args;

        error->line = 1;
        error->column = 1;
        for (size_t i = 0; i < at && i < text.len; i++) {
                if (text.data[i] == '\n') {
                        error->line++;
                        error->column = 1;
                } else if (((unsigned char)text.data[i] & 0xc0) != 0x80) {
                        error->column++;
                }
        }
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
}

/* Length of the UTF-8 sequence at s (RFC 3629: shortest form, no surrogates), 0 when it is none. */
static size_t utf8_length(Slice s)
{
        static const uint32_t lowest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        unsigned char first = (unsigned char)s.data[0];
        uint32_t code;
        size_t n;

        if (first < 0x80)
                return 1;
        n = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
        if (first < 0xc2 || first > 0xf4 || s.len < n)
                return 0;
        code = first & (0x7fu >> n);
        for (size_t i = 1; i < n; i++) {
                if (((unsigned char)s.data[i] & 0xc0) != 0x80)
                        return 0;
                code = code << 6 | ((unsigned char)s.data[i] & 0x3f);
        }
        if (code < lowest[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
                return 0;
        return n;
}

static int check_characters(Slice text, JsoncError *error)
{
        size_t n;

        for (size_t i = 0; i < text.len; i += n) {
                if (text.data[i] == '\0') {
                        set_error(error, text, i, "a NUL byte: the file must be text in UTF-8");
                        return JSONC_E_SYNTAX;
                }
                n = utf8_length(slice_skip(text, i));
                if (n == 0) {
                        set_error(error, text, i,
                                "byte 0x%02x is not valid UTF-8: save the file as UTF-8",
                                (unsigned char)text.data[i]);
                        return JSONC_E_SYNTAX;
                }
        }
        return 0;
}

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Where the comment at `at` ends; 0 when a block comment has no end. */
static size_t comment_end(Slice text, size_t at)
{
        bool block = text.data[at + 1] == '*';

        for (size_t i = at + 2; i < text.len; i++) {
                if (!block && (text.data[i] == '\n' || text.data[i] == '\r'))
                        return i;
                if (block && text.data[i] == '*' && i + 1 < text.len && text.data[i + 1] == '/')
                        return i + 2;
        }
        return block ? 0 : text.len;
}

static bool is_comment(Slice text, size_t at)
{
        return text.data[at] == '/' && at + 1 < text.len &&
               (text.data[at + 1] == '/' || text.data[at + 1] == '*');
}

/* Where the string that opens at `at` ends: behind its closing quote, or where the line ends. */
static size_t string_end(Slice text, size_t at)
{
        for (size_t i = at + 1; i < text.len; i++) {
                if (text.data[i] == '"')
                        return i + 1;
                if (text.data[i] == '\n')
                        return i;
                if (text.data[i] == '\\')
                        i++;
        }
        return text.len;
}

/* Skips spaces, comments and a byte order mark. */
static size_t skip_blank(Slice text, size_t at)
{
        if (at == 0 && slice_has_prefix(text, SLICE(BYTE_ORDER_MARK)))
                at = 3;
        while (at < text.len) {
                if (is_space(text.data[at]))
                        at++;
                else if (is_comment(text, at))
                        at = comment_end(text, at) ?: text.len;
                else
                        break;
        }
        return at;
}

static void blank(char *copy, size_t from, size_t to)
{
        for (size_t i = from; i < to; i++)
                if (copy[i] != '\n' && copy[i] != '\r')
                        copy[i] = ' ';
}

/*
 * Writes spaces over what JSON does not have. A comma goes only where a value stands before it and
 * a closing bracket behind it, so that "[,]" and "[1,,]" stay wrong.
 */
static int blank_extras(Slice text, char *copy, JsoncError *error)
{
        size_t start = slice_has_prefix(text, SLICE(BYTE_ORDER_MARK)) ? 3 : 0, depth = 0, end;
        char before = '[';

        blank(copy, 0, start);
        for (size_t i = start; i < text.len; i = end) {
                char c = text.data[i];

                end = i + 1;
                if (is_comment(text, i)) {
                        end = comment_end(text, i);
                        if (!end) {
                                set_error(error, text, i, "the comment is never closed by */");
                                return JSONC_E_SYNTAX;
                        }
                        blank(copy, i, end);
                        continue;
                }
                if (is_space(c))
                        continue;
                if (c == '"')
                        end = string_end(text, i);
                if ((c == '[' || c == '{') && ++depth > JSONC_DEPTH_MAX) {
                        set_error(
                                error, text, i, "more than %u levels of [ and {", JSONC_DEPTH_MAX);
                        return JSONC_E_SYNTAX;
                }
                if ((c == ']' || c == '}') && depth)
                        depth--;
                if (c == ',' && !strchr("[{,:", before)) {
                        size_t next = skip_blank(text, end);

                        if (next < text.len && (text.data[next] == ']' || text.data[next] == '}'))
                                copy[i] = ' ';
                }
                before = c;
        }
        return 0;
}

static int set_parser_error(JsoncError *error, Slice text, const json_error_t *parser)
{
        size_t at = parser->position > 0 ? (size_t)parser->position - 1 : 0;

        if (json_error_code(parser) == json_error_out_of_memory)
                return -ENOMEM;
        set_error(error, text, at, "%s", parser->text);
        return json_error_code(parser) == json_error_duplicate_key ? JSONC_E_DUPLICATE
                                                                   : JSONC_E_SYNTAX;
}

int jsonc_parse(Slice text, json_t **ret, JsoncError *error)
{
        _cleanup_(free_p) char *copy = NULL;
        json_error_t parser;
        json_t *json;
        int r;

        if (text.len > JSONC_SIZE_MAX) {
                *error = (JsoncError){};
                snprintf(error->message, sizeof error->message,
                        "%zu bytes are more than the %u that are read", text.len, JSONC_SIZE_MAX);
                return JSONC_E_SYNTAX;
        }
        r = check_characters(text, error);
        if (r)
                return r;
        copy = slice_dup(text);
        if (!copy)
                return -ENOMEM;
        r = blank_extras(text, copy, error);
        if (r)
                return r;
        json = json_loadb(copy, text.len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &parser);
        if (!json)
                return set_parser_error(error, text, &parser);
        *ret = json;
        return 0;
}

/* One step of a path: an index, or a key. */
typedef struct Step {
        bool is_index;
        uint64_t index;
        Slice key;
} Step;

static bool take_step(Slice *path, Step *ret)
{
        size_t n = 0;

        if (path->data[0] == '.')
                *path = slice_skip(*path, 1);
        if (slice_has_prefix(*path, SLICE("[\""))) {
                const char *end = memmem(path->data + 2, path->len - 2, "\"]", 2);

                if (!end)
                        return false;
                *ret = (Step){ .key = slice_of(path->data + 2, (size_t)(end - path->data) - 2) };
                *path = slice_skip(*path, (size_t)(end - path->data) + 2);
                return true;
        }
        if (path->len && path->data[0] == '[') {
                ptrdiff_t end = slice_find(*path, ']');

                *ret = (Step){ .is_index = true };
                if (end < 0 ||
                        !slice_to_u64(slice_of(path->data + 1, (size_t)end - 1), &ret->index))
                        return false;
                *path = slice_skip(*path, (size_t)end + 1);
                return true;
        }
        while (n < path->len && path->data[n] != '.' && path->data[n] != '[')
                n++;
        *ret = (Step){ .key = slice_head(*path, n) };
        *path = slice_skip(*path, n);
        return n > 0;
}

/* Where the value at `at` ends; its brackets are only counted, for the text has been parsed. */
static size_t value_end(Slice text, size_t at)
{
        size_t depth = 0;

        while (at < text.len) {
                char c = text.data[at];

                if (depth == 0 && (c == ',' || c == ']' || c == '}'))
                        return at;
                if (c == '"')
                        at = string_end(text, at);
                else if (is_comment(text, at))
                        at = comment_end(text, at) ?: text.len;
                else
                        at++;
                if (c == '[' || c == '{')
                        depth++;
                else if ((c == ']' || c == '}') && --depth == 0)
                        return at;
        }
        return at;
}

static bool key_equal(Slice quoted, Slice key)
{
        json_t *decoded;
        bool equal;

        if (slice_find(quoted, '\\') < 0)
                return quoted.len >= 2 &&
                       slice_equal(slice_of(quoted.data + 1, quoted.len - 2), key);
        decoded = json_loadb(quoted.data, quoted.len, JSON_DECODE_ANY, NULL);
        equal = json_is_string(decoded) &&
                slice_equal(slice_of(json_string_value(decoded), json_string_length(decoded)), key);
        json_decref(decoded);
        return equal;
}

/* Goes from the value at *at to its member at the step; *ret_line_at is what the line is taken of.
 */
static bool enter(Slice text, size_t *at, const Step *step, size_t *ret_line_at)
{
        size_t i = *at;

        if (i >= text.len || text.data[i] != (step->is_index ? '[' : '{'))
                return false;
        for (uint64_t n = 0;; n++) {
                size_t key = skip_blank(text, i + 1), end = key, value = key;

                if (key >= text.len || text.data[key] == ']' || text.data[key] == '}')
                        return false;
                if (!step->is_index) {
                        if (text.data[key] != '"')
                                return false;
                        end = string_end(text, key);
                        value = skip_blank(text, end);
                        if (value >= text.len || text.data[value] != ':')
                                return false;
                        value = skip_blank(text, value + 1);
                }
                if (step->is_index ? n == step->index
                                   : key_equal(slice_of(text.data + key, end - key), step->key)) {
                        *at = value;
                        *ret_line_at = key;
                        return true;
                }
                i = skip_blank(text, value_end(text, value));
                if (i >= text.len || text.data[i] != ',')
                        return false;
        }
}

unsigned jsonc_find_line(Slice text, const char *path)
{
        size_t at = skip_blank(text, 0), line_at = at;
        Slice rest = slice_from(path);
        unsigned line = 1;
        Step step;

        while (rest.len)
                if (!take_step(&rest, &step) || !enter(text, &at, &step, &line_at))
                        return 0;
        if (line_at >= text.len)
                return 0;
        for (size_t i = 0; i < line_at; i++)
                line += text.data[i] == '\n';
        return line;
}
