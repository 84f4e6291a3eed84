/*
 * commit hot|fresh RESIDENT_MB PAGES INTERVALS
 *
 * The loop of the thesis' figure 5.2: touch PAGES pages, then checkpoint. `hot`
 * touches the same pages in every interval, `fresh` walks through the resident
 * memory, so that each interval finds other pages. Prints for each interval the
 * ns of touching and of the checkpoint, then what the runtime counted.
 */
#include "clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int fresh = strcmp(argv[1], "fresh") == 0;
    size_t resident_pages = strtoul(argv[2], 0, 10) << 8;
    size_t pages = strtoul(argv[3], 0, 10);
    size_t intervals = strtoul(argv[4], 0, 10);
    if (pages > resident_pages)
        return 2;

    char *memory = mmap(0, resident_pages * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* Touching and checkpoint side by side: one page of samples an interval. */
    unsigned(*taken_ns)[2] = calloc(intervals, sizeof *taken_ns);
    if (memory == MAP_FAILED || !taken_ns)
        return 3;
    for (size_t page = 0; page < resident_pages; page++)
        memset(memory + page * PAGE, (int)(page % 251) + 1, PAGE);
    /* The samples shall not be first touched while time is taken. */
    memset(taken_ns, 1, intervals * sizeof *taken_ns);

    /*
     * The first checkpoints save all of it, and find out what is hot; what was
     * hot at the start has cooled after some hundreds.
     */
    size_t warm_up = 20 + (intervals < 400 ? intervals : 400), first = 0;
    unsigned long before[6] = {0}, after[6] = {0};
    for (size_t interval = 0; interval < warm_up + intervals; interval++) {
        if (interval == warm_up)
            statistics(before);
        unsigned long begun = now_ns();
        for (size_t page = first; page < first + pages; page++)
            memory[page * PAGE + 64 * (interval % 64)]++;
        unsigned long touched = now_ns();
        checkpoint();
        unsigned long done = now_ns();
        if (interval >= warm_up) {
            taken_ns[interval - warm_up][0] = (unsigned)(touched - begun);
            taken_ns[interval - warm_up][1] = (unsigned)(done - touched);
        }
        if (fresh) {
            first += pages;
            if (first + pages > resident_pages)
                first = 0;
        }
    }
    statistics(after);

    for (size_t interval = 0; interval < intervals; interval++)
        printf("%u %u\n", taken_ns[interval][0], taken_ns[interval][1]);
    printf("counted %lu %lu %lu\n", after[0] - before[0], after[2] - before[2],
           after[3] - before[3]);
    return 0;
}
