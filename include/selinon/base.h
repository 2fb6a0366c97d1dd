/* selinon/base.h - what all public headers share. Plain C11, includes nothing of the project. */
#ifndef SELINON_BASE_H
#define SELINON_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SEL_API extern "C" __attribute__((visibility("default")))
#else
#define SEL_API __attribute__((visibility("default")))
#endif
#define SEL_CHECKED __attribute__((warn_unused_result))

/* Version of the interface between the program and a module. A module is refused if its major
 * part (the upper 16 bits) differs or its minor part is newer than the program's. */
#define SEL_MODULE_ABI UINT32_C(0x00010000)

/* A borrowed piece of text: pointer and length, no terminator promised. */
struct sel_str {
    const char *p;
    size_t n;
};

/* Bytes that belong to whoever made them; see the function that hands them out. */
struct sel_bytes {
    const void *p;
    size_t n;
};

#endif
