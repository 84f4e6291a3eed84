/* Vista: recoverable memory for C programs.
 *
 * Store into mapped memory inside a transaction; when vista_end_transaction returns 0 it is durable,
 * and when the program dies before that, the next vista_init puts everything back.
 *
 *     vista *v = vista_init("/dev/shm/bank", VISTA_TMPFS, 0);
 *     struct bank *bank = vista_map(v, "bank", 1 << 20, NULL, VISTA_RAW);
 *     vista_begin_transaction(v);
 *     vista_set_range(v, &bank->balance, sizeof bank->balance);
 *     bank->balance += 100;
 *     vista_end_transaction(v);
 *
 * A vista and its memory belong to one thread at a time. Functions that return int say 0, or a
 * VISTA_E... value; vista_error then tells the object, the cause and what to do. Link: -lvista_c -lm.
 */
#ifndef VISTA_H
#define VISTA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vista vista;

/* Where commits go. An image on disk is recognised when it is opened. */
enum vista_rio {
    VISTA_TMPFS = 0, /* survives the process */
    VISTA_DISK = 1,  /* survives the machine: a redo log, synced at commit */
    VISTA_PMEM = 2   /* survives the machine, on a DAX file system */
};

/* What a new segment is. */
enum vista_segment {
    VISTA_RAW = 0,  /* the program's own layout */
    VISTA_HEAP = 1, /* for vista_malloc */
    VISTA_PAGES = 2 /* the program's own layout, and no vista_set_range: written pages are found */
};

enum vista_status {
    VISTA_OK = 0,
    VISTA_ENESTED = 1, /* a transaction is already open */
    VISTA_ENONE = 2,   /* no transaction is open */
    VISTA_ERANGE = 3,  /* not in a mapped segment, or not an allocated block */
    VISTA_EFULL = 4,   /* no room in the undo log, the heap or the table */
    VISTA_EIMAGE = 5,  /* the image is damaged, or of another version or owner */
    VISTA_ERIO = 6     /* the storage below: see vista_error */
};

/* Opens the image at a path, or creates it with room for log_len bytes of undo (0: 64 MB), and undoes
 * what a crash left open. NULL on failure: vista_error(NULL) says why. */
vista *vista_init(const char *path, enum vista_rio rio, size_t log_len);

/* Closes the image; an open transaction is aborted. */
void vista_close(vista *v);

/* Maps the segment of that name, which is created if it does not exist. It is always mapped at the
 * address it was created with, if one was given, so that it may hold pointers. NULL on failure. */
void *vista_map(vista *v, const char *name, size_t size, void *address, enum vista_segment kind);

/* Lengthens a mapped segment in place. */
int vista_grow(vista *v, void *segment, size_t size);

int vista_begin_transaction(vista *v);

/* Says that the transaction will change these bytes; their old content is saved. */
int vista_set_range(vista *v, void *start, size_t size);

/* Commits. On an error the transaction is still open: abort it. */
int vista_end_transaction(vista *v);

/* Puts everything back as it was at vista_begin_transaction. */
int vista_abort_transaction(vista *v);

/* Takes a block from a heap segment; an abort gives it back. NULL if there is no room. The content
 * is undefined, and filling it needs no vista_set_range in the same transaction. */
void *vista_malloc(vista *v, void *segment, size_t size);

/* Frees a block when the transaction commits. */
int vista_free(vista *v, void *block);

/* The address from which the program finds its data again; NULL at first. */
void *vista_root(vista *v, void *segment);
int vista_set_root(vista *v, void *segment, void *root);

/* The last failure of this vista, or of vista_init on this thread if v is NULL. */
const char *vista_error(const vista *v);

#ifdef __cplusplus
}
#endif
#endif
