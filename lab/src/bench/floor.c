/* The floor that `cargo xtask bench` compares vsrun with: the same work in as
 * few calls as possible. An error ends it with status 111. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void check(int good) {
    if (!good) _exit(111);
}

static void write_id(const char *path, pid_t pid) {
    char beside[4096], id[32];
    int file;
    snprintf(beside, sizeof beside, "%s.new", path);
    check((file = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) >= 0);
    snprintf(id, sizeof id, "%d\n", pid);
    check(write(file, id, strlen(id)) > 0);
    check(rename(beside, path) == 0);
}

/* Writes a pidfile and executes a program as a user: start USER PIDFILE PROGRAM. */
static void start(char **words) {
    struct passwd *user;
    gid_t groups[256];
    int count = 256, file;
    sigset_t none;

    syscall(SYS_close_range, 3, ~0U, 0);
    for (int number = 1; number < 32; number++) signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    check((user = getpwnam(words[0])) != NULL);
    check(getgrouplist(words[0], user->pw_gid, groups, &count) >= 0);
    write_id(words[1], getpid());
    check((file = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && dup2(file, 0) == 0);
    check(setgroups(count, groups) == 0);
    check(setresgid(user->pw_gid, user->pw_gid, user->pw_gid) == 0);
    check(setresuid(user->pw_uid, user->pw_uid, user->pw_uid) == 0);
    check(setuid(0) != 0);
    execv(words[2], words + 2);
    _exit(126);
}

/* Starts a program in a new session, writes its id to a pidfile, and waits for
 * its exec: background PIDFILE PROGRAM. */
static void background(char **words) {
    int ends[2], null, status;
    pid_t leader, server;
    char byte = 1;
    check((leader = fork()) >= 0);
    if (leader > 0) _exit(waitpid(leader, &status, 0) == leader && status == 0 ? 0 : 111);
    check(setsid() > 0);
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    check((server = fork()) >= 0);
    if (server == 0) {
        close(ends[0]);
        check((null = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && dup2(null, 0) == 0);
        check(read(ends[1], &byte, 1) == 1);
        execv(words[1], words + 1);
        check(write(ends[1], &byte, 1) == 1);
        _exit(126);
    }
    close(ends[1]);
    write_id(words[0], server);
    check(write(ends[0], &byte, 1) == 1);
    _exit(read(ends[0], &byte, 1));
}

/* Restarts a program whenever it dies, until SIGTERM: loop PROGRAM. Runs a
 * handler before each restart: handled HANDLER PROGRAM. */
static pid_t child;
static volatile sig_atomic_t over;
static void on_term(int number) {
    over = 1;
    kill(child, number);
}
static int run(char **words) {
    int status = -1;
    if ((child = fork()) == 0) {
        execv(words[0], words);
        _exit(126);
    }
    while (waitpid(child, &status, 0) < 0 && !over) {
    }
    if (over) waitpid(child, &status, 0);
    return status;
}
static void loop(char *handler, char **words) {
    char *command[] = {handler, NULL};
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    do run(words);
    while (!over && (!handler || run(command) == 0));
    _exit(0);
}

/* The server: writes its id and the time to "stamps", and waits for a signal. */
static void stamp(void) {
    struct timespec now;
    char line[64];
    int file;
    clock_gettime(CLOCK_MONOTONIC, &now);
    check((file = open("stamps", O_WRONLY | O_CREAT | O_APPEND, 0644)) >= 0);
    snprintf(line, sizeof line, "%d %lld\n", getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
    check(write(file, line, strlen(line)) > 0);
    for (;;) pause();
}

int main(int count, char **words) {
    if (count > 4 && strcmp(words[1], "start") == 0) start(words + 2);
    if (count > 3 && strcmp(words[1], "background") == 0) background(words + 2);
    if (count > 2 && strcmp(words[1], "loop") == 0) loop(NULL, words + 2);
    if (count > 3 && strcmp(words[1], "handled") == 0) loop(words[2], words + 3);
    if (strcmp(words[0] + strlen(words[0]) - 3, "run") == 0) stamp();
    return 0;
}
