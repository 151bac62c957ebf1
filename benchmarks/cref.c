/* The least that a client in C can do: an epoll loop that reads streams and notes when their bytes arrived.
 *
 * cref PORT STREAMS START_S SPREAD_S MEASURE_S RESULT < request
 *
 * It keeps STREAMS streams open, each started at a random time within SPREAD_S after START_S from now. From
 * SPREAD_S + 1 s after START_S on, it measures itself for MEASURE_S and writes its result as JSON. It reads as
 * our client does, with the kernel's timestamps (recvmsg, SO_TIMESTAMPING), but parses nothing: a response ends
 * with the last chunk. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define END "0\r\n\r\n"
#define END_BYTES 5

struct stream {
    int sock;
    double start_s;
    int64_t last_ns; /* arrival of the latest bytes */
};

static char request[65536];
static size_t request_bytes;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_request(struct stream *stream) {
    if (send(stream->sock, request, request_bytes, 0) != (ssize_t)request_bytes) fail("send");
}

/* Read once. Return whether the response has ended. */
static int read_once(struct stream *stream) {
    static char data[65536];
    char control[256];
    struct iovec part = {data, sizeof data};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t size = recvmsg(stream->sock, &message, 0);
    if (size < 0 && errno == EAGAIN) return 0;
    if (size <= 0) fail("recvmsg");
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SO_TIMESTAMPING) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
            stream->last_ns = stamp.tv_sec * INT64_C(1000000000) + stamp.tv_nsec;
        }
    return size >= END_BYTES && memcmp(data + size - END_BYTES, END, END_BYTES) == 0;
}

static void connect_stream(struct stream *stream, int port, int epoll) {
    int on = 1, stamps = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    stream->sock = socket(AF_INET, SOCK_STREAM, 0);
    if (stream->sock < 0 || connect(stream->sock, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(stream->sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(stream->sock, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps);
    fcntl(stream->sock, F_SETFL, O_NONBLOCK);
    epoll_ctl(epoll, EPOLL_CTL_ADD, stream->sock, &event);
}

static int by_start(const void *a, const void *b) {
    double first = ((const struct stream *)a)->start_s, second = ((const struct stream *)b)->start_s;
    return (first > second) - (first < second);
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    int port = atoi(arguments[1]), streams = atoi(arguments[2]), epoll = epoll_create1(0), started = 0;
    double from_s = now_s() + atof(arguments[3]), spread_s = atof(arguments[4]);
    double begin_s = from_s + spread_s + 1, end_s = begin_s + atof(arguments[5]);
    double measured_s = 0, used_s = 0, time_s;
    long ended = 0;
    struct stream *all = calloc(streams, sizeof *all);
    struct epoll_event ready[256];

    request_bytes = fread(request, 1, sizeof request, stdin);
    for (int i = 0; i < streams; i++) all[i].start_s = from_s + spread_s * (random() / (double)RAND_MAX);
    qsort(all, streams, sizeof *all, by_start);
    for (int i = 0; i < streams; i++) connect_stream(&all[i], port, epoll);
    while ((time_s = now_s()) < end_s) {
        if (!measured_s && time_s >= begin_s) measured_s = time_s, used_s = cpu_s(), ended = 0;
        while (started < streams && time_s >= all[started].start_s) send_request(&all[started++]);
        int events = epoll_wait(epoll, ready, 256, started < streams ? 1 : 100);
        for (int i = 0; i < events; i++)
            if (read_once(ready[i].data.ptr)) {
                ended++;
                send_request(ready[i].data.ptr);
            }
    }
    used_s = cpu_s() - used_s;
    FILE *result = fopen(arguments[6], "w");
    if (!result) fail(arguments[6]);
    fprintf(result, "%.0f %.0f %.6f %ld\n", measured_s * 1e9, now_s() * 1e9, used_s, ended);
    return fclose(result);
}
