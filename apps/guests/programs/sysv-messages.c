#include <sys/msg.h>
#include <sys/wait.h>
/* A server with requests of two urgencies, a queue that is full, and one that goes while somebody waits. */
struct message {
    long type;
    char text[3000];
};
static int queue, answers;
static void put(int to, long type, const char *text, int len)
{
    struct message m = {.type = type};
    memcpy(m.text, text, len);
    CHECK(msgsnd(to, &m, len, 0) == 0);
}
static int take(int from, long type, struct message *m)
{
    ssize_t len = msgrcv(from, m, sizeof m->text, type, 0);
    CHECK(len >= 0);
    m->text[len] = 0;
    return len;
}
int main(void)
{
    CHECK((queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600)) >= 0);
    CHECK((answers = msgget(IPC_PRIVATE, IPC_CREAT | 0600)) >= 0);
    struct message m;
    pid_t child = fork();
    if (child == 0) {
        for (int n = 0;; n++) {
            int len = take(queue, -9, &m);
            if (m.type == 9)
                exit(n);
            for (int i = 0; i < len; i++)
                m.text[i] ^= 0x20;
            put(answers, m.type, m.text, len);
        }
    }
    for (int r = 1; r <= ROUNDS; r++) {
        char text[64];
        int len = sprintf(text, "Request%d", r);
        put(queue, 1 + r % 2, text, len);
        put(queue, 3, "low", 3);
        take(answers, 1 + r % 2, &m);
        say("round %d: %s", r, m.text);
        take(answers, 3, &m);
        compute(20);
    }
    put(queue, 9, "", 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 2 * ROUNDS);
    /* Full, and taken out of the middle. */
    static char much[3000];
    memset(much, 'x', sizeof much);
    int n = 0;
    for (m.type = 7; msgsnd(queue, &m, sizeof m.text, IPC_NOWAIT) == 0; n++)
        ;
    CHECK(errno == EAGAIN && n == 5);
    put(queue, 5, "small", 5);
    /* Looked at by place, and found by place among all queues, as ipcs does. */
    CHECK(msgrcv(queue, &m, sizeof m.text, 5, 040000 | IPC_NOWAIT) == 5 && m.type == 5);
    CHECK(msgrcv(queue, &m, sizeof m.text, 6, 040000 | IPC_NOWAIT) == -1 && errno == ENOMSG);
    CHECK(msgrcv(queue, &m, sizeof m.text, 0, 040000) == -1 && errno == EINVAL);
    struct msginfo info;
    struct msqid_ds other;
    int last = msgctl(0, MSG_INFO, (struct msqid_ds *)&info), seen = 0;
    for (int i = 0; i <= last; i++)
        seen += msgctl(i, MSG_STAT, &other) == queue && other.msg_qnum == 6;
    CHECK(last >= 1 && seen == 1 && msgctl(0, IPC_INFO, (struct msqid_ds *)&info) == last && info.msgmax == 8192);
    m.type = 7;
    struct msqid_ds ds;
    CHECK(msgctl(queue, IPC_STAT, &ds) == 0 && ds.msg_qnum == 6 && ds.msg_qbytes == 16384);
    CHECK(msgrcv(queue, &m, 2, 5, 0) == -1 && errno == E2BIG);
    CHECK(msgrcv(queue, &m, 2, 5, MSG_NOERROR) == 2);
    child = fork();
    if (child == 0) {
        /* Waits for room. */
        put(queue, 8, much, 3000);
        exit(0);
    }
    for (int i = 0; i < 5; i++) {
        take(queue, 7, &m);
        say("took %d", i);
    }
    CHECK(take(queue, 8, &m) == 3000 && m.text[2999] == 'x');
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(msgrcv(queue, &m, 100, 0, IPC_NOWAIT) == -1 && errno == ENOMSG);
    for (int i = 0; i < 1500; i++)
        put(queue, 1 + i % 2, (char *)&i, 4);
    int sum = 0;
    for (int i = 0; i < 750; i++) {
        take(queue, 2, &m);
        sum += *(int *)m.text;
    }
    say("sum %d", sum);
    child = fork();
    if (child == 0) {
        CHECK(msgrcv(answers, &m, 100, 0, 0) == -1 && errno == EIDRM);
        exit(6);
    }
    usleep(20000);
    CHECK(msgctl(answers, IPC_RMID, NULL) == 0 && msgctl(queue, IPC_RMID, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    say("ok");
    return 0;
}
