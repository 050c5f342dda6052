/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/core/log.h"
#include "daemon/host/journals.h"
#include "daemon/host/supervisor-private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SECRET_BYTES 20u /* of the kernel's randomness, in each secret that we make */
#define BACKLOG 1024

/* Fills the error; its value is the code. */
#define invalid(_error, ...) (set_fault(_error, __VA_ARGS__), SUPERVISOR_E_INVALID)

_printf_(2, 3) static void set_fault(SupervisorError *error, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        vsnprintf(error->message, sizeof(error->message), format, args);
        va_end(args);
}

Slot *supervisor_get_slot(Supervisor *supervisor, unsigned number)
{
        for (size_t i = 0; i < supervisor->n_apps; i++) {
                if (number < supervisor->apps[i].n_slots)
                        return &supervisor->apps[i].slots[number];
                number -= supervisor->apps[i].n_slots;
        }
        dd_unreachable();
}

/* ---- settings ---- */

static unsigned cores(void)
{
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof(set), &set) < 0)
                return 1;
        return (unsigned)MAX(CPU_COUNT(&set), 1);
}

static unsigned slots_of(const Config *config, const ConfigApp *app)
{
        unsigned n = app->workers ? app->workers : config->workers;

        return n ? n : MIN(cores(), SLOTS_MAX);
}

/* The name becomes part of file names. */
static bool app_name_is_valid(const char *name)
{
        if (!name[0] || strlen(name) > 63 || name[0] == '.')
                return false;
        for (; *name; name++)
                if (!isalnum((unsigned char)*name) && !strchr("-_.", *name))
                        return false;
        return true;
}

static int check_settings(const Config *config, SupervisorError *error)
{
        struct sockaddr_storage address;
        uint8_t prefix[16];
        socklen_t len;

        if (config->n_apps == 0)
                return 0; /* a service that has just been installed: it says so, and waits */
        if (config->n_apps > 1)
                return invalid(error,
                        "the settings have %zu apps ([app %s], [app %s], ...): one service runs "
                        "one app; start one durabled for each, with its own state, runtime and "
                        "listen",
                        config->n_apps, config->apps[0].name, config->apps[1].name);
        if (!app_name_is_valid(config->apps[0].name))
                return invalid(error,
                        "[app %s]: a name is 1 to 63 letters, digits, '-', '_' and '.', not first "
                        "a dot",
                        config->apps[0].name);
        if (!config->apps[0].directory)
                return invalid(error, "[app %s] has no directory=", config->apps[0].name);
        if (slots_of(config, &config->apps[0]) > SLOTS_MAX)
                return invalid(error, "workers=%u: at most %u", slots_of(config, &config->apps[0]),
                        SLOTS_MAX);
        if (config->n_listen == 0)
                return invalid(error, "the settings have no listen=ADDRESS:PORT");
        if (config->n_listen > BOOT_FDS_MAX - SLOTS_MAX - 8)
                return invalid(
                        error, "listen=: at most %u addresses", BOOT_FDS_MAX - SLOTS_MAX - 8);
        for (size_t i = 0; i < config->n_listen; i++)
                if (!listener_parse_address(config->listen[i], &address, &len))
                        return invalid(error,
                                "listen=%s: expected ADDRESS:PORT, as 127.0.0.1:8787 or "
                                "[::1]:8787",
                                config->listen[i]);
        if (config->object_prefix && !listener_parse_prefix(config->object_prefix, prefix))
                return invalid(error,
                        "object_prefix=%s: expected an IPv6 network of 64 bits, as fd00:1::/64",
                        config->object_prefix);
        return 0;
}

int supervisor_check(const Config *config, SupervisorError *error)
{
        HostAppError app_error = { 0 };
        int r = check_settings(config, error);

        for (size_t i = 0; i < config->n_apps && r == 0; i++) {
                _cleanup_(host_app_free_p) HostApp *app = NULL;

                r = host_app_load(&config->apps[i], NULL, &app, &app_error);
                if (r > 0)
                        r = invalid(error, "%s", app_error.message);
        }
        return r;
}

/* ---- folders, locks, secrets ---- */

static int open_folder(
        const char *key, const char *path, mode_t mode, char **ret, SupervisorError *error)
{
        int r = dir_create(path, mode);

        if (r == 0)
                *ret = realpath(path, NULL);
        if (r < 0 || !*ret)
                return invalid(error, "%s=%s: cannot make the folder: %s", key, path,
                        strerror(r < 0 ? -r : errno));
        return 0;
}

static int lock_folder(const char *key, const char *folder, int *ret, SupervisorError *error)
{
        _cleanup_(free_p) char *path = path_join(folder, "lock");
        _cleanup_(close_p) int fd = -1;
        char pid[24] = "?";

        if (!path)
                return -ENOMEM;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return invalid(error, "%s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                ssize_t n = errno == EWOULDBLOCK ? pread(fd, pid, sizeof(pid) - 1, 0) : -1;

                if (n < 0)
                        return invalid(error, "%s: %s", path, strerror(errno));
                pid[n] = 0;
                pid[strcspn(pid, "\n")] = 0;
                return invalid(error,
                        "%s=%s is used by another durabled (process %s): stop it or set another "
                        "folder",
                        key, folder, pid);
        }
        snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, strlen(pid), 0) < 0)
                return invalid(error, "%s: %s", path, strerror(errno));
        *ret = TAKE_FD(fd);
        return 0;
}

/* The path of a secret that systemd gives the service, or NULL. */
static char *find_credential(const char *name)
{
        const char *folder = getenv("CREDENTIALS_DIRECTORY");
        char *path = folder && *folder ? path_join(folder, name) : NULL;

        if (path && access(path, F_OK) != 0)
                free(TAKE_PTR(path));
        return path;
}

/* Reads a secret, or makes it at the first start. */
static int load_secret(const char *folder, const char *name, char **ret, SupervisorError *error)
{
        _cleanup_(free_p) char *credential = find_credential(name);
        _cleanup_(free_p) char *path = credential ? TAKE_PTR(credential) : path_join(folder, name);
        _cleanup_(buf_done) Buf text = BUF_INIT(0);
        char secret[2 * SECRET_BYTES + 1];
        Slice line;
        int r;

        if (!path)
                return -ENOMEM;
        r = file_read(path, 4096, &text);
        if (r == -ENOENT) {
                random_hex(secret, SECRET_BYTES);
                r = buf_append_string(&text, secret);
                if (r == 0)
                        r = buf_append_char(&text, '\n');
                if (r == 0)
                        r = file_write_atomic(path, buf_slice(&text), 0600);
        }
        if (r < 0)
                return invalid(error, "%s: %s", path, strerror(-r));
        line = buf_slice(&text);
        line = slice_trim(slice_cut(&line, '\n'));
        if (line.len < 8)
                return invalid(error,
                        "%s: shorter than 8 characters: remove the file and a new "
                        "secret is made",
                        path);
        *ret = slice_dup(line);
        return *ret ? 0 : -ENOMEM;
}

/* Made at the first start alone: an empty folder in the place of one that is gone, as a mount that
 * is missing, would look as if no object had ever been. */
static int open_objects(Supervisor *supervisor, SupervisorError *error)
{
        _cleanup_(free_p) char *catalog = path_join(supervisor->state, "catalog.sqlite");
        int r;

        supervisor->objects = path_join(supervisor->state, "objects");
        if (!supervisor->objects || !catalog)
                return -ENOMEM;
        if (access(catalog, F_OK) == 0 && access(supervisor->objects, F_OK) != 0)
                return invalid(error,
                        "the folder %s is gone, but this state has been in use: put it back, or "
                        "make it to begin without any object",
                        supervisor->objects);
        r = dir_create(supervisor->objects, 0700);
        return r < 0 ? invalid(error, "%s: %s", supervisor->objects, strerror(-r)) : 0;
}

static int open_folders(Supervisor *supervisor, SupervisorError *error)
{
        const Config *config = supervisor->config;
        int r;

        r = open_folder("state", config->state, 0700, &supervisor->state, error);
        if (r == 0)
                r = open_folder("runtime", config->runtime, 0755, &supervisor->runtime, error);
        if (r == 0)
                r = lock_folder("state", supervisor->state, &supervisor->state_lock, error);
        if (r == 0 && strcmp(supervisor->state, supervisor->runtime) != 0)
                r = lock_folder("runtime", supervisor->runtime, &supervisor->runtime_lock, error);
        if (r != 0)
                return r;
        r = open_objects(supervisor, error);
        if (r == 0)
                r = load_secret(supervisor->state, "admin-token", &supervisor->admin_token, error);
        if (r == 0)
                r = load_secret(
                        supervisor->state, "admin-password", &supervisor->admin_password, error);
        return r;
}

static int open_catalog(Supervisor *supervisor, SupervisorError *error)
{
        _cleanup_(free_p) char *path = path_join(supervisor->state, "catalog.sqlite");
        HostAppError app_error = { 0 };
        int r;

        if (!path)
                return -ENOMEM;
        r = catalog_open(path, &supervisor->catalog);
        if (r != 0)
                return invalid(error, "cannot open the catalog %s: %s", path,
                        r < 0 ? strerror(-r) : "it is not a catalog of this version");
        r = supervisor_load_apps(supervisor, supervisor->catalog, &app_error);
        if (r > 0)
                return invalid(error, "%s", app_error.message);
        return r;
}

/* Where a part may be that the settings do not name: relative to the folder of this program. */
static const char *const worker_places[] = { "durabled-worker",
        "../libexec/durabled/durabled-worker", "../lib/durabled/durabled-worker", NULL };
static const char *const modules_places[] = { "../share/durabled/modules",
        DURABLED_SOURCE "/daemon/runtime/python/modules", NULL };

/* *ret: the first that is there, else the first of all, for the error message. */
static int find_part(const char *given, const char *const *places, int mode, char **ret)
{
        char self[PATH_MAX], *slash;
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        _cleanup_(free_p) char *first = NULL;

        if (n < 0)
                return -errno;
        self[n] = 0;
        slash = strrchr(self, '/');
        if (slash)
                *slash = 0;
        if (given) {
                *ret = strdup(given);
                return *ret ? 0 : -ENOMEM;
        }
        for (size_t i = 0; places[i]; i++) {
                _cleanup_(free_p) char *path =
                        places[i][0] == '/' ? strdup(places[i]) : path_join(self, places[i]);

                if (!path)
                        return -ENOMEM;
                if (access(path, mode) == 0) {
                        *ret = TAKE_PTR(path);
                        return 0;
                }
                if (!first)
                        first = TAKE_PTR(path);
        }
        *ret = TAKE_PTR(first);
        return 0;
}

static int find_parts(Supervisor *supervisor, SupervisorError *error)
{
        const Config *config = supervisor->config;
        int r;

        r = find_part(config->worker_path, worker_places, X_OK, &supervisor->worker_path);
        if (r == 0)
                r = find_part(
                        config->host_modules, modules_places, R_OK, &supervisor->host_modules);
        if (r < 0)
                return r;
        dd_assert(supervisor->worker_path && supervisor->host_modules);
        if (access(supervisor->worker_path, X_OK) < 0)
                return invalid(error, "the worker %s: %s. Set worker_path= where it is elsewhere",
                        supervisor->worker_path, strerror(errno));
        if (access(supervisor->host_modules, R_OK | X_OK) < 0)
                return invalid(error,
                        "the Python modules %s: %s. Set host_modules= where they are elsewhere",
                        supervisor->host_modules, strerror(errno));
        return 0;
}

/* ---- slots ---- */

static int open_internal(Slot *slot, SupervisorError *error)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char name[96];

        snprintf(name, sizeof(name), "%s-%u.sock", slot->app->config->name, slot->index);
        slot->internal_path = path_join(slot->supervisor->runtime, name);
        if (!slot->internal_path)
                return -ENOMEM;
        if (strlen(slot->internal_path) >= sizeof(address.sun_path))
                return invalid(error,
                        "runtime=%s: the path is too long for sockets (%s must be shorter than "
                        "%zu bytes)",
                        slot->supervisor->runtime, slot->internal_path, sizeof(address.sun_path));
        memcpy(address.sun_path, slot->internal_path, strlen(slot->internal_path) + 1);
        (void)unlink(slot->internal_path); /* the lock says that nobody serves it */
        slot->internal_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (slot->internal_fd < 0 ||
                bind(slot->internal_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
                chmod(slot->internal_path, 0600) < 0 || listen(slot->internal_fd, BACKLOG) < 0)
                return invalid(error, "%s: %s", slot->internal_path, strerror(errno));
        return 0;
}

static int open_hand_off(Slot *slot)
{
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return -errno;
        slot->hand_off_receive = pair[0];
        slot->hand_off_send = pair[1];
        return 0;
}

static int open_slots(Supervisor *supervisor, SupervisorError *error)
{
        for (unsigned i = 0; i < supervisor->n_slots; i++) {
                Slot *slot = supervisor_get_slot(supervisor, i);
                int r = open_internal(slot, error);

                if (r == 0)
                        r = open_hand_off(slot);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* A slot must find the commits of its objects in their files or in its own journal. */
static int prepare_journals(Supervisor *supervisor, SupervisorError *error)
{
        for (size_t i = 0; i < supervisor->n_apps; i++) {
                JournalsOptions options = {
                        .state = supervisor->state,
                        .objects = supervisor->objects,
                        .worker_path = supervisor->worker_path,
                        .app = supervisor->apps[i].config->name,
                        .n_slots = supervisor->apps[i].n_slots,
                };
                int r = journals_prepare(&options);

                if (r > 0)
                        return invalid(error,
                                "app '%s': a journal of its workers cannot be redone; 'durabled "
                                "--recover' explains what can be done",
                                options.app);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int new_apps(Supervisor *supervisor)
{
        const Config *config = supervisor->config;

        supervisor->apps = calloc(MAX(config->n_apps, 1u), sizeof(*supervisor->apps));
        if (!supervisor->apps)
                return -ENOMEM;
        for (size_t i = 0; i < config->n_apps; i++) {
                SupervisorApp *app = &supervisor->apps[i];
                unsigned n = slots_of(config, &config->apps[i]);

                app->config = &config->apps[i];
                app->index = (unsigned)i;
                app->slots = calloc(n, sizeof(*app->slots));
                if (!app->slots)
                        return -ENOMEM;
                app->n_slots = n;
                supervisor->n_apps = i + 1;
                supervisor->n_slots += n;
                for (unsigned j = 0; j < n; j++)
                        app->slots[j] = (Slot){
                                .supervisor = supervisor,
                                .app = app,
                                .index = j,
                                .pidfd = -1,
                                .boot_fd = -1,
                                .internal_fd = -1,
                                .hand_off_receive = -1,
                                .hand_off_send = -1,
                        };
        }
        return 0;
}

static void free_apps(Supervisor *supervisor)
{
        for (unsigned i = 0; i < supervisor->n_slots; i++) {
                Slot *slot = supervisor_get_slot(supervisor, i);

                free(slot->error);
                close_p(&slot->pidfd);
                close_p(&slot->boot_fd);
                close_p(&slot->internal_fd);
                close_p(&slot->hand_off_receive);
                close_p(&slot->hand_off_send);
                if (slot->internal_path)
                        (void)unlink(slot->internal_path);
                free(slot->internal_path);
        }
        for (size_t i = 0; i < supervisor->n_apps; i++) {
                free(supervisor->apps[i].slots);
                host_app_free(supervisor->apps[i].host);
        }
        free(supervisor->apps);
}

/* ---- listeners and steering ---- */

static int open_listeners(Supervisor *supervisor, SupervisorError *error)
{
        const Config *config = supervisor->config;
        ListenerError listener_error = { 0 };
        ListenerOptions options = {
                .listen = (const char *const *)config->listen,
                .n_listen = config->n_listen,
                .n_slots = supervisor->n_slots,
                .object_addresses = config->object_addresses,
                .object_prefix = config->object_prefix,
        };
        int r = listener_open(&options, &supervisor->listener, &listener_error);

        if (r > 0)
                return invalid(error, "%s", listener_error.message);
        if (r < 0)
                return r;
        for (size_t i = 0; i < supervisor->listener->n_groups; i++)
                if (supervisor->listener->groups[i].kind == LISTENER_PUBLIC)
                        log_info("listening on http://%s/", supervisor->listener->groups[i].name);
        if (supervisor->listener->note[0])
                log_warn("%s", supervisor->listener->note);
        return 0;
}

static void fill_shards(const Supervisor *supervisor, uint16_t *slots)
{
        unsigned first = 0;

        for (size_t i = 0; i < supervisor->n_apps; i++) {
                unsigned n = supervisor->apps[i].n_slots;

                for (unsigned shard = 0; shard < STEER_SHARDS; shard++)
                        slots[i * STEER_SHARDS + shard] =
                                (uint16_t)(first + slot_of_shard(shard, n));
                first += n;
        }
}

static int open_steering(Supervisor *supervisor)
{
        const Config *config = supervisor->config;
        const Listener *listener = supervisor->listener;
        _cleanup_(free_p) uint16_t *slots = NULL;
        SteerOptions options = {
                .off = config->steering == STEERING_OFF,
                .n_slots = supervisor->n_slots,
                .n_apps = (unsigned)supervisor->n_apps,
                .prefix = listener->ipv6 ? listener->prefix : NULL,
        };
        int r = steer_new(&options, &supervisor->steer);

        if (r < 0)
                return r;
        if (!steer_is_active(supervisor->steer)) {
                log_note("connections are not steered, they are handed off: %s",
                        steer_get_reason(supervisor->steer));
                return 0;
        }
        if (config->steering == STEERING_LATE)
                log_note("steering=late is not in this version: connections are steered by object "
                         "addresses");
        slots = calloc(supervisor->n_apps * STEER_SHARDS, sizeof(*slots));
        if (!slots)
                return -ENOMEM;
        fill_shards(supervisor, slots);
        steer_set_shards(supervisor->steer, slots);
        for (size_t i = 0; i < listener->n_groups; i++) {
                const ListenerGroup *group = &listener->groups[i];

                r = steer_attach(supervisor->steer, group->fds, group->n_fds,
                        group->kind == LISTENER_ADDRESS);
                if (r < 0)
                        log_warn("connections to %s are not steered, they are handed off: %s",
                                group->name, strerror(-r));
        }
        return 0;
}

/* ---- running ---- */

static void update_live(Supervisor *supervisor)
{
        bool live[STEER_SLOTS_MAX] = { false };

        for (unsigned i = 0; i < supervisor->n_slots; i++)
                live[i] = supervisor_get_slot(supervisor, i)->life.state == SLOT_READY;
        steer_set_live(supervisor->steer, live, supervisor->n_slots);
}

/* Whether all slots are empty; those that wait for something wait no longer. */
static bool all_stopped(Supervisor *supervisor)
{
        bool all = true;

        for (unsigned i = 0; i < supervisor->n_slots; i++) {
                Slot *slot = supervisor_get_slot(supervisor, i);

                if (slot->life.state == SLOT_BACKOFF || slot->life.state == SLOT_FAILED) {
                        ring_timer_disarm(supervisor->ring, &slot->timer);
                        slot_set_state(&slot->life, SLOT_STOPPED, ring_now(supervisor->ring));
                }
                all = all && slot->life.state == SLOT_STOPPED;
        }
        return all;
}

void supervisor_changed(Supervisor *supervisor)
{
        if (supervisor->steer)
                update_live(supervisor);
        reload_step(supervisor);
        announce_step(supervisor);
        if (supervisor->stopping && all_stopped(supervisor))
                ring_stop(supervisor->ring);
}

void supervisor_stop(Supervisor *supervisor)
{
        bool again = supervisor->stopping;

        supervisor->stopping = true;
        log_info(again ? "stopping at once" : "stopping: workers drain");
        for (unsigned i = 0; i < supervisor->n_slots; i++) {
                Slot *slot = supervisor_get_slot(supervisor, i);

                if (slot->life.state == SLOT_STARTING || slot->life.state == SLOT_READY)
                        slot_drain(slot);
                if (again)
                        slot_kill(slot);
        }
        supervisor_changed(supervisor);
}

static void supervisor_signal(RingOp *op, const RingResult *result)
{
        Supervisor *supervisor = CONTAINER_OF(op, Supervisor, signal_op);
        struct signalfd_siginfo info;

        while (read(supervisor->signal_fd, &info, sizeof(info)) == sizeof(info)) {
                if (info.ssi_signo == SIGHUP)
                        supervisor_reload(supervisor, NULL);
                else
                        supervisor_stop(supervisor);
        }
        ring_poll(supervisor->ring, &supervisor->signal_op, supervisor->signal_fd, POLLIN, false);
}

static int open_signals(Supervisor *supervisor)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        (void)signal(SIGPIPE, SIG_IGN);
        supervisor->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (supervisor->signal_fd < 0)
                return -errno;
        ring_op_init(&supervisor->signal_op, supervisor_signal);
        return 0;
}

/* What an app needs to be reached. */
static int open_serving(Supervisor *supervisor, SupervisorError *error)
{
        int r = open_listeners(supervisor, error);

        if (r == 0)
                r = open_steering(supervisor);
        return r == 0 ? open_slots(supervisor, error) : r;
}

/* Connections are many; the soft limit is for programs that use select(). */
static void raise_limits(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
}

static int open_ring(Supervisor *supervisor, SupervisorError *error)
{
        RingOptions options = { .entries = 64, .n_buffers = 4, .buffer_size = 4096 };
        int r = ring_new(&options, &supervisor->ring);

        if (r == -ENOSYS || r == -EPERM)
                return invalid(error,
                        "this system does not allow io_uring (%s): durabled needs it. Set the "
                        "sysctl kernel.io_uring_disabled=0, or allow io_uring in the container",
                        strerror(-r));
        return r;
}

int supervisor_new(const Config *config, Supervisor **ret, SupervisorError *error)
{
        _cleanup_(supervisor_free_p) Supervisor *supervisor = calloc(1, sizeof(*supervisor));
        int r;

        if (!supervisor)
                return -ENOMEM;
        supervisor->config = config;
        supervisor->state_lock = supervisor->runtime_lock = supervisor->signal_fd = -1;
        supervisor->generation = 1;
        list_init(&supervisor->reload_calls);
        list_init(&supervisor->queries);
        list_init(&supervisor->operations);
        raise_limits();
        r = check_settings(config, error);
        if (r == 0 && config->n_apps > 0)
                r = find_parts(supervisor, error);
        if (r == 0)
                r = new_apps(supervisor);
        if (r == 0)
                r = open_folders(supervisor, error);
        if (r == 0)
                r = open_catalog(supervisor, error);
        if (r == 0)
                r = prepare_journals(supervisor, error);
        if (r == 0)
                r = open_ring(supervisor, error);
        if (r == 0 && supervisor->n_apps > 0)
                r = open_serving(supervisor, error);
        else if (r == 0)
                log_note("no app is set up, nothing is served: add [app NAME] with "
                         "directory=FOLDER to the settings");
        if (r == 0)
                r = open_signals(supervisor);
        if (r != 0)
                return r;
        r = manager_open(supervisor);
        if (r < 0)
                return invalid(error, "%s/control: %s", supervisor->runtime, strerror(-r));
        *ret = TAKE_PTR(supervisor);
        return 0;
}

int supervisor_run(Supervisor *supervisor)
{
        supervisor->started = ring_now(supervisor->ring);
        announce_begin(supervisor);
        watch_begin(supervisor);
        ring_poll(supervisor->ring, &supervisor->signal_op, supervisor->signal_fd, POLLIN, false);
        for (unsigned i = 0; i < supervisor->n_slots; i++)
                slot_start(supervisor_get_slot(supervisor, i));
        supervisor_changed(supervisor);
        return ring_run(supervisor->ring);
}

Supervisor *supervisor_free(Supervisor *supervisor)
{
        if (!supervisor)
                return NULL;
        supervisor->stopping = true;
        if (supervisor->ring)
                query_end_all(supervisor);
        if (supervisor->ring)
                operate_end_all(supervisor);
        if (supervisor->ring)
                reload_step(supervisor);
        control_close(supervisor->control);
        if (supervisor->ring)
                ring_free(supervisor->ring);
        steer_free(supervisor->steer);
        listener_close(supervisor->listener);
        free_apps(supervisor);
        if (supervisor->catalog)
                catalog_close(supervisor->catalog);
        close_p(&supervisor->signal_fd);
        close_p(&supervisor->runtime_lock);
        close_p(&supervisor->state_lock);
        free(supervisor->state);
        free(supervisor->runtime);
        free(supervisor->objects);
        free(supervisor->worker_path);
        free(supervisor->host_modules);
        free(supervisor->admin_token);
        free(supervisor->admin_password);
        free(supervisor);
        return NULL;
}
