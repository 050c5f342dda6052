/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durabled: the supervisor's executable
 *
 * Exit status: 0 after a stop in order, 1 when it could not start or failed, 2 for wrong arguments.
 * With --recover: recover.h.
 */

#include "daemon/core/log.h"
#include "daemon/host/supervisor.h"
#include "daemon/recover.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_DEFAULT "/etc/durabled/durabled.conf"

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const char usage[] =
        "Usage: durabled [--config FILE] [--check]\n"
        "       durabled --recover [--config FILE] [DECISION...]\n"
        "Hosts durable objects: starts and watches the workers of an app.\n"
        "\n"
        "  -c, --config FILE  the settings (default " CONFIG_DEFAULT ", and FILE.d/*.conf)\n"
        "      --check        read settings and manifests, then end\n"
        "      --recover      tell what the journals hold and what can be done about damage;\n"
        "                     changes nothing but what is decided by\n"
        "          --redo                    redo all journals that are fine and empty them\n"
        "          --cut-at-damage APP/SLOT  redo up to the damage, set the rest aside\n"
        "          --until LSN               with it: redo up to this LSN\n"
        "          --set-aside APP/SLOT      redo nothing of it, keep databases as they are\n"
        "      --version      print the version\n"
        "  -h, --help         print this\n"
        "\n"
        "SIGTERM and SIGINT stop it with draining, a second one at once;\n"
        "SIGHUP starts the workers again with new code, one after the other.\n";

typedef struct Arguments {
        const char *config;
        bool check, recover;
        RecoverOptions decisions;
        bool done; /* everything that was asked for has been printed */
} Arguments;

static int refuse(const char *why)
{
        fprintf(stderr, "durabled: %s. Try durabled --help\n", why);
        return -EINVAL;
}

static int arguments_check(const Arguments *arguments)
{
        const RecoverOptions *decisions = &arguments->decisions;

        if (!arguments->recover &&
                (decisions->redo || decisions->cut || decisions->until || decisions->set_aside))
                return refuse("--redo, --cut-at-damage, --until and --set-aside go with --recover");
        if (decisions->until && !decisions->cut)
                return refuse("--until goes with --cut-at-damage");
        return 0;
}

enum {
        OPTION_CHECK = 256,
        OPTION_VERSION,
        OPTION_RECOVER,
        OPTION_REDO,
        OPTION_CUT,
        OPTION_UNTIL,
        OPTION_SET_ASIDE
};
static const struct option long_options[] = {
        { "config", required_argument, NULL, 'c' },
        { "check", no_argument, NULL, OPTION_CHECK },
        { "recover", no_argument, NULL, OPTION_RECOVER },
        { "redo", no_argument, NULL, OPTION_REDO },
        { "cut-at-damage", required_argument, NULL, OPTION_CUT },
        { "until", required_argument, NULL, OPTION_UNTIL },
        { "set-aside", required_argument, NULL, OPTION_SET_ASIDE },
        { "version", no_argument, NULL, OPTION_VERSION },
        { "help", no_argument, NULL, 'h' },
        { 0 },
};

static int arguments_parse(int argc, char **argv, Arguments *ret)
{
        int option;

        *ret = (Arguments){ .config = CONFIG_DEFAULT };
        while ((option = getopt_long(argc, argv, "c:h", long_options, NULL)) >= 0) {
                switch (option) {
                case 'c':
                        ret->config = ret->decisions.config_path = optarg;
                        break;
                case OPTION_RECOVER:
                        ret->recover = true;
                        break;
                case OPTION_REDO:
                        ret->decisions.redo = true;
                        break;
                case OPTION_CUT:
                        ret->decisions.cut = optarg;
                        break;
                case OPTION_UNTIL:
                        if (!slice_to_u64(slice_from(optarg), &ret->decisions.until) ||
                                !ret->decisions.until)
                                return refuse("--until expects an LSN: a number");
                        break;
                case OPTION_SET_ASIDE:
                        ret->decisions.set_aside = optarg;
                        break;
                case OPTION_CHECK:
                        ret->check = true;
                        break;
                case OPTION_VERSION:
                        printf("durabled %s\n", DURABLED_VERSION);
                        ret->done = true;
                        return 0;
                case 'h':
                        fputs(usage, stdout);
                        ret->done = true;
                        return 0;
                default:
                        fputs("Try durabled --help\n", stderr);
                        return -EINVAL;
                }
        }
        if (optind < argc) {
                fprintf(stderr, "durabled: \"%s\" is not understood. Try durabled --help\n",
                        argv[optind]);
                return -EINVAL;
        }
        return arguments_check(ret);
}

static int load(const char *path, Config **ret)
{
        ConfigError error = { 0 };
        int r = config_load(path, ret, &error);

        if (r > 0) {
                if (error.line)
                        fprintf(stderr, "durabled: %s:%u: %s\n", error.file, error.line,
                                error.message);
                else
                        fprintf(stderr, "durabled: %s: %s\n", error.file[0] ? error.file : path,
                                error.message);
        } else if (r < 0) {
                fprintf(stderr, "durabled: %s: %s\n", path, strerror(-r));
        }
        return r;
}

static int tell(int r, const SupervisorError *error)
{
        if (r > 0)
                log_error("%s", error->message);
        else if (r < 0)
                log_error("%s", strerror(-r));
        return r == 0 ? EXIT_OK : EXIT_FAILED;
}

static int serve(const Config *config)
{
        _cleanup_(supervisor_free_p) Supervisor *supervisor = NULL;
        SupervisorError error = { 0 };
        int r = supervisor_new(config, &supervisor, &error);

        if (r == 0)
                r = supervisor_run(supervisor);
        return tell(r, &error);
}

int main(int argc, char **argv)
{
        _cleanup_(config_free_p) Config *config = NULL;
        SupervisorError error = { 0 };
        Arguments arguments;
        int status;

        if (arguments_parse(argc, argv, &arguments) < 0)
                return EXIT_USAGE;
        if (arguments.done)
                return EXIT_OK;
        if (load(arguments.config, &config) != 0) {
                if (arguments.recover && !arguments.decisions.config_path)
                        fprintf(stderr, "durabled: name the service's settings with --config; "
                                        "'durablectl dev' keeps its own in .durabled/dev.conf\n");
                return EXIT_FAILED;
        }
        log_open("durabled", (LogLevel)config->log_level);
        if (arguments.recover) {
                status = recover_run(config, &arguments.decisions);
        } else if (arguments.check) {
                status = tell(supervisor_check(config, &error), &error);
                if (status == EXIT_OK)
                        printf("durabled: %s: all right%s\n", arguments.config,
                                config->n_apps ? "" : ", but no app is set up: see [app NAME]");
        } else {
                status = serve(config);
        }
        log_close();
        return status;
}
