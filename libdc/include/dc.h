/*
 * Discount Checking for C programs.
 *
 * A program needs none of this to survive kill -9: `dcrun PROGRAM` is enough.
 * With it a program is recoverable however it is started, and may say when to
 * commit and what to do around it.
 *
 * Link libdc.a (with -lpthread -ldl) or libdc.so. Functions return 0, or -1
 * with errno; ENOSYS says that the program does not run under dcrun.
 */
#ifndef DC_H
#define DC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Makes this program recoverable. Under dcrun there is nothing to do; else the
 * program is executed again under it, from the start, as a run that `file`
 * names: started again after a crash, it goes on with that run. Call it first
 * in main: what the program did before is done twice.
 *
 * dcrun is taken from the environment variable DCRUN, from beside the program,
 * or from PATH.
 */
int dc_init(const char *file);

/* 1 under dcrun, else 0. */
int dc_is_recoverable(void);

/* Commits now. */
int dc_checkpoint(void);

/*
 * Has function(argument) called before each commit that dc_checkpoint asks for,
 * in the thread that asks; the latest function first.
 */
int dc_before_checkpoint(void (*function)(void *), void *argument);

/*
 * Has function(argument) called after each recovery, before the program goes
 * on. There is one such function: the latest.
 */
int dc_at_recovery(void (*function)(void *), void *argument);

/* Counters since the run began. */
struct dc_statistics {
    uint64_t published; /* number of the newest commit */
    uint64_t recoveries;
    uint64_t pages_copied;
    uint64_t commit_ns;
    uint64_t visible_events;
    uint64_t nd_events;
};

int dc_get_statistics(struct dc_statistics *into);

#ifdef __cplusplus
}
#endif

#endif
