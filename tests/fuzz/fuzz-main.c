/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Replays corpora where libFuzzer is not linked
 *
 * Every file of each folder given goes once through the target. One TAP line a folder; an input
 * that the target rejects aborts, with the file's name on standard error.
 */

#include "lib/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>

#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *folder, const char *name)
{
        _cleanup_(free_p) char *path = path_join(folder, name);
        _cleanup_(buf_done) Buf buf = BUF_INIT(INPUT_MAX);
        _cleanup_(free_p) char *copy = NULL;
        int r;

        if (!path)
                return -ENOMEM;
        r = file_read(path, INPUT_MAX, &buf);
        if (r)
                return r;
        /* A block of exactly that size, so that a sanitizer sees a read beyond the input. */
        copy = malloc(buf.len ? buf.len : 1);
        if (!copy)
                return -ENOMEM;
        if (buf.len)
                memcpy(copy, buf_data(&buf), buf.len);
        fprintf(stderr, "# %s\n", path);
        LLVMFuzzerTestOneInput((const uint8_t *)copy, buf.len);
        return 0;
}

static int replay_folder(const char *folder, unsigned *ret_files)
{
        DIR *dir = opendir(folder);
        struct dirent *entry;
        unsigned files = 0;
        int r = 0;

        if (!dir)
                return -errno;
        while (!r && (entry = readdir(dir)))
                if (entry->d_name[0] != '.') {
                        r = replay_file(folder, entry->d_name);
                        files++;
                }
        closedir(dir);
        *ret_files = files;
        return r;
}

int main(int argc, char **argv)
{
        int failed = 0;

        printf("1..%d\n", argc - 1);
        for (int i = 1; i < argc; i++) {
                const char *slash = strrchr(argv[i], '/');
                unsigned files = 0;
                int r;

                r = replay_folder(argv[i], &files);
                if (!r && files == 0)
                        r = -ENOENT;
                printf("%sok %d - each of the %u inputs in corpus/%s keeps the target's rules\n",
                        r ? "not " : "", i, files, slash ? slash + 1 : argv[i]);
                if (r)
                        printf("# %s: %s\n", argv[i], strerror(-r));
                failed |= r != 0;
        }
        return failed;
}
