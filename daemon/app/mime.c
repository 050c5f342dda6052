/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

#define TEXT(_type) _type "; charset=utf-8"

/* IANA's registry of media types; text carries its encoding, or old clients guess. Sorted. */
static const struct {
        const char *ending, *type;
} types[] = {
        { "7z", "application/x-7z-compressed" },
        { "apng", "image/apng" },
        { "atom", TEXT("application/atom+xml") },
        { "avif", "image/avif" },
        { "bmp", "image/bmp" },
        { "cjs", TEXT("text/javascript") },
        { "css", TEXT("text/css") },
        { "csv", TEXT("text/csv") },
        { "doc", "application/msword" },
        { "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document" },
        { "eot", "application/vnd.ms-fontobject" },
        { "epub", "application/epub+zip" },
        { "flac", "audio/flac" },
        { "gif", "image/gif" },
        { "gz", "application/gzip" },
        { "htm", TEXT("text/html") },
        { "html", TEXT("text/html") },
        { "ico", "image/x-icon" },
        { "ics", TEXT("text/calendar") },
        { "jpeg", "image/jpeg" },
        { "jpg", "image/jpeg" },
        { "js", TEXT("text/javascript") },
        { "json", TEXT("application/json") },
        { "jsonld", TEXT("application/ld+json") },
        { "jxl", "image/jxl" },
        { "m4a", "audio/mp4" },
        { "m4v", "video/mp4" },
        { "map", TEXT("application/json") },
        { "md", TEXT("text/markdown") },
        { "mjs", TEXT("text/javascript") },
        { "mp3", "audio/mpeg" },
        { "mp4", "video/mp4" },
        { "mpeg", "video/mpeg" },
        { "oga", "audio/ogg" },
        { "ogg", "audio/ogg" },
        { "ogv", "video/ogg" },
        { "opus", "audio/ogg" },
        { "otf", "font/otf" },
        { "pdf", "application/pdf" },
        { "png", "image/png" },
        { "rss", TEXT("application/rss+xml") },
        { "svg", TEXT("image/svg+xml") },
        { "tar", "application/x-tar" },
        { "tif", "image/tiff" },
        { "tiff", "image/tiff" },
        { "ttf", "font/ttf" },
        { "txt", TEXT("text/plain") },
        { "vtt", TEXT("text/vtt") },
        { "wasm", "application/wasm" },
        { "wav", "audio/wav" },
        { "weba", "audio/webm" },
        { "webm", "video/webm" },
        { "webmanifest", TEXT("application/manifest+json") },
        { "webp", "image/webp" },
        { "woff", "font/woff" },
        { "woff2", "font/woff2" },
        { "xhtml", TEXT("application/xhtml+xml") },
        { "xls", "application/vnd.ms-excel" },
        { "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" },
        { "xml", TEXT("application/xml") },
        { "zip", "application/zip" },
};

static Slice last_part(Slice name, char separator)
{
        size_t at = name.len;

        while (at > 0 && name.data[at - 1] != separator)
                at--;
        return slice_skip(name, at);
}

const char *mime_find(Slice name)
{
        Slice base = last_part(name, '/'), ending = last_part(base, '.');

        if (ending.len < base.len)
                for (size_t i = 0; i < ELEMENTSOF(types); i++)
                        if (slice_equal_case(ending, slice_from(types[i].ending)))
                                return types[i].type;
        return "application/octet-stream";
}

/*
 * Eight hexadecimal digits or more between two dots. A date, 20261122, is all digits and as long:
 * with less than twelve digits there has to be a letter among them.
 */
static bool is_hash(Slice part)
{
        bool letter = false;

        for (size_t i = 0; i < part.len; i++) {
                char c = part.data[i];

                if (c >= 'a' && c <= 'f')
                        letter = true;
                else if (c < '0' || c > '9')
                        return false;
        }
        return part.len >= 12 || (part.len >= 8 && letter);
}

bool name_has_hash(Slice name)
{
        Slice rest = last_part(name, '/');

        slice_cut(&rest, '.');
        while (slice_find(rest, '.') >= 0)
                if (is_hash(slice_cut(&rest, '.')))
                        return true;
        return false;
}
