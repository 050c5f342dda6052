/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

/* What a request's headers ask for: RFC 9110, 12.5.3 (codings), 13 (conditions), 14 (ranges). */

/* A weight of 0 to 1000; what is malformed is 0. */
static unsigned parse_weight(Slice s)
{
        unsigned value = 0, scale = 100;

        if (s.len == 0 || (s.data[0] != '0' && s.data[0] != '1'))
                return 0;
        value = s.data[0] == '1' ? 1000 : 0;
        for (size_t i = 2; i < s.len && i < 5; i++, scale /= 10) {
                if (s.data[i] < '0' || s.data[i] > '9')
                        return 0;
                value += (unsigned)(s.data[i] - '0') * scale;
        }
        return MIN(value, 1000u);
}

/* "gzip;q=0.5" -> the name, and the weight in *ret. */
static Slice parse_coding(Slice item, unsigned *ret)
{
        Slice name = slice_trim(slice_cut(&item, ';'));

        *ret = 1000;
        while (item.len) {
                Slice parameter = slice_trim(slice_cut(&item, ';'));
                Slice key = slice_trim(slice_cut(&parameter, '='));

                if (slice_equal_case(key, SLICE("q")))
                        *ret = parse_weight(slice_trim(parameter));
        }
        return name;
}

#define WEIGHT_UNSAID UINT32_MAX

static void read_weights(Slice value, unsigned weights[_ASSET_CODINGS], unsigned *any)
{
        while (value.len) {
                unsigned weight;
                Slice name = parse_coding(slice_cut(&value, ','), &weight);

                if (slice_equal_case(name, SLICE("br")))
                        weights[ASSET_BROTLI] = weight;
                else if (slice_equal_case(name, SLICE("gzip")) ||
                         slice_equal_case(name, SLICE("x-gzip")))
                        weights[ASSET_GZIP] = weight;
                else if (slice_equal_case(name, SLICE("identity")))
                        weights[ASSET_IDENTITY] = weight;
                else if (slice_equal(name, SLICE("*")))
                        *any = weight;
        }
}

AssetCoding negotiate_coding(const Request *request, const bool exists[_ASSET_CODINGS])
{
        static const AssetCoding order[] = { ASSET_BROTLI, ASSET_GZIP };
        unsigned weights[_ASSET_CODINGS] = { WEIGHT_UNSAID, WEIGHT_UNSAID, WEIGHT_UNSAID };
        unsigned any = WEIGHT_UNSAID, best_weight;
        AssetCoding best = ASSET_IDENTITY;

        for (size_t i = 0; i < request->n_headers; i++)
                if (slice_equal_case(request->headers[i].name, SLICE("Accept-Encoding")))
                        read_weights(request->headers[i].value, weights, &any);
        /* Identity is always acceptable, and least wanted unless the client says a weight. */
        best_weight = weights[ASSET_IDENTITY] == WEIGHT_UNSAID ? 0 : weights[ASSET_IDENTITY];
        for (size_t i = 0; i < ELEMENTSOF(order); i++) {
                unsigned weight = weights[order[i]];

                if (weight == WEIGHT_UNSAID)
                        weight = any == WEIGHT_UNSAID ? 0 : any;
                if (!exists[order[i]] || weight == 0)
                        continue;
                if (best == ASSET_IDENTITY ? weight >= best_weight : weight > best_weight) {
                        best = order[i];
                        best_weight = weight;
                }
        }
        return best;
}

/* Whether a list of entity tags holds this one; weak: W/ does not count. */
static bool tags_hold(Slice list, Slice etag, bool weak)
{
        while (list.len) {
                Slice tag = slice_trim(slice_cut(&list, ','));

                if (slice_equal(tag, SLICE("*")))
                        return true;
                if (weak && slice_has_prefix(tag, SLICE("W/")))
                        tag = slice_skip(tag, 2);
                if (slice_equal(tag, etag))
                        return true;
        }
        return false;
}

bool negotiate_is_fresh(const Request *request, const AssetFile *file, int64_t modified)
{
        const HttpHeader *since = request_find_header(request, SLICE("If-Modified-Since"));
        bool tags = false;
        int64_t time;

        for (size_t i = 0; i < request->n_headers; i++) {
                if (!slice_equal_case(request->headers[i].name, SLICE("If-None-Match")))
                        continue;
                tags = true;
                if (tags_hold(request->headers[i].value, slice_from(file->etag), true))
                        return true;
        }
        return !tags && since && http_parse_date(since->value, &time) && modified <= time;
}

static bool if_range_holds(const Request *request, const AssetFile *file, int64_t modified)
{
        const HttpHeader *condition = request_find_header(request, SLICE("If-Range"));
        int64_t time;

        if (!condition)
                return true;
        if (slice_has_prefix(condition->value, SLICE("\"")))
                return slice_equal(condition->value, slice_from(file->etag));
        return http_parse_date(condition->value, &time) && time == modified;
}

RangeResult negotiate_range(
        const Request *request, const AssetFile *file, int64_t modified, ByteRange *ret)
{
        const HttpHeader *header = request_find_header(request, SLICE("Range"));
        uint64_t first, last = UINT64_MAX;
        Slice from, to;

        if (!header || !slice_equal(request->method, SLICE("GET")) ||
                !if_range_holds(request, file, modified))
                return RANGE_NONE;
        to = header->value;
        if (!slice_equal_case(slice_trim(slice_cut(&to, '=')), SLICE("bytes")) ||
                slice_find(to, ',') >= 0 || slice_find(to, '-') < 0)
                return RANGE_NONE;
        from = slice_trim(slice_cut(&to, '-'));
        to = slice_trim(to);
        if (to.len && !slice_to_u64(to, &last))
                return RANGE_NONE;
        if (from.len == 0) { /* the last so many */
                if (to.len == 0)
                        return RANGE_NONE;
                if (last == 0 || file->size == 0)
                        return RANGE_BEYOND;
                last = MIN(last, file->size);
                *ret = (ByteRange){ file->size - last, last };
                return RANGE_PART;
        }
        if (!slice_to_u64(from, &first) || first > last)
                return RANGE_NONE;
        if (first >= file->size)
                return RANGE_BEYOND;
        last = MIN(last, file->size - 1);
        *ret = (ByteRange){ first, last - first + 1 };
        return RANGE_PART;
}
