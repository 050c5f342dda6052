/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/macro.h"

#include <stdio.h>

void assert_fail(const char *expr, const char *file, int line, const char *function)
{
        fprintf(stderr, "durabled: bug: assertion '%s' failed at %s:%d in %s()\n", expr, file, line,
                function);
        abort();
}
