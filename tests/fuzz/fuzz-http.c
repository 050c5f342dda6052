/* SPDX-License-Identifier: Apache-2.0 */

/*
 * HTTP messages: whatever arrives, however it is cut, the parser says the same
 *
 * Input: a byte of switches (1: responses, 2: to HEAD, 4: the stream ends, 8: small limits), a seed
 * of the random cuts, then the stream. Printable seeds start with a digit and any character.
 */

#include "tests/unit/wire/http-transcript.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t one_byte(void *data, size_t at, size_t left)
{
        return 1;
}

/* 1 to 32 bytes, from a linear congruential generator (Knuth's MMIX constants). */
static size_t some_bytes(void *data, size_t at, size_t left)
{
        uint64_t *seed = data;

        *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return 1 + (*seed >> 33) % 32;
}

static void compare(const Transcript *how, Slice stream, TranscriptPiece piece, uint64_t seed,
        int verdict, const Buf *expected)
{
        Buf buf = BUF_INIT(0);
        int r;

        r = http_transcript(how, stream, piece, &seed, &buf);
        if (r != verdict || !slice_equal(buf_slice(&buf), buf_slice(expected))) {
                fprintf(stderr, "whole:\n%.*s\nin pieces:\n%.*s\n", SLICE_FMT(buf_slice(expected)),
                        SLICE_FMT(buf_slice(&buf)));
                abort();
        }
        buf_done(&buf);
}

/* The helpers that take raw text get the stream too. */
static void check_text(Slice stream)
{
        Buf buf = BUF_INIT(0);
        int64_t seconds, again;
        char date[30];

        if (http_path_decode(stream, &buf))
                dd_assert(buf.len <= stream.len &&
                          (buf.len == 0 || !memchr(buf_data(&buf), '\0', buf.len)));
        else
                dd_assert(buf.len == 0);
        buf_done(&buf);
        if (http_parse_date(stream, &seconds)) {
                http_format_date(seconds, date);
                dd_assert(http_parse_date(slice_from(date), &again) && again == seconds);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Transcript how = { 0 };
        Buf whole = BUF_INIT(0);
        Slice stream;
        int verdict;

        if (size < 2)
                return 0;
        how.kind = data[0] & 1 ? HTTP_RESPONSE : HTTP_REQUEST;
        how.head_request = data[0] & 2;
        how.finish = data[0] & 4;
        if (data[0] & 8)
                how.limits = (HttpLimits){
                        .head_max = 96, .target_max = 24, .headers_max = 4, .body_max = 40
                };
        stream = slice_of(data + 2, size - 2);
        check_text(stream);
        verdict = http_transcript(&how, stream, NULL, NULL, &whole);
        compare(&how, stream, one_byte, 0, verdict, &whole);
        compare(&how, stream, some_bytes, data[1], verdict, &whole);
        compare(&how, stream, some_bytes, data[1] + 256u, verdict, &whole);
        buf_done(&whole);
        return 0;
}
