/* Two threads that talk over pipes of their own, always with some of the talk inside the pipes; and a pipe that one
 * thread fills and empties for itself. Nothing may be lost, doubled or out of order. */

static int there[2], back[2], heap[2];

static void *answer(void *nothing)
{
    uint32_t value;
    while (read(there[0], &value, sizeof value) == sizeof value) {
        value = mix(value);
        CHECK(write(back[1], &value, sizeof value) == sizeof value);
    }
    close(back[1]);
    return nothing;
}

enum { LONG = 150000, LONGS = 12 };
static int flood[2];

/* Writes that are longer than the pipe has room. */
static void *pour(void *nothing)
{
    static char text[LONG];
    for (int i = 0; i < LONGS; i++) {
        for (int at = 0; at < LONG; at++)
            text[at] = (char)mix(i * LONG + at);
        CHECK(write(flood[1], text, LONG) == LONG);
    }
    close(flood[1]);
    return nothing;
}

static void drink(void)
{
    pthread_t thread;
    char text[7000];
    long total = 0, shown = 0;
    ssize_t count;
    CHECK(!pipe(flood) && pthread_create(&thread, 0, pour, 0) == 0);
    while ((count = read(flood[0], text, sizeof text)) > 0) {
        for (ssize_t at = 0; at < count; at++, total++)
            CHECK(text[at] == (char)mix(total));
        for (; total - shown >= 20000; shown += 20000)
            say("drunk %ld", shown);
    }
    CHECK(total == (long)LONG * LONGS && pthread_join(thread, 0) == 0);
}

int main(void)
{
    pthread_t thread;
    CHECK(!pipe(there) && !pipe(back) && !pipe2(heap, O_NONBLOCK));
    CHECK(pthread_create(&thread, 0, answer, 0) == 0);
    uint32_t sent = 0, heard = 0, value;
    uint64_t sum = 0, put = 0, taken = 0;
    for (int round = 1; round <= 4 * ROUNDS; round++) {
        while (sent < (uint32_t)round * 25) {
            value = ++sent;
            CHECK(write(there[1], &value, sizeof value) == sizeof value);
        }
        /* Some answers wait until the next round. */
        while (heard + round % 9 < sent) {
            CHECK(read(back[0], &value, sizeof value) == sizeof value);
            CHECK(value == (uint32_t)mix(++heard));
            sum = mix(sum + value);
        }
        for (int i = 0; i < round % 5 && put - taken < 40; i++) {
            char text[900];
            memset(text, 'a' + put % 26, sizeof text);
            CHECK(write(heap[1], text, sizeof text) == sizeof text);
            put++;
        }
        for (int i = 0; i < round % 4 && taken < put; i++) {
            char text[900];
            CHECK(read(heap[0], text, sizeof text) == sizeof text);
            CHECK(text[0] == (char)('a' + taken % 26) && text[899] == text[0]);
            taken++;
        }
        say("round %d: %u %u %llu %llu %016llx", round, sent, heard, (unsigned long long)put,
            (unsigned long long)taken, (unsigned long long)sum);
    }
    close(there[1]);
    while (read(back[0], &value, sizeof value) == sizeof value)
        CHECK(value == (uint32_t)mix(++heard));
    CHECK(heard == sent);
    CHECK(pthread_join(thread, 0) == 0);
    drink();
    say("ok");
    return 0;
}
