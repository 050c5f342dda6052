/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One HTTP request to the daemon that durablectl dev has just started; blocking
 */

/* GET of path at "address:port" (a wildcard address means the loopback); reads the answer to its
 * end. 0 with the status, or a negative errno. */
int dev_http_get(const char *listen, const char *path, unsigned *ret_status);
