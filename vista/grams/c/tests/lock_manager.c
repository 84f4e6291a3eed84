/* The recoverable lock manager of the thesis' figure 4.4, in C.
 *
 *     lock_manager server IMAGE LISTEN             grants until it is killed
 *     lock_manager client IMAGE SERVER ROUNDS      takes and gives back the lock so often
 *
 * Both may be killed at any moment. The client says how many rounds it has done and how many grants the
 * server has counted for it, which must be the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vistagrams.h"

enum { IDLE, PENDING, LOCKED, RELEASING };

struct client {
    uint64_t status, rounds, granted;
    uint64_t peer;
    vista_request_id request;
};

struct server {
    uint64_t grants, releases;
};

static vista *v;

static void must(int status, const char *what) {
    if (status != VISTA_OK) {
        fprintf(stderr, "%s: %s\n", what, vista_error(v));
        exit(1);
    }
}

static void *open_image(const char *image, const char *listen) {
    v = vista_init(image, VISTA_TMPFS, 4 << 20);
    if (v == NULL) {
        fprintf(stderr, "%s: %s\n", image, vista_error(NULL));
        exit(1);
    }
    void *own = vista_map(v, "own", 4096, NULL, VISTA_RAW);
    must(own == NULL, "map");
    must(vista_grams_open(v, listen, NULL), "open");
    return own;
}

static void serve(const char *image, const char *listen) {
    struct server *own = open_image(image, listen);
    for (;;) {
        vista_request_id request;
        char verb;
        size_t len;
        must(vista_begin_transaction(v), "begin");
        must(vista_receive_request(v, &verb, 1, &len, &request, -1), "receive");
        must(vista_set_range(v, own, sizeof *own), "set_range");
        if (verb == 'a')
            own->grants++;
        else
            own->releases++;
        must(vista_send_response(v, &request, &own->grants, sizeof own->grants), "respond");
        must(vista_end_transaction(v), "end");
    }
}

static void ask(struct client *own, const char *server, char verb, int status) {
    must(vista_begin_transaction(v), "begin");
    must(vista_set_range(v, own, sizeof *own), "set_range");
    if (own->peer == 0)
        own->peer = vista_peer(v, server);
    own->status = status;
    must(vista_send_request(v, own->peer, &verb, 1, &own->request), "send");
    must(vista_end_transaction(v), "end");
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "server") == 0)
        serve(argv[2], argv[3]);
    if (argc != 5)
        return 2;
    struct client *own = open_image(argv[2], "127.0.0.1:0");
    uint64_t rounds = strtoull(argv[4], NULL, 10);
    while (own->rounds < rounds) {
        if (own->status == IDLE)
            ask(own, argv[3], 'a', PENDING);
        else if (own->status == LOCKED)
            ask(own, argv[3], 'r', RELEASING);
        /* Whoever was killed while it waited goes on here. */
        uint64_t answer;
        size_t len;
        must(vista_begin_transaction(v), "begin");
        int status = vista_receive_response(v, &own->request, &answer, sizeof answer, &len, 500);
        if (status == VISTA_ETIMEOUT) {
            must(vista_abort_transaction(v), "abort");
            continue;
        }
        must(status, "receive");
        must(vista_set_range(v, own, sizeof *own), "set_range");
        own->granted = answer;
        if (own->status == PENDING) {
            own->status = LOCKED;
        } else {
            own->status = IDLE;
            own->rounds++;
        }
        must(vista_end_transaction(v), "end");
    }
    printf("%llu %llu\n", (unsigned long long)own->rounds, (unsigned long long)own->granted);
    vista_close(v);
    return 0;
}
