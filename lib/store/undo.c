/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

/* Without an archive nothing is kept of what was before. */
int history_go_back(Image *image, const char *name, uint64_t lsn)
{
        return lsn >= atomic_load(&image->store->captured) ? 0 : STORE_E_PRUNED;
}
