int main(void)
{
    struct rlimit none = {0};
    setrlimit(RLIMIT_CORE, &none);
    for (int n = 1; n <= 50; n++)
        say("%d", n);
    kill(getpid(), SIGTERM);
    say("not reached");
    return 0;
}
