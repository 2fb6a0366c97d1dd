/* worker/api.h - keeps the functions of include/selinon/ in every program that links the worker.
 *
 * Modules call them by name, so the linker sees no use of most of them and would leave their
 * object files in the static library. The build forces the symbol below into each program
 * (worker/CMakeLists.txt), and it refers to all of them. */
#ifndef SEL_WORKER_API_H
#define SEL_WORKER_API_H

extern void (*const sel_worker_api[])(void);

#endif
