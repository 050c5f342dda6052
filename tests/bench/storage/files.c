/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include "lib/base/file.h"

#include <fcntl.h>
#include <string.h>

/*
 * Makes N objects' files of one page as a daemon's state has them: <folder>/<2 hex>/<id>.sqlite,
 * for a start among many. Prints nothing.
 */

#define FILE_BYTES 4096u

void case_files(const Args *args)
{
        unsigned char page[FILE_BYTES] = {};
        char path[4096];

        make_folders(args->folder);
        for (unsigned i = 0; i < args->objects; i++) {
                char id[65];
                int fd;

                random_hex(id, 32);
                snprintf(path, sizeof path, "%s/%.2s/%s.sqlite", args->folder, id, id);
                fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
                if (fd < 0)
                        die("%s cannot be made", path);
                check(fd_write_all(fd, page, sizeof page), path);
                close(fd);
        }
}
