int main(void)
{
    char line[128];
    int number = 0;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        say("line %d: %s", ++number, line);
    }
    say("ok");
    return 0;
}
