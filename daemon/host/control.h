/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control socket: a Varlink server
 *
 * Serves interfaces that its owner describes as tables, and org.varlink.service itself. A client's
 * calls are answered one after the other, in their order. Loop thread alone.
 *
 * Who may call: root, the daemon's own user, and members of the group "durabled" (by the peer
 * credentials of the socket); anybody else gets org.varlink.service.PermissionDenied.
 *
 * Guarantees:
 * 1. At most clients_max clients, CONTROL_INPUT_MAX bytes of input each; while a call is being
 *    answered nothing more is read from its client. A client beyond the limit is told so by
 *    being closed.
 * 2. A ControlCall is answered exactly once, by control_reply() or control_reply_error(), at any
 *    time, also after its client has gone: it ends there. Whoever works for it is told that
 *    (control_on_gone()); a client that has only ended its own side still waits.
 * 3. The socket file has mode 0660, and the group durabled where there is one.
 */

#include "lib/loop/ring.h"
#include "lib/wire/varlink.h"

#define CONTROL_INPUT_MAX (64u << 10)
#define CONTROL_OUTPUT_MAX (8u << 20)

typedef struct Control Control;
typedef struct ControlCall ControlCall;

typedef struct ControlMethod {
        const char *name; /* without the interface: "Status" */
        /* parameters: an object, valid until the answer. data: of the options. */
        void (*fn)(ControlCall *call, json_t *parameters, void *data);
} ControlMethod;

typedef struct ControlInterface {
        const char *name;        /* "io.durabled.Manager" */
        const char *description; /* the text of its .varlink file */
        const ControlMethod *methods;
        size_t n_methods;
} ControlInterface;

typedef struct ControlOptions {
        Ring *ring;
        const char *path; /* NULL: no socket of its own, control_add() alone */
        const ControlInterface *interfaces;
        size_t n_interfaces;
        unsigned clients_max; /* 0: 64 */
        void *data;
} ControlOptions;

/* -EADDRINUSE: somebody answers at path; a left-over socket file is replaced. */
int control_open(const ControlOptions *options, Control **ret);
/* Removes the socket file. Calls that are not answered yet stay valid until they are. The ring must
 * not run any more. */
Control *control_close(Control *control);
DEFINE_CLEANUP(Control *, control_close)
/* A connected stream socket; taken on success. */
int control_add(Control *control, int fd);

/* gone is called when the client goes before the answer, which still has to come. */
void control_on_gone(ControlCall *call, void (*gone)(void *data), void *data);
/* parameters may be NULL; a reference is not taken. The call is gone then. */
void control_reply(ControlCall *call, json_t *parameters);
void control_reply_error(ControlCall *call, const char *error, json_t *parameters);
/* The same with a descriptor, which is taken; "fd" in parameters is 0, its number in the message.
 */
void control_reply_fd(ControlCall *call, json_t *parameters, int fd);
/* org.varlink.service.InvalidParameter. */
void control_reply_invalid(ControlCall *call, const char *parameter);
