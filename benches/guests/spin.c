/*
 * spin MB
 *
 * Holds MB of written memory and reads the clock without pause, writing one
 * page. Twenty times a second, and at once after a gap of more than 2 ms, it
 * writes a line: the time, and the longest gap between two readings since the
 * line before: how long it stood still, as it sees it itself.
 */
#include "clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, LONG_GAP_NS = 2000000, WINDOW_NS = 50000000 };

int main(int argc, char **argv)
{
    size_t pages = (argc > 1 ? strtoul(argv[1], 0, 10) : 1) << 8;
    char *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 3;
    for (size_t page = 0; page < pages; page++)
        memset(memory + page * PAGE, (int)(page % 251) + 1, PAGE);

    unsigned long last = now_ns(), window = last, longest = 0;
    for (;;) {
        unsigned long now = now_ns();
        if (now - last > longest)
            longest = now - last;
        last = now;
        memory[0]++;
        if (now - window < WINDOW_NS && longest < LONG_GAP_NS)
            continue;
        char line[64];
        int length = snprintf(line, sizeof line, "%lu %lu\n", now, longest);
        if (write(1, line, (size_t)length) != length)
            return 4;
        window = now;
        longest = 0;
    }
}
