/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <getopt.h>
#include <string.h>

static const struct {
        const char *name;
        void (*run)(const Args *args);
} cases[] = {
        { "commits", case_commits },
        { "files", case_files },
        { "lone", case_lone },
        { "memory", case_memory },
        { "recover", case_recover },
        { "retire", case_retire },
        { "speed", case_speed },
};

static void usage(void)
{
        fprintf(stderr, "usage: bench-storage CASE --folder FOLDER [--kind KIND] [--objects N]\n"
                        "       [--pairs N] [--seconds N] [--in-flight N] [--burst N]\n"
                        "cases:");
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                fprintf(stderr, " %s", cases[i].name);
        fputc('\n', stderr);
        exit(2);
}

static void parse(int argc, char **argv, Args *args)
{
        static const struct option options[] = {
                { "folder", required_argument, NULL, 'f' },
                { "kind", required_argument, NULL, 'k' },
                { "objects", required_argument, NULL, 'o' },
                { "pairs", required_argument, NULL, 'p' },
                { "seconds", required_argument, NULL, 's' },
                { "in-flight", required_argument, NULL, 'i' },
                { "burst", required_argument, NULL, 'b' },
                {},
        };
        int option;

        while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
                unsigned number = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;

                switch (option) {
                case 'f':
                        args->folder = optarg;
                        break;
                case 'k':
                        args->kind = optarg;
                        break;
                case 'o':
                        args->objects = number;
                        break;
                case 'p':
                        args->pairs = number;
                        break;
                case 's':
                        args->seconds = strtod(optarg, NULL);
                        break;
                case 'i':
                        args->in_flight = number;
                        break;
                case 'b':
                        args->burst = number;
                        break;
                default:
                        usage();
                }
        }
        if (optind != argc || !args->folder || !args->objects || !args->pairs || !args->in_flight ||
                !args->burst)
                usage();
}

int main(int argc, char **argv)
{
        Args args = { .objects = 1000, .pairs = 3, .seconds = 1, .in_flight = 128, .burst = 64 };

        if (argc < 2)
                usage();
        parse(argc - 1, argv + 1, &args);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (strcmp(argv[1], cases[i].name) == 0) {
                        cases[i].run(&args);
                        return 0;
                }
        usage();
}
