/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a parser says of a stream of messages, as text
 *
 * Feeds a stream in pieces and writes down every head, the bytes of every body and how it ended.
 * Bodies are joined and nothing depends on the pieces, so that two transcripts of one stream are
 * equal exactly when the parser does not care how the bytes arrived. Shared by the unit tests and
 * the fuzz target. Aborts where the parser breaks a guarantee on what it takes.
 */

#include "lib/wire/http.h"

typedef struct Transcript {
        HttpKind kind;
        HttpLimits limits;
        bool head_request;
        bool finish; /* the stream ends after the last byte */
} Transcript;

/* How many bytes the next piece has, of at most left; 0 counts as 1. */
typedef size_t (*TranscriptPiece)(void *data, size_t at, size_t left);

/* Appends to buf; the result is the parser's verdict: 0 or HTTP_E_*. */
int http_transcript(
        const Transcript *how, Slice stream, TranscriptPiece piece, void *data, Buf *buf);
