static uint64_t descend(int depth, uint64_t seed)
{
    volatile unsigned char frame[3000];
    for (size_t i = 0; i < sizeof frame; i += 100)
        frame[i] = mix(seed + i);
    if (depth % 100 == 0)
        say("depth %d", depth);
    uint64_t below = depth ? descend(depth - 1, mix(seed)) : 1;
    for (size_t i = 0; i < sizeof frame; i += 100)
        CHECK(frame[i] == (unsigned char)mix(seed + i));
    return mix(below + frame[0]);
}

int main(void)
{
    for (int r = 1; r <= 6; r++)
        say("round %d %016llx", r, (unsigned long long)descend(r * 200, r));
    say("ok");
    return 0;
}
