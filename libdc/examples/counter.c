/*
 * Counts, one number a second, and does not begin again when it is killed.
 *
 *   cargo build -p libdc -p dcrun
 *   cc -Ilibdc/include libdc/examples/counter.c -o target/debug/counter-c \
 *      target/debug/libdc.a -lpthread -ldl
 *   target/debug/counter-c        # in another terminal: pkill -9 -x counter-c
 */
#include <dc.h>
#include <stdio.h>
#include <unistd.h>

static void at_recovery(void *argument)
{
    int *recoveries = argument;
    *recoveries += 1;
}

int main(void)
{
    int recoveries = 0;

    if (dc_init("counter-c.state") != 0 || dc_at_recovery(at_recovery, &recoveries) != 0) {
        perror("counter: cannot be made recoverable");
        return 1;
    }
    for (int number = 1; number <= 60; number++) {
        printf("%d (recovered %d times)\n", number, recoveries);
        fflush(stdout);
        if (dc_checkpoint() != 0) {
            perror("counter: checkpoint");
            return 1;
        }
        sleep(1);
    }
    return 0;
}
