/* storage/lmdb_check.h - is data.mdb whole, before LMDB maps it?
 *
 * LMDB 0.9 trusts its file: a cut one ends in SIGBUS when a missing page is touched. */
#ifndef SEL_STORAGE_LMDB_CHECK_H
#define SEL_STORAGE_LMDB_CHECK_H

#include "core/assert.h"
#include "core/error.h"

/* Blocks. 0: there is none yet, or its meta pages are right and the file has all pages that they
 * count. SEL_EFORMAT: damaged or no environment at all; SEL_EVERSION: another version of LMDB;
 * -errno. `err` says it for a person. */
int sel_lmdb_check(const char *folder, struct sel_error *err) SEL_WARN_UNUSED;

#endif
