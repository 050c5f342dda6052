/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/crc32c.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL UINT32_C(0x82f63b78)

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t crc = i;

                for (int bit = 0; bit < 8; bit++)
                        crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
                table[i] = crc;
        }
}

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len)
{
        const unsigned char *bytes = data;

        pthread_once(&table_once, make_table);
        crc = ~crc;
        for (size_t i = 0; i < len; i++)
                crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xff];
        return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(
        uint32_t crc, const unsigned char *bytes, size_t len)
{
        uint64_t state = ~crc;

        for (; len >= 8; bytes += 8, len -= 8) {
                uint64_t word;

                memcpy(&word, bytes, 8);
                state = __builtin_ia32_crc32di(state, word);
        }
        for (; len; bytes++, len--)
                state = __builtin_ia32_crc32qi((uint32_t)state, *bytes);
        return ~(uint32_t)state;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
#if defined(__x86_64__)
        if (__builtin_cpu_supports("sse4.2"))
                return by_instruction(crc, data, len);
#endif
        return crc32c_by_table(crc, data, len);
}
