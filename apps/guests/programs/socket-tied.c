// Sockets bound and connected, again and again: a crash just behind such a call must not make it fail when it is repeated,
// and one that is a mistake still fails.
#include <sys/socket.h>
#include <sys/un.h>

int main(void)
{
    for (int round = 0; round < 200; round++) {
        struct sockaddr_un any = {.sun_family = AF_UNIX}, name = any;
        int server = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK(server >= 0);
        CHECK(bind(server, (struct sockaddr *)&any, sizeof any.sun_family) == 0);
        CHECK(listen(server, 4) == 0);
        socklen_t len = sizeof name;
        CHECK(getsockname(server, (struct sockaddr *)&name, &len) == 0);
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK(client >= 0);
        CHECK(connect(client, (struct sockaddr *)&name, len) == 0);
        CHECK(connect(client, (struct sockaddr *)&name, len) == -1 && errno == EISCONN);
        name.sun_path[1] ^= 1;
        CHECK(bind(server, (struct sockaddr *)&name, len) == -1 && errno == EINVAL);
        CHECK(close(client) == 0 && close(server) == 0);
        if (round % 10 == 9)
            say("round %d", round);
    }
    say("ok");
    return 0;
}
