/* Asks for the time as often as it is told, and says so: its log grows by so many records. */
#include <stdio.h>
#include <time.h>

int main(void)
{
    long wanted, sum = 0;
    while (scanf("%ld", &wanted) == 1) {
        struct timespec t;
        for (long i = 0; i < wanted; i++) {
            clock_gettime(CLOCK_MONOTONIC, &t);
            sum += t.tv_nsec;
        }
        printf("%ld %ld\n", wanted, sum);
        fflush(stdout);
    }
    return 0;
}
