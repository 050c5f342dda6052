/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/routes.h"

#include "lib/base/list.h"
#include "lib/base/map.h"
#include "lib/wire/http.h"

#include <errno.h>

#define PARTS_MAX 32u     /* labels of a host, segments of a path */
#define KEY_MAX 1024u     /* host and path prefix that a learned route is keyed by */
#define STABLE_MIN 4u     /* answers in a row by one shard before a shorter prefix speaks for all */
#define CONFLICTS_MAX 12u /* each doubles what is needed */
#define LEARNED_MAX 65536u

typedef struct Part {
        bool placeholder;
        Slice text; /* in the manifest */
} Part;

typedef struct Route {
        const ManifestRoute *declared;
        bool any_host, has_port, rest; /* rest: ends in "*" */
        Slice port;
        size_t n_labels, n_segments;
        Part labels[PARTS_MAX], segments[PARTS_MAX];
} Route;

typedef struct Learned {
        MapNode node;
        List link; /* most recently used last */
        uint64_t key;
        uint16_t shard;
        uint8_t conflicts;
        uint32_t agreed; /* times in a row */
} Learned;

struct Routes {
        Route *declared;
        size_t n_declared;
        Map learned;
        List recent;
        size_t learned_max;
};

static int compile_parts(Slice text, char separator, Part parts[PARTS_MAX], size_t *ret_n)
{
        size_t n = 0;
        bool more = true;

        while (more) {
                more = slice_find(text, separator) >= 0;
                if (n == PARTS_MAX)
                        return -E2BIG;
                parts[n].text = slice_cut(&text, separator);
                parts[n].placeholder = slice_has_prefix(parts[n].text, SLICE("{"));
                if (parts[n].placeholder)
                        parts[n].text = slice_of(parts[n].text.data + 1, parts[n].text.len - 2);
                n++;
        }
        *ret_n = n;
        return 0;
}

/* The manifest has checked what a pattern may be: -EINVAL is a caller's that has not. */
static int compile(const ManifestRoute *declared, Route *ret)
{
        Slice path = slice_from(declared->pattern), host;
        ptrdiff_t slash = slice_find(path, '/'), colon;
        int r;

        if (slash < 0)
                return -EINVAL;
        host = slice_head(path, (size_t)slash);
        path = slice_skip(path, (size_t)slash + 1);
        *ret = (Route){ .declared = declared, .any_host = host.len == 0 };
        colon = slice_find(host, ':');
        if (colon >= 0) {
                ret->has_port = true;
                ret->port = slice_skip(host, (size_t)colon + 1);
                host = slice_head(host, (size_t)colon);
        }
        r = compile_parts(host, '.', ret->labels, &ret->n_labels);
        if (!r)
                r = compile_parts(path, '/', ret->segments, &ret->n_segments);
        if (r)
                return r;
        if (slice_equal(ret->segments[ret->n_segments - 1].text, SLICE("*"))) {
                ret->rest = true;
                ret->n_segments--;
        }
        return 0;
}

int routes_new(const Manifest *manifest, size_t learned_max, Routes **ret)
{
        _cleanup_(routes_free_p) Routes *routes = calloc(1, sizeof *routes);
        int r;

        if (!routes)
                return -ENOMEM;
        map_init(&routes->learned);
        list_init(&routes->recent);
        routes->learned_max = learned_max ? learned_max : LEARNED_MAX;
        if (manifest->n_routes) {
                routes->declared = calloc(manifest->n_routes, sizeof *routes->declared);
                if (!routes->declared)
                        return -ENOMEM;
        }
        for (size_t i = 0; i < manifest->n_routes; i++) {
                r = compile(&manifest->routes[i], &routes->declared[i]);
                if (r)
                        return r;
                routes->n_declared++;
        }
        *ret = TAKE_PTR(routes);
        return 0;
}

static void learned_forget(Routes *routes, Learned *learned)
{
        map_remove(&routes->learned, &learned->node);
        list_unlink(&learned->link);
        free(learned);
}

Routes *routes_free(Routes *routes)
{
        MapNode *node;

        if (!routes)
                return NULL;
        while ((node = map_first(&routes->learned)))
                learned_forget(routes, CONTAINER_OF(node, Learned, node));
        map_done(&routes->learned);
        free(routes->declared);
        free(routes);
        return NULL;
}

/* What a match has found so far: values of placeholders, decoded, back to back in one buffer. */
typedef struct Match {
        Slice values[2 * PARTS_MAX];
        const Part *parts[2 * PARTS_MAX];
        size_t n;
        Buf text;
} Match;

/* The authority without its port. */
static Slice split_port(Slice authority, Slice *ret_port)
{
        size_t at = authority.len;

        while (at > 0 && authority.data[at - 1] >= '0' && authority.data[at - 1] <= '9')
                at--;
        if (at == 0 || authority.data[at - 1] != ':')
                at = authority.len + 1;
        *ret_port = slice_skip(authority, at);
        return slice_head(authority, at - 1);
}

static bool match_host(const Route *route, Slice authority, Match *match)
{
        Slice port, host = split_port(authority, &port);

        if (route->any_host)
                return true;
        if (route->has_port && !slice_equal(port, route->port))
                return false;
        if (host.len && host.data[host.len - 1] == '.') /* a fully qualified name */
                host.len--;
        for (size_t i = 0; i < route->n_labels; i++) {
                const Part *part = &route->labels[i];
                bool last = i + 1 == route->n_labels;
                Slice label;

                if (last != (slice_find(host, '.') < 0))
                        return false;
                label = slice_cut(&host, '.');
                if (label.len == 0)
                        return false;
                if (part->placeholder) {
                        match->parts[match->n] = part;
                        match->values[match->n++] = label;
                } else if (!slice_equal_case(label, part->text)) {
                        return false;
                }
        }
        return true;
}

/* One segment of the path, decoded behind what the buffer holds. */
static bool decode_segment(Slice segment, Match *match, Slice *ret)
{
        size_t before = match->text.len;

        if (slice_find(segment, '%') < 0) {
                *ret = segment;
                return true;
        }
        if (!http_path_decode(segment, &match->text))
                return false;
        *ret = slice_of(buf_data(&match->text) + before, match->text.len - before);
        return true;
}

static bool match_path(const Route *route, Slice path, Match *match)
{
        Slice rest = slice_skip(path, 1), segment;
        bool more = true; /* a segment follows, an empty one after a final slash */

        if (path.len == 0 || path.data[0] != '/')
                return false;
        for (size_t i = 0; i < route->n_segments; i++) {
                const Part *part = &route->segments[i];

                if (!more)
                        return false;
                more = slice_find(rest, '/') >= 0;
                if (!decode_segment(slice_cut(&rest, '/'), match, &segment))
                        return false;
                if (!part->placeholder) {
                        if (!slice_equal(segment, part->text))
                                return false;
                        continue;
                }
                if (segment.len == 0)
                        return false;
                match->parts[match->n] = part;
                match->values[match->n++] = segment;
        }
        return route->rest || !more;
}

static bool match_find(const Match *match, Slice placeholder, Slice *ret)
{
        for (size_t i = 0; i < match->n; i++)
                if (slice_equal(match->parts[i]->text, placeholder)) {
                        *ret = match->values[i];
                        return true;
                }
        return false;
}

/* Host labels are names without case: an object is the same however its host is written. */
static void append_value(char *to, Slice value, bool lower)
{
        for (size_t i = 0; i < value.len; i++) {
                char c = value.data[i];

                to[i] = lower && c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
        }
}

static bool is_label(const Route *route, Slice placeholder)
{
        for (size_t i = 0; i < route->n_labels; i++)
                if (route->labels[i].placeholder && slice_equal(route->labels[i].text, placeholder))
                        return true;
        return false;
}

/* A name that does not fit or holds a NUL is no object's. */
static bool fill_name(const Route *route, const Match *match, char name[256])
{
        Slice rest = slice_from(route->declared->name), value;
        size_t len = 0;

        while (rest.len) {
                bool lower = false;

                if (rest.data[0] == '{') {
                        Slice placeholder;

                        rest = slice_skip(rest, 1);
                        placeholder = slice_cut(&rest, '}');
                        if (!match_find(match, placeholder, &value))
                                return false;
                        lower = is_label(route, placeholder);
                } else {
                        value = slice_head(rest, 1);
                        rest = slice_skip(rest, 1);
                }
                if (value.len > 255 - len || slice_find(value, '\0') >= 0)
                        return false;
                append_value(name + len, value, lower);
                len += value.len;
        }
        name[len] = '\0';
        return len > 0;
}

static bool find_declared(Routes *routes, Slice authority, Slice path, RouteTarget *ret)
{
        bool found = false;

        for (size_t i = 0; i < routes->n_declared && !found; i++) {
                const Route *route = &routes->declared[i];
                Match match = { .text = BUF_INIT(0) };
                char *unused;

                /* Room for all that can be decoded: values point into it, it must not move. */
                if (slice_find(path, '%') >= 0 && buf_reserve(&match.text, path.len, &unused))
                        return false;
                found = match_host(route, authority, &match) && match_path(route, path, &match) &&
                        fill_name(route, &match, ret->name);
                if (found)
                        ret->route = route->declared;
                buf_done(&match.text);
        }
        return found;
}

/*
 * The keys of a request at depth 0 (its host) to ROUTES_DEPTH. The same bytes give the same key:
 * host in lower case, NUL, path up to the end of the segment.
 */
static unsigned make_keys(
        const Routes *routes, Slice authority, Slice path, uint64_t keys[ROUTES_DEPTH + 1])
{
        char text[KEY_MAX];
        size_t end = 0;
        unsigned n = 0;

        if (authority.len + 1 > sizeof text)
                return 0;
        append_value(text, authority, true);
        text[authority.len] = '\0';
        for (;;) {
                if (end > sizeof text - authority.len - 1)
                        return n;
                if (end)
                        memcpy(text + authority.len + 1, path.data, end);
                keys[n++] =
                        siphash24(routes->learned.secret, slice_of(text, authority.len + 1 + end));
                if (n > ROUTES_DEPTH || end + 1 >= path.len)
                        return n;
                for (end++; end < path.len && path.data[end] != '/';)
                        end++;
        }
}

static Learned *learned_find(const Routes *routes, uint64_t key)
{
        MapNode *node = map_find(&routes->learned, slice_of(&key, sizeof key));

        return node ? CONTAINER_OF(node, Learned, node) : NULL;
}

/* The whole path of a request speaks for itself; a shorter one has to agree for longer. */
static bool learned_is_stable(const Learned *learned, bool deepest)
{
        if (learned->conflicts == 0 && deepest)
                return true;
        return learned->agreed >= STABLE_MIN << learned->conflicts;
}

static bool find_learned(Routes *routes, Slice authority, Slice path, RouteTarget *ret)
{
        uint64_t keys[ROUTES_DEPTH + 1];
        unsigned n;

        if (routes->learned.len == 0)
                return false;
        n = make_keys(routes, authority, path, keys);
        for (unsigned i = n; i-- > 0;) {
                Learned *learned = learned_find(routes, keys[i]);

                if (!learned || !learned_is_stable(learned, i + 1 == n))
                        continue;
                list_unlink(&learned->link);
                list_append(&routes->recent, &learned->link);
                ret->shard = learned->shard;
                return true;
        }
        return false;
}

bool routes_find(Routes *routes, Slice authority, Slice path, RouteTarget *ret)
{
        *ret = (RouteTarget){ .shard = -1 };
        return find_declared(routes, authority, path, ret) ||
               find_learned(routes, authority, path, ret);
}

static Learned *learned_new(Routes *routes, uint64_t key, unsigned shard)
{
        List *oldest = list_first(&routes->recent);
        Learned *learned;

        if (oldest && routes->learned.len >= routes->learned_max)
                learned_forget(routes, list_entry(oldest, Learned, link));
        learned = malloc(sizeof *learned);
        if (!learned)
                return NULL;
        *learned = (Learned){ .key = key, .shard = (uint16_t)shard };
        list_init(&learned->link);
        if (map_insert(&routes->learned, &learned->node,
                    slice_of(&learned->key, sizeof learned->key))) {
                free(learned);
                return NULL;
        }
        list_append(&routes->recent, &learned->link);
        return learned;
}

void routes_learn(Routes *routes, Slice authority, Slice path, unsigned shard)
{
        uint64_t keys[ROUTES_DEPTH + 1];
        unsigned n = make_keys(routes, authority, path, keys);
        bool settled = false; /* a shorter prefix says the same already: no new entries below it */

        dd_assert(shard < IDENT_SHARDS);
        for (unsigned i = 0; i < n; i++) {
                Learned *learned = learned_find(routes, keys[i]);

                if (!learned && settled)
                        continue;
                if (!learned)
                        learned = learned_new(routes, keys[i], shard);
                if (!learned)
                        return; /* no memory: not learned, steered by chance */
                if (learned->shard != shard) {
                        learned->shard = (uint16_t)shard;
                        learned->agreed = 0;
                        if (learned->conflicts < CONFLICTS_MAX)
                                learned->conflicts++;
                }
                if (learned->agreed < UINT32_MAX)
                        learned->agreed++;
                list_unlink(&learned->link);
                list_append(&routes->recent, &learned->link);
                settled |= learned_is_stable(learned, false);
        }
}
