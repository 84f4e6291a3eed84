/* An ordered map in C, with plain pointers: its segment is mapped at one address for ever.
 *
 *     ordered_map IMAGE RIO ACKNOWLEDGED [TRANSACTIONS]
 *
 * Transaction n toggles three keys of a fixed sequence; the contract is that of src/main.rs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vista.h"

enum { KEYS = 500, TOGGLES = 3 };
#define ADDRESS ((void *)0x200000000000)

struct node {
    uint64_t key, value;
    struct node *left, *right;
};

struct map {
    uint64_t transactions, len;
    struct node *root;
};

static vista *v;
static void *heap;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "ordered_map: %s: %s\n", what, why);
    exit(1);
}

static void must(int status, const char *what)
{
    if (status != VISTA_OK)
        fail(what, vista_error(v));
}

/* Saves and stores one word. */
#define SET(place, value)                                                     \
    (must(vista_set_range(v, &(place), sizeof(place)), "set_range"), (place) = (value))

static uint64_t priority(uint64_t key)
{
    key = (key ^ key >> 31) * 0x7fb5d329728ea185u;
    return (key ^ key >> 27) * 0x81dadef4bc2d44d1u;
}

static void split(struct node *tree, uint64_t key, struct node **low, struct node **high)
{
    if (!tree) {
        SET(*low, NULL);
        SET(*high, NULL);
    } else if (tree->key < key) {
        SET(*low, tree);
        split(tree->right, key, &tree->right, high);
    } else {
        SET(*high, tree);
        split(tree->left, key, low, &tree->left);
    }
}

static struct node *merge(struct node *low, struct node *high)
{
    if (!low || !high)
        return low ? low : high;
    if (priority(low->key) >= priority(high->key)) {
        struct node *below = merge(low->right, high);
        SET(low->right, below);
        return low;
    }
    struct node *below = merge(low, high->left);
    SET(high->left, below);
    return high;
}

static void toggle(struct map *map, uint64_t key, uint64_t value)
{
    struct node **link = &map->root, *node;

    while (*link && (*link)->key != key && priority((*link)->key) >= priority(key))
        link = key < (*link)->key ? &(*link)->left : &(*link)->right;
    if (*link && (*link)->key == key) {
        node = *link;
        SET(*link, merge(node->left, node->right));
        must(vista_free(v, node), "free");
        SET(map->len, map->len - 1);
        return;
    }
    node = vista_malloc(v, heap, sizeof *node);
    if (!node)
        fail("malloc", vista_error(v));
    /* Fresh: what is stored here needs no saving, though split saves its two links all the same. */
    *node = (struct node){key, value, NULL, NULL};
    split(*link, key, &node->left, &node->right);
    SET(*link, node);
    SET(map->len, map->len + 1);
}

static uint64_t key_of(uint64_t step)
{
    return step % KEYS * 371 % KEYS;
}

/* Walks in order; each key must be there exactly if its last turn inserted it. */
static uint64_t walk(const struct node *node, const uint64_t *values, int64_t *last)
{
    uint64_t count;
    if (!node)
        return 0;
    count = walk(node->left, values, last);
    if ((int64_t)node->key <= *last || node->key >= KEYS || values[node->key] != node->value)
        fail("inconsistent", "a key is out of order, or has a value it should not have");
    *last = (int64_t)node->key;
    return count + 1 + walk(node->right, values, last);
}

static void check(const struct map *map, uint64_t acknowledged)
{
    uint64_t values[KEYS], steps = map->transactions * TOGGLES, turn, wanted = 0;
    int64_t last = -1;

    if (map->transactions < acknowledged || map->transactions > acknowledged + 1)
        fail("inconsistent", "an acknowledged transaction is lost");
    memset(values, 0xff, sizeof values);
    for (turn = 0; turn < KEYS; turn++) {
        uint64_t turns = steps / KEYS + (turn < steps % KEYS);
        if (turns % 2 == 1) {
            values[key_of(turn)] = (turns - 1) * KEYS + turn;
            wanted++;
        }
    }
    if (walk(map->root, values, &last) != wanted || map->len != wanted)
        fail("inconsistent", "keys are missing");
}

static void announce(uint64_t done)
{
    if (write(1, &done, sizeof done) < 0)
        return; /* whoever watched is gone: no reason to stop */
}

int main(int argc, char **argv)
{
    uint64_t count = UINT64_MAX, step;
    enum vista_rio rio = VISTA_TMPFS;
    struct map *map;

    if (argc < 4) {
        fprintf(stderr, "usage: ordered_map IMAGE RIO ACKNOWLEDGED [TRANSACTIONS]\n");
        return 2;
    }
    if (strcmp(argv[2], "disk") == 0)
        rio = VISTA_DISK;
    if (strcmp(argv[2], "pmem") == 0)
        rio = VISTA_PMEM;
    if (argc > 4)
        count = strtoull(argv[4], NULL, 10);

    v = vista_init(argv[1], rio, 1 << 20);
    if (!v)
        fail("open", vista_error(NULL));
    heap = vista_map(v, "nodes", 1 << 20, ADDRESS, VISTA_HEAP);
    if (!heap)
        fail("map", vista_error(v));
    map = vista_root(v, heap);
    if (!map) {
        must(vista_begin_transaction(v), "begin");
        map = vista_malloc(v, heap, sizeof *map);
        if (!map)
            fail("malloc", vista_error(v));
        *map = (struct map){0, 0, NULL};
        must(vista_set_root(v, heap, map), "set_root");
        must(vista_end_transaction(v), "end");
    }
    check(map, strtoull(argv[3], NULL, 10));
    announce(map->transactions);
    while (count-- > 0) {
        must(vista_begin_transaction(v), "begin");
        for (step = 0; step < TOGGLES; step++) {
            uint64_t turn = map->transactions * TOGGLES + step;
            toggle(map, key_of(turn), turn);
        }
        SET(map->transactions, map->transactions + 1);
        must(vista_end_transaction(v), "end");
        announce(map->transactions);
    }
    check(map, map->transactions);
    vista_close(v);
    return 0;
}
