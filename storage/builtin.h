/* storage/builtin.h - the built-in adapters, for the table in storage/storage.c. */
#ifndef SEL_STORAGE_BUILTIN_H
#define SEL_STORAGE_BUILTIN_H

#include "core/error.h"
#include "storage/io.h"
#include "storage/storage.h"

/* InMemoryStorage(echo, json): results live as long as the process, in a hash table by task id.
 * `echo` (true, 'stdout' or 'stderr') hands each record that is stored and each result that is
 * retrieved to options->echo, one call a text, without a line end behind it; with `json` it is
 * indented JSON with sorted keys. Trace events are echoed likewise and not kept: nobody could read
 * them back. */
int sel_storage_memory_open(const struct sel_storage_options *options, struct sel_io *io,
                            struct sel_storage **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* LMDB(path, map_size, sync): an embedded database in a folder of its own; see storage/lmdb.c.
 *   path      text, {ENV} expanded; default "selinon-results"; made if missing
 *   map_size  bytes of address space at the start, default 1 GiB; grows by itself
 *   sync      default true: what is stored is on disk when the call returns. false: the kernel
 *             writes it when it likes; survives the end of the process, but a power cut may damage
 *             the whole environment */
int sel_storage_lmdb_open(const struct sel_storage_options *options, struct sel_io *io,
                          struct sel_storage **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* Filesystem(path, sync): one JSON file a result, path/flow/task/id.json.
 *   path      text, {ENV} expanded; default the current folder; made if missing
 *   sync      default true: file and folder are on disk when the call returns */
int sel_storage_filesystem_open(const struct sel_storage_options *options, struct sel_io *io,
                                struct sel_storage **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* The argument `path` of options->config with {ENV} expanded, in `arena`, terminated; `fallback`
 * if it was not given. */
int sel_storage_path(struct sel_arena *arena, const struct sel_storage_options *options,
                     const char *what, const char *fallback, struct sel_str *ret,
                     struct sel_error *err) SEL_WARN_UNUSED;

/* Makes a folder and those above it. 0 or -errno. */
int sel_storage_make_folder(struct sel_io *io, const char *path) SEL_WARN_UNUSED;

#endif
