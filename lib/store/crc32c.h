/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * CRC-32C (Castagnoli, reflected 0x82f63b78), as iSCSI and ext4 use it
 *
 * crc32c(0, ...) starts; a result given back as crc goes on. By the processor's instruction where
 * there is one.
 */

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* The same by table, for the test that compares them. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len);
