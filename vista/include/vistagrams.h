/* Vistagrams: messages in Vista's transactions, exactly once, for C programs.
 *
 * What a transaction changes, sends and receives becomes permanent together at vista_end_transaction,
 * or not at all. A message leaves when its transaction has committed, and is delivered once, whatever
 * is lost on the way and whoever dies. After an abort, or a death, what was received is received again.
 *
 *     vista *v = vista_init("/dev/shm/client", VISTA_TMPFS, 0);
 *     vista_grams_open(v, "10.0.0.1:4001", NULL);
 *     vista_begin_transaction(v);
 *     vista_set_range(v, lock, sizeof *lock);
 *     lock->status = PENDING;
 *     vista_send_request(v, vista_peer(v, "10.0.0.2:4000"), "7", 1, &lock->request);
 *     vista_end_transaction(v);                       (now it leaves)
 *     vista_begin_transaction(v);
 *     vista_receive_response(v, &lock->request, answer, sizeof answer, &len, -1);
 *     vista_set_range(v, lock, sizeof *lock);
 *     lock->status = LOCKED;
 *     vista_end_transaction(v);
 *
 * A transaction cannot wait for the answer to what it sends itself: VISTA_EORDER. Functions say 0 or a
 * VISTA_E... value; vista_error(v) tells the object, the cause and what to do. Times are milliseconds,
 * and -1 waits for ever. Link: -lvistagrams_c -lm, which holds libvista_c as well.
 */
#ifndef VISTAGRAMS_H
#define VISTAGRAMS_H

#include "vista.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A request, the same on both sides and over restarts; it may lie in persistent memory. Zeros name none. */
typedef struct vista_request_id {
    unsigned char node[16]; /* the client's store */
    uint64_t link;          /* which of its servers */
    uint64_t seq;           /* which request to it */
} vista_request_id;

/* Zeros choose the defaults. */
typedef struct vista_grams_options {
    uint16_t resend_port;     /* where retransmissions are received; 0: any */
    const unsigned char *key; /* 16 bytes that all parties share; NULL: packets are not authenticated */
    size_t datagram;          /* the longest, up to 96 of header included; 0: 1432 */
    size_t window;            /* requests unsettled on a link, 1 to 1024; 0: 64; counts at creation */
    size_t segment_len;       /* bytes for tables and buffers; 0: 16 MB; counts at creation */
} vista_grams_options;

/* More values of enum vista_status. */
enum vista_grams_status {
    VISTA_ETIMEOUT = 7,   /* nothing came in that time */
    VISTA_EORDER = 8,     /* waits for what this transaction sends itself; not open, or open twice */
    VISTA_EROOM = 9,      /* the buffer is too short: *len says what is needed, the message stays */
    VISTA_ENET = 10,      /* an address, a socket or an option */
    VISTA_EWINDOW = 11,   /* too many unsettled requests to this server */
    VISTA_EREPLACED = 12  /* another installation answers at the server's address */
};

/* Opens the messages of an image, outside a transaction; "10.0.0.1:4000", "[::1]:4000", port 0 for any.
 * What was committed before and is not settled is sent again. options may be NULL. */
int vista_grams_open(vista *v, const char *listen, const vista_grams_options *options);

/* Where it listens, as a string. */
int vista_grams_address(vista *v, char *buffer, size_t size);

/* The server at an address, in a transaction; 0 on failure. The number may be kept. */
uint32_t vista_peer(vista *v, const char *address);

/* Sends when the transaction commits. id may be NULL. */
int vista_send_request(vista *v, uint32_t peer, const void *data, size_t len, vista_request_id *id);

/* Receives a request, which stays received if the transaction commits. */
int vista_receive_request(vista *v, void *buffer, size_t size, size_t *len, vista_request_id *id,
                          int timeout_ms);

/* Answers a request that was received, in this transaction or an earlier one, when this one commits. */
int vista_send_response(vista *v, const vista_request_id *id, const void *data, size_t len);

/* Receives the answer to a request of an earlier transaction. */
int vista_receive_response(vista *v, const vista_request_id *id, void *buffer, size_t size, size_t *len,
                           int timeout_ms);

/* Gives a request up; whether the server has executed it stays unknown. */
int vista_abandon(vista *v, const vista_request_id *id);

/* Waits, in a transaction or outside, until the answer to one of the requests can be received (*which
 * is its place), or a request can (*which is count). */
int vista_select(vista *v, const vista_request_id *ids, size_t count, int timeout_ms, size_t *which);

/* Requests that an earlier transaction has received without answering them: at most so many are stored;
 * how many there are. */
size_t vista_unanswered(vista *v, vista_request_id *ids, size_t most);

#ifdef __cplusplus
}
#endif
#endif
