/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl dev: a private daemon for one project, in the foreground
 *
 *   PREPARE -> START -> WAIT (until every worker is ready) -> SERVE -> (a file changed) PREPARE,
 * reload
 */

#include "lib/base/file.h"
#include "tui/client.h"
#include "tui/command.h"
#include "tui/dev-http.h"
#include "tui/process.h"
#include "tui/project.h"
#include "tui/watch.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define READY_TIMEOUT_NS (60 * NSEC_PER_SEC)
#define QUIET_MS 200 /* a save is over when nothing changed for so long */
#define SOCKET_FOLDER_MAX 70u

typedef struct Dev {
        const char *directory, *listen, *steering;
        unsigned workers;
        bool create_admin, no_reload;
        char *state, *runtime, *control, *config_path;
        bool own_runtime; /* a temporary folder, removed at the end */
        Project *project;
        Watch *watch;
        char *skip[3];
        int signal_fd;
        bool interrupted;
        pid_t daemon;
        int daemon_status;
} Dev;

static bool is_steering(const char *how)
{
        return strcmp(how, "auto") == 0 || strcmp(how, "late") == 0 ||
               strcmp(how, "address") == 0 || strcmp(how, "off") == 0;
}

/* A first look at the port; the daemon judges the address. */
static bool is_endpoint(const char *text)
{
        const char *colon = strrchr(text, ':');
        uint64_t port;

        return colon && colon > text && slice_to_u64(slice_from(colon + 1), &port) && port > 0 &&
               port <= UINT16_MAX;
}

static int dev_parse(Dev *dev, int argc, char **argv)
{
        static const struct option options[] = {
                { "listen", required_argument, NULL, 'l' },
                { "state", required_argument, NULL, 's' },
                { "workers", required_argument, NULL, 'w' },
                { "steering", required_argument, NULL, 't' },
                { "create-admin", no_argument, NULL, 'a' },
                { "no-reload", no_argument, NULL, 'n' },
                { 0 },
        };
        uint64_t number;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                switch (c) {
                case 'l':
                        if (!is_endpoint(optarg)) {
                                complain("--listen takes an address and a port, as 127.0.0.1:8787 "
                                         "or [::1]:8787, not '%s'",
                                        optarg);
                                return EXIT_USAGE;
                        }
                        dev->listen = optarg;
                        break;
                case 's':
                        dev->state = strdup(optarg);
                        break;
                case 'w':
                        if (!slice_to_u64(slice_from(optarg), &number) || !number || number > 64) {
                                complain("--workers takes a number from 1 to 64, not '%s'", optarg);
                                return EXIT_USAGE;
                        }
                        dev->workers = (unsigned)number;
                        break;
                case 't':
                        if (!is_steering(optarg)) {
                                complain("--steering takes auto, address or off, not '%s'", optarg);
                                return EXIT_USAGE;
                        }
                        dev->steering = optarg;
                        break;
                case 'a':
                        dev->create_admin = true;
                        break;
                case 'n':
                        dev->no_reload = true;
                        break;
                default:
                        return EXIT_USAGE;
                }
        }
        if (argc - optind > 1) {
                complain("dev takes one folder; '%s' is one too many", argv[optind + 1]);
                return EXIT_USAGE;
        }
        dev->directory = optind < argc ? argv[optind] : ".";
        return 0;
}

/* Sockets have short paths: a deep state folder gets its sockets in a temporary one. */
static int dev_make_runtime(Dev *dev)
{
        char folder[] = "/tmp/durabled-XXXXXX";

        if (strlen(dev->state) <= SOCKET_FOLDER_MAX) {
                dev->runtime = path_join(dev->state, "run");
                return dev->runtime ? dir_create(dev->runtime, 0755) : -ENOMEM;
        }
        if (!mkdtemp(folder))
                return -errno;
        dev->own_runtime = true;
        dev->runtime = strdup(folder);
        return dev->runtime ? 0 : -ENOMEM;
}

/* The state holds secrets and databases: a project's own .gitignore does not know of it. */
static int dev_ignore_state(const Dev *dev)
{
        _cleanup_(free_p) char *path = path_join(dev->state, ".gitignore");

        if (!path)
                return -ENOMEM;
        return access(path, F_OK) == 0 ? 0 : file_write_atomic(path, SLICE("*\n"), 0644);
}

static int dev_make_folders(Dev *dev)
{
        char *real;
        int r;

        if (!dev->state)
                dev->state = path_join(dev->directory, ".durabled");
        if (!dev->state)
                return -ENOMEM;
        r = dir_create(dev->state, 0755);
        if (r)
                return r;
        real = realpath(dev->state, NULL);
        if (!real)
                return -errno;
        free(dev->state);
        dev->state = real;
        r = dev_ignore_state(dev);
        if (r)
                return r;
        r = dev_make_runtime(dev);
        if (r)
                return r;
        dev->control = path_join(dev->runtime, "control");
        dev->config_path = path_join(dev->state, "dev.conf");
        return dev->control && dev->config_path ? 0 : -ENOMEM;
}

/* The project's own .dev.vars, or one with a secret key of this machine's. */
static int dev_find_vars(Dev *dev, char **ret)
{
        _cleanup_(free_p) char *own = path_join(dev->project->directory, ".dev.vars");
        _cleanup_(free_p) char *made = path_join(dev->state, "dev.vars");
        char key[101], line[128];
        int r;

        if (!own || !made)
                return -ENOMEM;
        if (access(own, R_OK) == 0) {
                *ret = TAKE_PTR(own);
                return 0;
        }
        if (access(made, R_OK) != 0) {
                random_hex(key, 50);
                snprintf(line, sizeof line, "SECRET_KEY=%s\n", key);
                r = file_write_atomic(made, slice_from(line), 0600);
                if (r)
                        return r;
        }
        *ret = TAKE_PTR(made);
        return 0;
}

static int dev_write_config(Dev *dev)
{
        _cleanup_(free_p) char *vars = NULL, *modules = NULL;
        Buf text = BUF_INIT(0);
        int r;

        r = dev_find_vars(dev, &vars);
        if (!r)
                r = companion_find("modules", &modules);
        if (!r)
                r = buf_printf(&text,
                        "# written by durablectl dev at each start\n[durabled]\nstate=%s\n"
                        "runtime=%s\nlisten=%s\nhost_modules=%s\ndevelopment=yes\nworkers=%"
                        "u\nsteering=%s\n"
                        "log_level=notice\n\n[app %s]\ndirectory=%s\nvars_file=%s\n",
                        dev->state, dev->runtime, dev->listen, modules, dev->workers, dev->steering,
                        dev->project->manifest->name, dev->project->directory, vars);
        if (!r && *dev->project->python_path)
                r = buf_printf(&text, "python_path=%s\n", dev->project->python_path);
        if (!r)
                r = file_write_atomic(dev->config_path, buf_slice(&text), 0600);
        buf_done(&text);
        return r;
}

static int dev_prepare(Dev *dev, bool first)
{
        Project *project = NULL;
        int r;

        r = project_prepare(dev->directory, dev->state, first, &project);
        if (r)
                return r;
        project_free(dev->project);
        dev->project = project;
        r = dev_write_config(dev);
        if (r) {
                complain("cannot write '%s': %s", dev->config_path, strerror(-r));
                return EXIT_FAILED;
        }
        return 0;
}

static int dev_start(Dev *dev)
{
        _cleanup_(free_p) char *program = NULL;
        const char *argv[] = { NULL, "--config", dev->config_path, NULL };
        int r;

        r = companion_find("durabled", &program);
        if (r) {
                complain("cannot find the durabled program: %s", strerror(-r));
                return EXIT_FAILED;
        }
        argv[0] = program;
        dd_assert(dev->control); /* dev_make_folders() */
        unlink(dev->control);
        dev->daemon = process_start(argv);
        if (dev->daemon < 0) {
                complain("cannot start '%s': %s", program, strerror(-dev->daemon));
                return EXIT_FAILED;
        }
        return 0;
}

/* True when the daemon has ended; its status is kept. */
static bool dev_daemon_ended(Dev *dev)
{
        int status;

        if (dev->daemon <= 0)
                return true;
        if (waitpid(dev->daemon, &status, WNOHANG) != dev->daemon)
                return false;
        dev->daemon = 0;
        dev->daemon_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        return true;
}

/* How many workers are in a state, of all; -1 when the daemon does not answer. */
static int count_workers(Dev *dev, const char *state, int *ret_all)
{
        _cleanup_(client_close_p) Client *client = NULL;
        VarlinkReply reply;
        json_t *app, *worker;
        size_t i, j;
        int n = 0, all = 0;

        if (client_open(dev->control, &client) ||
                client_call(client, "io.durabled.Manager.Status", NULL, 5000, &reply))
                return -1;
        json_array_foreach(json_object_get(reply.parameters, "apps"), i, app)
                json_array_foreach(json_object_get(app, "workers"), j, worker)
        {
                const char *is = json_string_value(json_object_get(worker, "state"));

                all++;
                n += is && strcmp(is, state) == 0;
        }
        varlink_reply_done(&reply);
        *ret_all = all;
        return n;
}

/* Takes the next signal that asks us to end; those of children that ended are passed over. */
static bool dev_is_interrupted(Dev *dev, int wait_ms)
{
        struct pollfd wait = { .fd = dev->signal_fd, .events = POLLIN };
        struct signalfd_siginfo info;

        if (dev->interrupted)
                return true;
        if (poll(&wait, 1, wait_ms) > 0 &&
                read(dev->signal_fd, &info, sizeof info) == sizeof info &&
                info.ssi_signo != SIGCHLD)
                dev->interrupted = true;
        return dev->interrupted;
}

/* 0 ready, EXIT_FAILED: the daemon ended, was interrupted, or an app cannot be loaded. */
static int dev_wait(Dev *dev)
{
        uint64_t deadline = clock_monotonic_ns() + READY_TIMEOUT_NS;
        int all = 0, n;

        while (clock_monotonic_ns() < deadline) {
                if (dev_daemon_ended(dev) || dev_is_interrupted(dev, 50))
                        return EXIT_FAILED;
                n = count_workers(dev, "ready", &all);
                if (n > 0 && n == all)
                        return 0;
                if (n >= 0 && count_workers(dev, "failed", &all) > 0)
                        return EXIT_FAILED;
        }
        complain("the workers are not ready after %llu s",
                (unsigned long long)(READY_TIMEOUT_NS / NSEC_PER_SEC));
        return EXIT_FAILED;
}

static void print_admin(Dev *dev)
{
        _cleanup_(free_p) char *path = path_join(dev->state, "admin-password");
        Buf password = BUF_INIT(0);
        unsigned status = 0;
        Slice line;
        int r;

        r = path ? dev_http_get(dev->listen, "/__create_admin__/", &status) : -ENOMEM;
        if (r || status >= 300) {
                complain("Django's admin could not be made: %s",
                        r ? strerror(-r) : "the app refused");
                return;
        }
        r = file_read(path, 255, &password);
        if (!r) {
                line = buf_slice(&password);
                line = slice_trim(slice_cut(&line, '\n'));
                printf("  admin     user admin, password %.*s\n", SLICE_FMT(line));
        }
        buf_done(&password);
}

static void print_welcome(Dev *dev)
{
        bool bold = may_colour(STDOUT_FILENO);

        printf("\n%s%s is served%s\n\n  open      http://%s/\n  console   durablectl status "
               "--socket "
               "%s\n",
                bold ? "\033[1m" : "", dev->project->manifest->name, bold ? "\033[0m" : "",
                dev->listen, dev->control);
        if (dev->create_admin)
                print_admin(dev);
        printf("  state     %s\n\nCtrl-C stops it.\n\n", dev->state);
        fflush(stdout);
}

/* Of a traceback, which the worker has printed, the line that names the fault. */
static const char *last_line(const char *text)
{
        const char *end = text + strlen(text), *line;

        while (end > text && strchr(" \n", end[-1]))
                end--;
        for (line = end; line > text && line[-1] != '\n';)
                line--;
        return line;
}

static void dev_reload(Dev *dev, const char *changed)
{
        _cleanup_(client_close_p) Client *client = NULL;
        uint64_t start = clock_monotonic_ns();
        VarlinkReply reply;
        int r;

        fprintf(stderr, "\n%s changed: reloading\n", changed);
        if (dev_prepare(dev, false)) {
                fprintf(stderr, "the version before goes on\n");
                return;
        }
        r = client_open(dev->control, &client);
        if (!r)
                r = client_call(client, "io.durabled.Manager.Reload", NULL, 60000, &reply);
        if (r) {
                complain("cannot reload: %s", strerror(-r));
                return;
        }
        if (reply.error) {
                const char *why = json_string_value(json_object_get(reply.parameters, "message"));

                complain("cannot reload: %s", why ? last_line(why) : reply.error);
        } else if (dev_wait(dev) == 0) {
                fprintf(stderr, "reloaded in %llu ms\n",
                        (unsigned long long)((clock_monotonic_ns() - start) / NSEC_PER_MSEC));
        }
        varlink_reply_done(&reply);
}

static int dev_watch(Dev *dev)
{
        const Manifest *manifest = dev->project->manifest;
        int n = 0;

        if (dev->no_reload)
                return 0;
        dev->skip[n++] = strdup(dev->state);
        if (manifest->assets_directory && manifest->build_command) {
                const char *from = manifest->assets_directory;

                /* The build command writes it: a change there is our own doing. */
                if (strncmp(from, "./", 2) == 0)
                        from += 2;
                dev->skip[n] = path_join(dev->project->directory, from);
                if (dev->skip[n] && slice_has_suffix(slice_from(dev->skip[n]), SLICE("/")))
                        dev->skip[n][strlen(dev->skip[n]) - 1] = '\0';
                n++;
        }
        return watch_new(dev->project->directory, (const char *const *)dev->skip, &dev->watch);
}

/* Until a signal comes or the daemon ends. */
static void dev_serve(Dev *dev)
{
        char changed[256] = "", name[256];
        struct pollfd wait[2] = {
                { .fd = dev->signal_fd, .events = POLLIN },
                { .fd = dev->watch ? watch_get_fd(dev->watch) : -1, .events = POLLIN },
        };

        while (!dev->interrupted && !dev_daemon_ended(dev)) {
                int n = poll(wait, 2, *changed ? QUIET_MS : -1);

                if (n > 0 && wait[0].revents)
                        (void)dev_is_interrupted(dev, 0);
                if (n > 0 && wait[1].revents && watch_read(dev->watch, name, sizeof name))
                        memcpy(changed, name, sizeof changed);
                if (n == 0 && *changed) {
                        dev_reload(dev, changed);
                        *changed = '\0';
                }
        }
}

static void dev_stop(Dev *dev)
{
        int status;

        if (dev->daemon <= 0)
                return;
        kill(dev->daemon, SIGTERM);
        while (waitpid(dev->daemon, &status, 0) < 0 && errno == EINTR)
                ;
        dev->daemon = 0;
}

static int dev_take_signals(Dev *dev)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGCHLD);
        if (sigprocmask(SIG_BLOCK, &set, NULL))
                return -errno;
        dev->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return dev->signal_fd < 0 ? -errno : 0;
}

static void dev_done(Dev *dev)
{
        dev_stop(dev);
        watch_free(dev->watch);
        project_free(dev->project);
        if (dev->own_runtime && dev->runtime)
                rmdir(dev->runtime);
        close_p(&dev->signal_fd);
        for (size_t i = 0; i < ELEMENTSOF(dev->skip); i++)
                free(dev->skip[i]);
        free(dev->state);
        free(dev->runtime);
        free(dev->control);
        free(dev->config_path);
}

static int dev_run(Dev *dev)
{
        int r;

        /* Before anything is made: a mistyped folder must stay as it is. */
        r = project_check(dev->directory);
        if (r)
                return r;
        r = dev_make_folders(dev);
        if (r) {
                complain("cannot make the state folder '%s': %s",
                        dev->state ? dev->state : "DIR/.durabled", strerror(-r));
                return EXIT_FAILED;
        }
        r = dev_prepare(dev, true);
        if (!r)
                r = dev_start(dev);
        if (r)
                return r;
        /* After the start: what blocks these signals here must not be inherited by the daemon. */
        r = dev_take_signals(dev);
        if (!r)
                r = dev_watch(dev);
        if (r) {
                complain("cannot watch '%s': %s", dev->directory, strerror(-r));
                return EXIT_FAILED;
        }
        if (dev_wait(dev) == 0)
                print_welcome(dev);
        else if (dev->daemon <= 0)
                return dev->daemon_status ? EXIT_FAILED : EXIT_OK;
        else if (dev_is_interrupted(dev, 0))
                return EXIT_OK; /* as a Ctrl-C a moment later */
        else if (dev->no_reload)
                return EXIT_FAILED;
        else
                fprintf(stderr,
                        "the app cannot be loaded; it is tried again when a file changes\n");
        dev_serve(dev);
        if (dev->daemon <= 0 && dev->daemon_status) {
                complain("the daemon ended with status %d", dev->daemon_status);
                return EXIT_FAILED;
        }
        return EXIT_OK;
}

int command_dev(int argc, char **argv)
{
        Dev dev = { .listen = "127.0.0.1:8787", .steering = "auto", .signal_fd = -1 };
        int r;

        r = dev_parse(&dev, argc, argv);
        if (!r)
                r = dev_run(&dev);
        dev_done(&dev);
        return r;
}
