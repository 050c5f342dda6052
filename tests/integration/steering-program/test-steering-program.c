/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The steering program in the kernel that runs here: loaded, attached to real groups of sockets,
 * judged by where real connections arrive. Without the privileges or the kernel support each test
 * is skipped with the reason. Runs in a network namespace of its own, so that the route of the
 * object prefix and all ports are its own.
 */

#include "daemon/core/log.h"
#include "daemon/host/listener.h"
#include "daemon/host/steer.h"
#include "lib/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SLOTS_MAX_HERE 4u
#define PREFIX "fd5d:ab1e:1:2::/64"

static char skip_reason[300];

/* Listeners on a drawn port, steered; n slots share the shards out as the daemon does. */
typedef struct Fixture {
        Listener *listener;
        Steer *steer;
        unsigned n;
} Fixture;

static void fill_shards(uint16_t *slots, unsigned n)
{
        for (unsigned shard = 0; shard < STEER_SHARDS; shard++)
                slots[shard] = (uint16_t)(shard * n / STEER_SHARDS);
}

static void fixture_steer(Fixture *fixture)
{
        SteerOptions options = {
                .n_slots = fixture->n,
                .n_apps = 1,
                .prefix = fixture->listener->ipv6 ? fixture->listener->prefix : NULL,
        };
        bool live[SLOTS_MAX_HERE] = { true, true, true, true };
        uint16_t slots[STEER_SHARDS];

        assert_int_equal(steer_new(&options, &fixture->steer), 0);
        if (!steer_is_active(fixture->steer))
                fail_msg("%s", steer_get_reason(fixture->steer));
        fill_shards(slots, fixture->n);
        steer_set_shards(fixture->steer, slots);
        steer_set_live(fixture->steer, live, fixture->n);
        for (size_t i = 0; i < fixture->listener->n_groups; i++) {
                ListenerGroup *group = &fixture->listener->groups[i];

                assert_int_equal(steer_attach(fixture->steer, group->fds, group->n_fds,
                                         group->kind == LISTENER_ADDRESS),
                        0);
        }
}

static void fixture_open(Fixture *fixture, const char *listen, unsigned n)
{
        const char *const listens[] = { listen };
        ListenerOptions options = {
                .listen = listens,
                .n_listen = 1,
                .n_slots = n,
                .object_addresses = true,
                .object_prefix = PREFIX,
        };
        ListenerError error = { 0 };
        int r;

        *fixture = (Fixture){ .n = n };
        r = listener_open(&options, &fixture->listener, &error);
        if (r != 0)
                fail_msg("%s", error.message);
        fixture_steer(fixture);
}

static void fixture_close(Fixture *fixture)
{
        steer_free(fixture->steer);
        listener_close(fixture->listener);
}

/* The slot on whose socket the connection that was just made waits; -1: on none. */
static int accept_somewhere(const Fixture *fixture)
{
        for (unsigned tries = 0; tries < 200; tries++) {
                for (size_t i = 0; i < fixture->listener->n_groups; i++)
                        for (unsigned slot = 0; slot < fixture->n; slot++) {
                                int fd = accept4(fixture->listener->groups[i].fds[slot], NULL, NULL,
                                        SOCK_CLOEXEC);

                                if (fd >= 0) {
                                        close(fd);
                                        return (int)slot;
                                }
                        }
                usleep(1000);
        }
        return -1;
}

/* Connects and says which slot got it, or minus the errno of the connection. */
static int arrival(const Fixture *fixture, const struct sockaddr *address, socklen_t len)
{
        _cleanup_(close_p) int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const struct linger reset = { .l_onoff = 1 };

        assert_true(fd >= 0);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        if (connect(fd, address, len) < 0)
                return -errno;
        return accept_somewhere(fixture);
}

static int arrival_ipv4(const Fixture *fixture, uint32_t address)
{
        struct sockaddr_in to = {
                .sin_family = AF_INET,
                .sin_port = htons(fixture->listener->port),
                .sin_addr = { htonl(address) },
        };

        return arrival(fixture, (struct sockaddr *)&to, sizeof(to));
}

static int arrival_ipv6(const Fixture *fixture, const uint8_t network[8], unsigned shard)
{
        struct sockaddr_in6 to = {
                .sin6_family = AF_INET6,
                .sin6_port = htons(fixture->listener->port),
        };
        uint8_t *bytes = to.sin6_addr.s6_addr;

        memcpy(bytes, network, 8);
        bytes[8] = (uint8_t)(shard >> 4);
        bytes[9] = (uint8_t)((shard & 15) << 4 | 0xb); /* the id goes on: no matter how */
        bytes[12] = (uint8_t)(shard * 7);
        bytes[15] = 1;
        return arrival(fixture, (struct sockaddr *)&to, sizeof(to));
}

static void expect_owners(unsigned n)
{
        SteerCounters counters;
        uint64_t address, fallback, sum = 0;
        unsigned sent = 0;
        Fixture fixture;

        fixture_open(&fixture, "127.0.0.1:0", n);
        for (unsigned shard = 0; shard < STEER_SHARDS; shard += 37, sent++)
                assert_int_equal(
                        arrival_ipv4(&fixture, steer_ipv4_of(0, shard)), shard * n / STEER_SHARDS);
        for (unsigned shard = 5; shard < STEER_SHARDS; shard += 41, sent++)
                assert_int_equal(arrival_ipv6(&fixture, fixture.listener->prefix, shard),
                        shard * n / STEER_SHARDS);
        steer_get_counters(fixture.steer, &counters);
        /* On a slow machine a SYN is sent again, and chosen for again. */
        assert_in_range(counters.address, sent, sent + sent / 10);
        assert_int_equal(counters.fallback + counters.refused + counters.lost, 0);
        for (unsigned slot = 0; slot < n; slot++) {
                steer_get_slot_counters(fixture.steer, slot, &address, &fallback);
                assert_in_range(address, sent / n - sent / 10, sent / n + sent / 10);
                assert_int_equal(fallback, 0);
                sum += address;
        }
        assert_int_equal(sum, sent);
        fixture_close(&fixture);
}

static void with_two_sockets_each_object_address_reaches_its_owner(void **state)
{
        if (skip_reason[0])
                skip();
        expect_owners(2);
}

static void with_four_sockets_each_object_address_reaches_its_owner(void **state)
{
        if (skip_reason[0])
                skip();
        expect_owners(4);
}

static void other_connections_are_spread_over_the_live_slots(void **state)
{
        bool live[4] = { true, false, true, false };
        SteerCounters counters;
        unsigned counts[4] = { 0 };
        Fixture fixture;

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "127.0.0.1:0", 4);
        for (unsigned i = 0; i < 200; i++)
                counts[arrival_ipv4(&fixture, INADDR_LOOPBACK)]++;
        for (unsigned slot = 0; slot < 4; slot++)
                assert_in_range(counts[slot], 20, 90);
        steer_set_live(fixture.steer, live, 4);
        memset(counts, 0, sizeof(counts));
        for (unsigned i = 0; i < 100; i++)
                counts[arrival_ipv4(&fixture, INADDR_LOOPBACK)]++;
        assert_int_equal(counts[1] + counts[3], 0);
        assert_in_range(counts[0], 25, 75);
        /* An object's address waits for its owner, live or not. */
        assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, 1024)), 1);
        steer_get_counters(fixture.steer, &counters);
        assert_int_equal(counters.fallback, 300);
        assert_int_equal(counters.address, 1);
        fixture_close(&fixture);
}

static void when_no_slot_is_live_all_of_them_are_chosen_from(void **state)
{
        bool live[2] = { false, false };
        unsigned counts[2] = { 0 };
        Fixture fixture;

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "127.0.0.1:0", 2);
        steer_set_live(fixture.steer, live, 2);
        for (unsigned i = 0; i < 40; i++)
                counts[arrival_ipv4(&fixture, INADDR_LOOPBACK)]++;
        assert_true(counts[0] > 5 && counts[1] > 5);
        fixture_close(&fixture);
}

static void the_address_group_refuses_what_is_no_objects_address(void **state)
{
        SteerCounters counters;
        Fixture fixture;
        struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "127.0.0.1:0", 2);
        assert_int_equal(arrival_ipv4(&fixture, 0x7f000002), -ECONNREFUSED);
        assert_int_equal(arrival_ipv4(&fixture, 0x7f410001), -ECONNREFUSED);
        to.sin6_port = htons(fixture.listener->port);
        assert_int_equal(arrival(&fixture, (struct sockaddr *)&to, sizeof(to)), -ECONNREFUSED);
        steer_get_counters(fixture.steer, &counters);
        assert_int_equal(counters.refused, 3);
        fixture_close(&fixture);
}

static void a_wildcard_group_steers_object_addresses_and_serves_others(void **state)
{
        Fixture fixture;

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "0.0.0.0:0", 4);
        for (unsigned shard = 0; shard < STEER_SHARDS; shard += 301)
                assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, shard)), shard / 1024);
        for (unsigned i = 0; i < 10; i++)
                assert_in_range(arrival_ipv4(&fixture, INADDR_LOOPBACK), 0, 3);
        fixture_close(&fixture);
}

static void a_shard_that_moves_is_followed(void **state)
{
        uint16_t slots[STEER_SHARDS];
        Fixture fixture;

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "127.0.0.1:0", 2);
        assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, 7)), 0);
        fill_shards(slots, 2);
        slots[7] = 1;
        steer_set_shards(fixture.steer, slots);
        assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, 7)), 1);
        assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, 8)), 0);
        fixture_close(&fixture);
}

/* As after a restart of the service: the sockets live on, with the old program attached. */
static void sockets_that_carry_an_old_program_are_steered_by_the_new_one(void **state)
{
        SteerCounters counters;
        Fixture fixture;
        Steer *old;

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "127.0.0.1:0", 2);
        assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, 4095)), 1);
        old = TAKE_PTR(fixture.steer);
        steer_free(old);
        fixture_steer(&fixture);
        for (unsigned shard = 0; shard < STEER_SHARDS; shard += 512)
                assert_int_equal(arrival_ipv4(&fixture, steer_ipv4_of(0, shard)), shard / 2048);
        steer_get_counters(fixture.steer, &counters);
        assert_int_equal(counters.address, 8);
        fixture_close(&fixture);
}

static void the_route_of_the_prefix_is_gone_after_closing(void **state)
{
        _cleanup_(buf_done) Buf routes = BUF_INIT(1u << 20);
        Fixture fixture;

        if (skip_reason[0])
                skip();
        fixture_open(&fixture, "127.0.0.1:0", 2);
        assert_true(fixture.listener->route_added);
        assert_int_equal(file_read("/proc/self/net/ipv6_route", 1u << 20, &routes), 0);
        assert_non_null(strstr(buf_data(&routes), "fd5dab1e00010002"));
        fixture_close(&fixture);
        buf_clear(&routes);
        assert_int_equal(file_read("/proc/self/net/ipv6_route", 1u << 20, &routes), 0);
        assert_null(strstr(buf_data(&routes), "fd5dab1e00010002"));
}

/* Keeps the given capabilities alone; 0 or -errno. */
static int keep_capabilities(uint64_t keep)
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct sets[2] = {
                { .effective = (uint32_t)keep, .permitted = (uint32_t)keep },
                { .effective = (uint32_t)(keep >> 32), .permitted = (uint32_t)(keep >> 32) },
        };

        return syscall(SYS_capset, &header, sets) < 0 ? -errno : 0;
}

/* In a child with these capabilities: whether the program loads. */
static bool loads_with(uint64_t capabilities)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                SteerOptions options = { .n_slots = 2, .n_apps = 1 };
                Steer *steer = NULL;

                if (keep_capabilities(capabilities) < 0 || steer_new(&options, &steer) < 0)
                        _exit(2);
                _exit(steer_is_active(steer) && !steer_get_reason(steer)[0] ? 0
                        : strstr(steer_get_reason(steer), "CAP_BPF")        ? 1
                                                                            : 2);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        return WEXITSTATUS(status) == 0;
}

static void it_loads_with_cap_bpf_and_cap_net_admin_alone(void **state)
{
        if (skip_reason[0])
                skip();
        assert_true(loads_with(UINT64_C(1) << CAP_BPF | UINT64_C(1) << CAP_NET_ADMIN));
}

static void without_capabilities_it_says_which_are_missing(void **state)
{
        if (skip_reason[0])
                skip();
        assert_false(loads_with(0));
}

/* A namespace of our own with loopback up; false: not permitted. */
static bool enter_namespace(void)
{
        struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
        _cleanup_(close_p) int fd = -1;

        if (unshare(CLONE_NEWNET) < 0)
                return false;
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

static void find_skip_reason(void)
{
        SteerOptions options = { .n_slots = 2, .n_apps = 1 };
        Steer *steer = NULL;

        if (!enter_namespace())
                snprintf(skip_reason, sizeof(skip_reason),
                        "no network namespace of our own: not root");
        else if (steer_new(&options, &steer) == 0 && !steer_is_active(steer))
                snprintf(skip_reason, sizeof(skip_reason), "%s", steer_get_reason(steer));
        steer_free(steer);
        if (skip_reason[0])
                printf("# skipped: %s\n", skip_reason);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(with_two_sockets_each_object_address_reaches_its_owner),
                cmocka_unit_test(with_four_sockets_each_object_address_reaches_its_owner),
                cmocka_unit_test(other_connections_are_spread_over_the_live_slots),
                cmocka_unit_test(when_no_slot_is_live_all_of_them_are_chosen_from),
                cmocka_unit_test(the_address_group_refuses_what_is_no_objects_address),
                cmocka_unit_test(a_wildcard_group_steers_object_addresses_and_serves_others),
                cmocka_unit_test(a_shard_that_moves_is_followed),
                cmocka_unit_test(sockets_that_carry_an_old_program_are_steered_by_the_new_one),
                cmocka_unit_test(the_route_of_the_prefix_is_gone_after_closing),
                cmocka_unit_test(it_loads_with_cap_bpf_and_cap_net_admin_alone),
                cmocka_unit_test(without_capabilities_it_says_which_are_missing),
        };

        log_open("test", LOG_DEBUG_);
        find_skip_reason();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
