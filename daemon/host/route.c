/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/route.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef struct RouteMessage {
        struct nlmsghdr header;
        struct rtmsg route;
        char attributes[64];
} RouteMessage;

static void message_add(RouteMessage *message, unsigned short type, const void *data, size_t len)
{
        struct rtattr *attribute =
                (struct rtattr *)((char *)message + NLMSG_ALIGN(message->header.nlmsg_len));

        dd_assert(NLMSG_ALIGN(message->header.nlmsg_len) + RTA_SPACE(len) <= sizeof(*message));
        attribute->rta_type = type;
        attribute->rta_len = (unsigned short)RTA_LENGTH(len);
        memcpy(RTA_DATA(attribute), data, len);
        message->header.nlmsg_len =
                (unsigned)(NLMSG_ALIGN(message->header.nlmsg_len) + RTA_SPACE(len));
}

/* Sends the request and reads one answer into buffer; the answer's length or -errno. */
static int message_exchange(RouteMessage *message, void *buffer, size_t size)
{
        _cleanup_(close_p) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        const struct timeval patience = { .tv_sec = 2 };
        ssize_t n;

        if (fd < 0)
                return -errno;
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
                return -errno;
        if (send(fd, message, message->header.nlmsg_len, 0) < 0)
                return -errno;
        n = recv(fd, buffer, size, 0);
        if (n < 0)
                return -errno;
        return (int)n;
}

static int route_change(const uint8_t prefix[16], unsigned short type, unsigned short flags)
{
        RouteMessage message = {
                .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
                        .nlmsg_type = type,
                        .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags) },
                .route = { .rtm_family = AF_INET6,
                        .rtm_dst_len = 64,
                        .rtm_table = RT_TABLE_LOCAL,
                        .rtm_protocol = RTPROT_STATIC,
                        .rtm_scope = RT_SCOPE_HOST,
                        .rtm_type = RTN_LOCAL },
        };
        unsigned device = if_nametoindex("lo");
        struct {
                struct nlmsghdr header;
                struct nlmsgerr error;
                char rest[512];
        } answer = { 0 };
        int r;

        if (device == 0)
                return -ENODEV;
        message_add(&message, RTA_DST, prefix, 16);
        message_add(&message, RTA_OIF, &device, sizeof(device));
        r = message_exchange(&message, &answer, sizeof(answer));
        if (r < 0)
                return r;
        if ((size_t)r < sizeof(answer.header) + sizeof(answer.error) ||
                answer.header.nlmsg_type != NLMSG_ERROR)
                return -EPROTO;
        return answer.error.error;
}

int route_add(const uint8_t prefix[16])
{
        return route_change(prefix, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
}

int route_remove(const uint8_t prefix[16])
{
        return route_change(prefix, RTM_DELROUTE, 0);
}

int route_find(const uint8_t prefix[16], bool *ret)
{
        RouteMessage message = {
                .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
                        .nlmsg_type = RTM_GETROUTE,
                        .nlmsg_flags = NLM_F_REQUEST },
                .route = { .rtm_family = AF_INET6, .rtm_dst_len = 128 },
        };
        struct {
                struct nlmsghdr header;
                struct rtmsg route;
                char rest[1024];
        } answer = { 0 };
        uint8_t address[16];
        int r;

        /* An address that nobody assigns by hand: only the route makes it local. */
        memcpy(address, prefix, 8);
        memcpy(address + 8, "\x5d\x0d\xab\x1e\xd0\x00\x00\x01", 8);
        message_add(&message, RTA_DST, address, sizeof(address));
        r = message_exchange(&message, &answer, sizeof(answer));
        if (r < 0)
                return r;
        *ret = (size_t)r >= sizeof(answer.header) + sizeof(answer.route) &&
               answer.header.nlmsg_type == RTM_NEWROUTE && answer.route.rtm_type == RTN_LOCAL;
        return 0;
}
