/* A load of BEP 15 announces: keeps IN_FLIGHT requests under way for SECONDS, then says how many
 * were answered. It speaks for PEERS peers, 32 of each address in 127.1.0.0/16, so the tracker must
 * be on loopback. Usage: load PORT IN_FLIGHT SECONDS PEERS TORRENTS [FIRST STRIDE]
 * Torrents are numbered from FIRST (0) on, by STRIDE (1).
 * Prints: answered lost mean_answer_bytes longest_wait_ms
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 256
#define REQUEST 98
#define ANSWER 2048
#define PER_ADDRESS 32
#define MOST_ADDRESSES 32768
#define MARKED 65536 /* requests whose moment is kept; a power of two */

static double clock_now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static unsigned char requests[BATCH][REQUEST], answers[BATCH][ANSWER];
static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_part[BATCH], in_part[BATCH];
static union { char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))]; struct cmsghdr align; } from[BATCH];
static struct sockaddr_in to;
static uint64_t next_number;
static long peers, torrents, first = 0, stride = 1;
static unsigned char ids[MOST_ADDRESSES][8];
static double asked_at[MARKED];

static void put32(unsigned char *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, 4);
}

static void speak_for(int row, long address) {
    struct cmsghdr *head = &from[row].align;
    struct in_pktinfo *source = (void *)CMSG_DATA(head);
    *head = (struct cmsghdr){CMSG_LEN(sizeof *source), IPPROTO_IP, IP_PKTINFO};
    *source = (struct in_pktinfo){.ipi_spec_dst.s_addr = htonl(0x7f010001 + address)};
}

static void fill(int row) {
    unsigned char *at = requests[row];
    uint64_t number = next_number++;
    long address = number % peers / PER_ADDRESS;
    speak_for(row, address);
    memset(at, 0, REQUEST);
    memcpy(at, ids[address], 8);
    put32(at + 8, 1);
    put32(at + 12, (uint32_t)number);
    memset(at + 16, 'T', 20);
    uint32_t torrent = first + stride * (number % torrents); /* its first byte differs, as infohashes' do */
    for (int byte = 0; byte < 4; byte++) at[16 + byte] = torrent >> 8 * byte;
    memset(at + 36, 'P', 20);
    put32(at + 36, (uint32_t)(number % peers));
    put32(at + 64 + 4, number % 2);               /* left */
    put32(at + 92, 30);                           /* num_want */
    uint16_t port = htons(1024 + number % peers % 60000);
    memcpy(at + 96, &port, 2);
}

int main(int count, char **words) {
    if (count != 6 && count != 8) return 2;
    if (count == 8) first = atol(words[6]), stride = atol(words[7]);
    to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    long in_flight = atol(words[2]);
    double seconds = atof(words[3]);
    peers = atol(words[4]), torrents = atol(words[5]);
    if (peers < 1 || peers > (long)PER_ADDRESS * MOST_ADDRESSES || torrents < 1) return 2;
    int sock = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct pollfd ready = {.fd = sock, .events = POLLIN};
    for (int at = 0; at < BATCH; at++) {
        out_part[at] = (struct iovec){requests[at], REQUEST};
        in_part[at] = (struct iovec){answers[at], ANSWER};
        out[at].msg_hdr = (struct msghdr){&to, sizeof to, &out_part[at], 1, &from[at], sizeof from[at], 0};
        in[at].msg_hdr = (struct msghdr){.msg_iov = &in_part[at], .msg_iovlen = 1};
    }
    for (long address = 0; address <= (peers - 1) / PER_ADDRESS; address++) {
        unsigned char hello[16] = {0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80}, heard[16];
        speak_for(0, address);
        memcpy(requests[0], hello, sizeof hello);
        out_part[0].iov_len = sizeof hello;
        if (sendmsg(sock, &out[0].msg_hdr, 0) != 16 || poll(&ready, 1, 2000) != 1) return 1;
        if (recv(sock, heard, sizeof heard, 0) != 16) return 1;
        memcpy(ids[address], heard + 8, 8);
    }
    out_part[0].iov_len = REQUEST;
    long under_way = 0, answered = 0, lost = 0, bytes = 0;
    double end = clock_now() + seconds, now, longest = 0;
    while ((now = clock_now()) < end) {
        while (under_way < in_flight) {
            long free = in_flight - under_way, some = free < BATCH ? free : BATCH;
            for (long at = 0; at < some; at++) asked_at[next_number % MARKED] = now, fill(at);
            int sent = sendmmsg(sock, out, some, 0);
            if (sent <= 0) break;
            under_way += sent;
        }
        if (poll(&ready, 1, 200) != 1) {          /* a whole window was lost */
            lost += under_way;
            under_way = 0;
            continue;
        }
        int got = recvmmsg(sock, in, BATCH, MSG_DONTWAIT, NULL);
        double heard_at = clock_now();
        for (int at = 0; at < got; at++) {
            uint32_t mark;
            memcpy(&mark, answers[at] + 4, 4);
            double waited = heard_at - asked_at[ntohl(mark) % MARKED];
            if (waited > longest) longest = waited;
            if (answers[at][3] == 1) answered++, bytes += in[at].msg_len;
            else lost++;
        }
        if (got > 0) under_way = under_way > got ? under_way - got : 0;
    }
    double mean = answered ? (double)bytes / answered : 0.0;
    printf("%ld %ld %.1f %.2f\n", answered, lost, mean, longest * 1000);
    return 0;
}
