static void last(void) { say("at exit"); }

int main(void)
{
    CHECK(atexit(last) == 0);
    for (int n = 1; n <= 50; n++)
        say("%d", n);
    return 7;
}
