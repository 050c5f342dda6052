/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/control.h"

#include "daemon/core/log.h"
#include "daemon/host/interfaces.h"
#include "lib/base/file.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SERVICE "org.varlink.service"
#define GROUP "durabled"
#define CLIENTS_MAX_DEFAULT 64
#define GROUPS_MAX 256

typedef struct ControlClient {
        List link;
        Control *control;
        int fd;
        bool allowed, closing;
        RingOp input_op, output_op, gone_op;
        Buf input, output;
        int output_fd;     /* goes with the output's first byte, or -1 */
        ControlCall *call; /* being answered */
} ControlClient;

struct ControlCall {
        ControlClient *client; /* NULL: it has gone */
        VarlinkCall varlink;
        void (*gone)(void *data);
        void *gone_data;
};

struct Control {
        Ring *ring;
        char *path;
        int fd;
        RingOp accept_op;
        RingTimer accept_timer; /* goes on after an error */
        List clients;
        unsigned n_clients, clients_max;
        const ControlInterface *interfaces;
        size_t n_interfaces;
        gid_t group;
        bool has_group, full_said;
        void *data;
};

static void client_step(ControlClient *client);

/* ---- clients come and go ---- */

static void client_free(ControlClient *client)
{
        if (client->call)
                client->call->client = NULL;
        list_unlink(&client->link);
        client->control->n_clients--;
        buf_done(&client->input);
        buf_done(&client->output);
        close_p(&client->output_fd);
        close(client->fd);
        free(client);
}

/* Ends the client once none of its operations is pending. */
static void client_close(ControlClient *client)
{
        Ring *ring = client->control->ring;

        ControlCall *call = TAKE_PTR(client->call);

        client->closing = true;
        if (call) {
                call->client = NULL;
                if (call->gone)
                        call->gone(call->gone_data);
        }
        if (client->input_op.pending)
                ring_cancel(ring, &client->input_op);
        if (client->output_op.pending)
                ring_cancel(ring, &client->output_op);
        if (client->gone_op.pending)
                ring_cancel(ring, &client->gone_op);
        if (!client->input_op.pending && !client->output_op.pending && !client->gone_op.pending)
                client_free(client);
}

static bool peer_is_allowed(const Control *control, int fd)
{
        struct ucred peer;
        socklen_t len = sizeof(peer);
        gid_t groups[GROUPS_MAX];

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
                return false;
        if (peer.uid == 0 || peer.uid == geteuid())
                return true;
        if (!control->has_group)
                return false;
        if (peer.gid == control->group)
                return true;
        len = sizeof(groups);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
                return false;
        for (size_t i = 0; i < len / sizeof(*groups); i++)
                if (groups[i] == control->group)
                        return true;
        return false;
}

static void client_input(RingOp *op, const RingResult *result)
{
        ControlClient *client = CONTAINER_OF(op, ControlClient, input_op);
        char *room;
        ssize_t n;

        if (client->closing) {
                client_close(client);
                return;
        }
        if (buf_reserve(&client->input, 4096, &room) < 0) {
                log_warn("control: a call is longer than %u bytes, its client is closed",
                        CONTROL_INPUT_MAX);
                client_close(client);
                return;
        }
        n = recv(client->fd, room, 4096, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
                client_close(client);
                return;
        }
        if (n > 0)
                buf_commit(&client->input, (size_t)n);
        client_step(client);
}

/* Nothing is read while a call is being answered. */
static void client_gone(RingOp *op, const RingResult *result)
{
        ControlClient *client = CONTAINER_OF(op, ControlClient, gone_op);

        if (client->closing || (result->res >= 0 && result->res & (POLLHUP | POLLERR)))
                client_close(client);
}

static void client_output(RingOp *op, const RingResult *result)
{
        ControlClient *client = CONTAINER_OF(op, ControlClient, output_op);

        if (client->closing)
                client_close(client);
        else
                client_step(client);
}

int control_add(Control *control, int fd)
{
        ControlClient *client;

        if (control->n_clients >= control->clients_max) {
                if (!control->full_said)
                        log_warn("control: more than %u clients, others are closed",
                                control->clients_max);
                control->full_said = true;
                return -EUSERS;
        }
        client = calloc(1, sizeof(*client));
        if (!client)
                return -ENOMEM;
        control->full_said = false;
        client->control = control;
        client->fd = fd;
        client->output_fd = -1;
        client->allowed = peer_is_allowed(control, fd);
        ring_op_init(&client->input_op, client_input);
        ring_op_init(&client->output_op, client_output);
        ring_op_init(&client->gone_op, client_gone);
        buf_init(&client->input, CONTROL_INPUT_MAX);
        buf_init(&client->output, CONTROL_OUTPUT_MAX);
        list_init(&client->link);
        list_append(&control->clients, &client->link);
        control->n_clients++;
        ring_poll(control->ring, &client->input_op, fd, POLLIN, false);
        return 0;
}

static void control_accepted(RingOp *op, const RingResult *result)
{
        Control *control = CONTAINER_OF(op, Control, accept_op);

        if (result->res >= 0) {
                if (control_add(control, result->res) < 0)
                        close(result->res);
        } else if (result->res == -ECANCELED) {
                return;
        } else {
                log_warn("control: accept: %s", strerror(-result->res));
                if (!result->more && ring_timer_arm(control->ring, &control->accept_timer,
                                             ring_now(control->ring) + NSEC_PER_SEC) == 0)
                        return;
        }
        if (!result->more)
                ring_accept(control->ring, &control->accept_op, control->fd);
}

static void control_accept_again(RingTimer *timer)
{
        Control *control = CONTAINER_OF(timer, Control, accept_timer);

        ring_accept(control->ring, &control->accept_op, control->fd);
}

/* ---- calls ---- */

static const ControlInterface *find_interface(const Control *control, Slice name)
{
        for (size_t i = 0; i < control->n_interfaces; i++)
                if (slice_equal(slice_from(control->interfaces[i].name), name))
                        return &control->interfaces[i];
        return NULL;
}

static void reply_named(ControlCall *call, const char *error, const char *key, Slice value)
{
        _cleanup_(json_decref_p) json_t *parameters =
                json_pack("{s:s%}", key, value.data ? value.data : "", value.len);

        control_reply_error(call, error, parameters);
}

static void service_info(ControlCall *call, const Control *control)
{
        _cleanup_(json_decref_p) json_t *info = NULL;
        json_t *names = json_array();

        (void)json_array_append_new(names, json_string(SERVICE));
        for (size_t i = 0; i < control->n_interfaces; i++)
                (void)json_array_append_new(names, json_string(control->interfaces[i].name));
        info = json_pack("{s:s, s:s, s:s, s:s, s:o}", "vendor", "durabled", "product", "durabled",
                "version", DURABLED_VERSION, "url", "", "interfaces", names);
        control_reply(call, info);
}

static void service_description(ControlCall *call, const Control *control)
{
        const char *name =
                json_string_value(json_object_get(call->varlink.parameters, "interface"));
        _cleanup_(json_decref_p) json_t *answer = NULL;
        const ControlInterface *interface;
        const char *text = NULL;

        if (!name) {
                control_reply_invalid(call, "interface");
                return;
        }
        interface = find_interface(control, slice_from(name));
        if (interface)
                text = interface->description;
        else if (strcmp(name, SERVICE) == 0)
                text = interface_org_varlink_service;
        if (!text) {
                reply_named(call, SERVICE ".InterfaceNotFound", "interface", slice_from(name));
                return;
        }
        answer = json_pack("{s:s}", "description", text);
        control_reply(call, answer);
}

static void call_dispatch(ControlCall *call)
{
        const Control *control = call->client->control;
        const char *name = call->varlink.method, *dot = strrchr(name, '.');
        const ControlInterface *interface;
        Slice prefix;

        if (!call->client->allowed) {
                control_reply_error(call, SERVICE ".PermissionDenied", NULL);
                return;
        }
        if (strcmp(name, SERVICE ".GetInfo") == 0) {
                service_info(call, control);
                return;
        }
        if (strcmp(name, SERVICE ".GetInterfaceDescription") == 0) {
                service_description(call, control);
                return;
        }
        if (!dot) {
                reply_named(call, SERVICE ".InterfaceNotFound", "interface", SLICE(""));
                return;
        }
        prefix = slice_of(name, (size_t)(dot - name));
        if (slice_equal(prefix, SLICE(SERVICE))) {
                reply_named(call, SERVICE ".MethodNotFound", "method", slice_from(name));
                return;
        }
        interface = find_interface(control, prefix);
        if (!interface) {
                reply_named(call, SERVICE ".InterfaceNotFound", "interface", prefix);
                return;
        }
        for (size_t i = 0; i < interface->n_methods; i++) {
                if (strcmp(interface->methods[i].name, dot + 1) != 0)
                        continue;
                interface->methods[i].fn(call, call->varlink.parameters, control->data);
                return;
        }
        reply_named(call, SERVICE ".MethodNotFound", "method", slice_from(name));
}

static ssize_t client_send(ControlClient *client)
{
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct iovec vector = { buf_data(&client->output), client->output.len };
        struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

        if (client->output_fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                control.header = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(sizeof(int)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                };
                memcpy(CMSG_DATA(&control.header), &client->output_fd, sizeof(int));
        }
        return sendmsg(client->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Sends what there is. False: the client has been closed. */
static bool client_flush(ControlClient *client)
{
        while (client->output.len > 0) {
                ssize_t n = client_send(client);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0) {
                        client_close(client);
                        return false;
                }
                if (client->output_fd >= 0)
                        close(TAKE_FD(client->output_fd));
                buf_consume(&client->output, (size_t)n);
        }
        return true;
}

/* Takes the next call out of the input. False: there is none, or the client has been closed. */
static bool client_take_call(ControlClient *client)
{
        ControlCall *call = calloc(1, sizeof(*call));
        int r = call ? varlink_take_call(&client->input, &call->varlink) : -ENOMEM;

        if (r == 0) {
                call->client = client;
                client->call = call;
                call_dispatch(call);
                return true;
        }
        free(call);
        if (r != VARLINK_E_MORE) {
                log_warn("control: a client is closed, its call is %s",
                        r == VARLINK_E_MALFORMED   ? "no Varlink message"
                        : r == VARLINK_E_TOO_LARGE ? "too large"
                                                   : strerror(-r));
                client_close(client);
                return false;
        }
        if (!client->input_op.pending)
                ring_poll(client->control->ring, &client->input_op, client->fd, POLLIN, false);
        return false;
}

/* Output first; then, when no call is being answered, the next call; then more input. */
static void client_step(ControlClient *client)
{
        for (;;) {
                if (client->closing) {
                        client_close(client);
                        return;
                }
                if (!client_flush(client))
                        return;
                if (client->output.len > 0) {
                        if (!client->output_op.pending)
                                ring_poll(client->control->ring, &client->output_op, client->fd,
                                        POLLOUT, false);
                        return;
                }
                if (client->call) {
                        if (!client->gone_op.pending)
                                ring_poll(client->control->ring, &client->gone_op, client->fd, 0,
                                        false);
                        return;
                }
                if (!client_take_call(client))
                        return;
        }
}

/* The answer is in the output; goes on with the client unless it is in client_step() already. */
static void call_end(ControlCall *call, int written)
{
        ControlClient *client = call->client;

        varlink_call_done(&call->varlink);
        free(call);
        if (!client)
                return;
        client->call = NULL;
        if (written < 0) {
                log_warn("control: cannot answer a call: %s", strerror(-written));
                client->closing = true;
        }
        /* By way of the ring, so that an answer from inside the call does not nest. */
        if (!client->output_op.pending)
                ring_poll(client->control->ring, &client->output_op, client->fd, POLLOUT, false);
}

void control_on_gone(ControlCall *call, void (*gone)(void *data), void *data)
{
        call->gone = gone;
        call->gone_data = data;
}

void control_reply_fd(ControlCall *call, json_t *parameters, int fd)
{
        ControlClient *client = call->client;
        int r = 0;

        /* No call is taken up before the output is empty: the descriptor goes with its answer. */
        if (client && !call->varlink.oneway) {
                r = varlink_write_reply(&client->output, parameters, false);
                if (!r)
                        client->output_fd = TAKE_FD(fd);
        }
        close_p(&fd);
        call_end(call, r);
}

void control_reply(ControlCall *call, json_t *parameters)
{
        control_reply_fd(call, parameters, -1);
}

void control_reply_error(ControlCall *call, const char *error, json_t *parameters)
{
        int r = 0;

        if (call->client && !call->varlink.oneway)
                r = varlink_write_error(&call->client->output, error, parameters);
        call_end(call, r);
}

void control_reply_invalid(ControlCall *call, const char *parameter)
{
        reply_named(call, SERVICE ".InvalidParameter", "parameter", slice_from(parameter));
}

/* ---- the socket ---- */

static void find_group(Control *control)
{
        const struct group *group = getgrnam(GROUP);

        control->has_group = group;
        if (group)
                control->group = group->gr_gid;
}

/*
 * The kernel still listens for a while for a process that was killed: until its ring has let go of
 * the accept, or a child that it forked executes.
 */
static bool listener_lives(int fd)
{
        struct ucred peer = { 0 };
        socklen_t len = sizeof(peer);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
                return true;
        return kill(peer.pid, 0) == 0 || errno != ESRCH;
}

/* Removes a socket file that nobody serves. */
static int remove_stale(const struct sockaddr_un *address)
{
        _cleanup_(close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
                if (listener_lives(fd))
                        return -EADDRINUSE;
                (void)unlink(address->sun_path);
        } else if (errno == ECONNREFUSED) {
                (void)unlink(address->sun_path);
        }
        return 0;
}

static int control_listen(Control *control, const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(close_p) int fd = -1;
        int r;

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path) + 1);
        r = remove_stale(&address);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        control->path = strdup(path);
        if (!control->path) {
                (void)unlink(path);
                return -ENOMEM;
        }
        if (control->has_group && chown(path, (uid_t)-1, control->group) < 0)
                log_debug("control: the group " GROUP " gets no access: %s", strerror(errno));
        if (chmod(path, 0660) < 0 || listen(fd, 64) < 0)
                return -errno;
        control->fd = TAKE_FD(fd);
        ring_accept(control->ring, &control->accept_op, control->fd);
        return 0;
}

int control_open(const ControlOptions *options, Control **ret)
{
        _cleanup_(control_close_p) Control *control = calloc(1, sizeof(*control));
        int r;

        if (!control)
                return -ENOMEM;
        control->ring = options->ring;
        control->fd = -1;
        control->interfaces = options->interfaces;
        control->n_interfaces = options->n_interfaces;
        control->clients_max = options->clients_max ? options->clients_max : CLIENTS_MAX_DEFAULT;
        control->data = options->data;
        list_init(&control->clients);
        ring_op_init(&control->accept_op, control_accepted);
        ring_timer_init(&control->accept_timer, control_accept_again);
        find_group(control);
        if (options->path) {
                r = control_listen(control, options->path);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(control);
        return 0;
}

Control *control_close(Control *control)
{
        if (!control)
                return NULL;
        list_for_each_safe(link, &control->clients)
                client_free(list_entry(link, ControlClient, link));
        if (control->fd >= 0)
                close(control->fd);
        if (control->path)
                (void)unlink(control->path);
        free(control->path);
        free(control);
        return NULL;
}
