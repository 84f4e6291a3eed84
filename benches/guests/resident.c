/*
 * resident MB
 *
 * Holds MB of written memory and does what each byte of its input says:
 *   .       answer the time at which the byte was seen
 *   w       read all memory, answer the time when done
 *   + -     write 16 MB more; give the newest 16 MB back
 *   0 .. 9  write that tenth of the memory and checkpoint (0: one page)
 *   t       as 9, and answer how many ns it took for each page
 * Every answer is a line: the CLOCK_MONOTONIC ns, and the sum of what was read.
 */
#include "clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, STEP_PAGES = 4096, STEPS_MAX = 1024 };

static char *steps[STEPS_MAX];
static size_t steps_used, pages_of_step = STEP_PAGES;

static int grow(void)
{
    char *memory = mmap(0, pages_of_step * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || steps_used == STEPS_MAX)
        return -1;
    for (size_t page = 0; page < pages_of_step; page++)
        memset(memory + page * PAGE, (int)(page % 251) + 1, PAGE);
    steps[steps_used++] = memory;
    return 0;
}

static unsigned long walk(void)
{
    unsigned long sum = 0;
    for (size_t step = 0; step < steps_used; step++)
        for (size_t page = 0; page < pages_of_step; page++)
            sum += (unsigned char)steps[step][page * PAGE + 8];
    return sum;
}

/* Every tenth page and its neighbours: a dirty set spread over all memory. */
static void write_tenths(size_t tenths)
{
    static unsigned char generation;
    generation++;
    if (tenths == 0) {
        steps[0][0] = (char)generation;
        return;
    }
    for (size_t step = 0; step < steps_used; step++)
        for (size_t page = 0; page < pages_of_step; page++)
            if (page % 10 < tenths || tenths == 9)
                steps[step][page * PAGE + 100] = (char)generation;
}

int main(int argc, char **argv)
{
    size_t mb = argc > 1 ? strtoul(argv[1], 0, 10) : 16;
    if (mb < 16)
        pages_of_step = mb * 256;
    for (size_t step = 0; step < (mb + 15) / 16; step++)
        if (grow())
            return 3;
    char command;
    while (read(0, &command, 1) == 1) {
        unsigned long seen = now_ns(), sum = 0;
        if (command == 'w') {
            sum = walk();
            seen = now_ns();
        } else if (command == '+') {
            if (grow())
                return 3;
        } else if (command == '-' && steps_used > 1) {
            munmap(steps[--steps_used], pages_of_step * PAGE);
        } else if (command == 't') {
            unsigned long from = now_ns();
            write_tenths(9);
            sum = (now_ns() - from) / (steps_used * pages_of_step);
        } else if (command >= '0' && command <= '9') {
            write_tenths((size_t)(command - '0'));
        }
        if (command != '.' && command != 'w')
            checkpoint();
        char line[64];
        int length = snprintf(line, sizeof line, "%lu %lu\n", seen, sum);
        if (write(1, line, (size_t)length) != length)
            return 4;
    }
    return 0;
}
