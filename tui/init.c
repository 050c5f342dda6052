/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl init: copies the Django template
 */

#include "lib/base/file.h"
#include "tui/command.h"
#include "tui/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define COPY_MAX (16u << 20)

static const char *const left_out[] = { "__pycache__", "staticfiles", ".durabled", ".dev.vars" };

static bool is_left_out(const char *name)
{
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return true;
        for (size_t i = 0; i < ELEMENTSOF(left_out); i++)
                if (strcmp(name, left_out[i]) == 0)
                        return true;
        return false;
}

static int copy_file(const char *from, const char *to, mode_t mode)
{
        Buf bytes = BUF_INIT(0);
        int r;

        r = file_read(from, COPY_MAX, &bytes);
        if (!r)
                r = file_write_atomic(to, buf_slice(&bytes), mode & 0777);
        buf_done(&bytes);
        return r;
}

static int copy_folder(const char *from, const char *to, unsigned *count)
{
        struct dirent *entry;
        DIR *folder;
        int r;

        r = dir_create(to, 0777);
        if (r)
                return r;
        folder = opendir(from);
        if (!folder)
                return -errno;
        while (!r && (entry = readdir(folder))) {
                _cleanup_(free_p) char *source = NULL, *target = NULL;
                struct stat info;

                if (is_left_out(entry->d_name))
                        continue;
                source = path_join(from, entry->d_name);
                target = path_join(to, entry->d_name);
                if (!source || !target)
                        r = -ENOMEM;
                else if (stat(source, &info))
                        r = -errno;
                else if (S_ISDIR(info.st_mode))
                        r = copy_folder(source, target, count);
                else
                        r = copy_file(source, target, info.st_mode);
                *count += !r && !S_ISDIR(info.st_mode);
        }
        closedir(folder);
        return r;
}

static bool is_empty(const char *path)
{
        struct dirent *entry;
        DIR *folder = opendir(path);
        bool empty = true;

        while (folder && (entry = readdir(folder)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        empty = false;
        if (folder)
                closedir(folder);
        return empty;
}

int command_init(int argc, char **argv)
{
        _cleanup_(free_p) char *template = NULL;
        unsigned count = 0;
        int r;

        if (argc != 2 || argv[1][0] == '-') {
                complain("usage: durablectl init DIR");
                return EXIT_USAGE;
        }
        if (access(argv[1], F_OK) == 0 && !is_empty(argv[1])) {
                complain("'%s' exists and is not empty: name a new folder", argv[1]);
                return EXIT_FAILED;
        }
        r = companion_find("template", &template);
        if (!r)
                r = copy_folder(template, argv[1], &count);
        if (r) {
                complain("cannot make '%s': %s", argv[1], strerror(-r));
                return EXIT_FAILED;
        }
        printf("%s: %u files. Go on with:\n\n  durablectl dev %s\n", argv[1], count, argv[1]);
        return EXIT_OK;
}
