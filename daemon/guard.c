/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/guard.h"

#include "lib/wire/ident.h"

void guard_init(Guard *guard, Slice token, bool open)
{
        *guard = (Guard){ .token = token, .open = open };
}

static bool has_management_segment(Slice path)
{
        while (path.len) {
                Slice segment = slice_cut(&path, '/');

                if (segment.len > 4 && slice_has_prefix(segment, SLICE("__")) &&
                        slice_has_suffix(segment, SLICE("__")))
                        return true;
        }
        return false;
}

bool guard_is_management(Slice path)
{
        Buf decoded = BUF_INIT(0);
        bool found;

        if (slice_find(path, '%') < 0)
                return has_management_segment(path);
        found = !http_path_decode(path, &decoded) || has_management_segment(buf_slice(&decoded));
        buf_done(&decoded);
        return found;
}

unsigned guard_check(const Guard *guard, const HttpHead *head, const char **ret_message)
{
        const HttpHeader *header;
        Slice given;

        if (guard->open || !guard_is_management(head->path))
                return 0;
        header = http_head_find(head, SLICE("Authorization"));
        if (!header) {
                *ret_message = "a management endpoint needs the admin token: "
                               "Authorization: Bearer <token>";
                return 401;
        }
        given = header->value;
        if (given.len > 7 && slice_equal_case(slice_head(given, 7), SLICE("Bearer ")) &&
                guard->token.len &&
                ident_secret_equal(slice_trim(slice_skip(given, 7)), guard->token))
                return 0;
        *ret_message = "this is not the admin token";
        return 403;
}
