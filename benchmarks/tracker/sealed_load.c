/* A load of sealed locates: keeps IN_FLIGHT under way for SECONDS, then says how many were answered.
 * Speaks for every node of KEYS (a line each: number, ask key, answer key, in hexadecimal) about every
 * swarm of SWARMS (a line each). Every answer is opened, and must be a redirect with SOURCES sources.
 * Usage: sealed_load PORT IN_FLIGHT SECONDS KEYS SWARMS TICKET SOURCES FIRST
 * FIRST is the counter that every node begins at: each run needs new ones.
 * Prints: answered wrong mean_answer_bytes
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 256
#define ASK 1200
#define HEAD 16
#define TAG 16
#define ROOM 2048
#define MOST 65536

struct node { unsigned char number[7], ask[16], answer[16]; uint64_t counter; EVP_CIPHER_CTX *sealer, *opener; };

static struct node nodes[MOST];
static unsigned char swarms[MOST][32], asks[BATCH][ASK], answers[BATCH][ROOM], body[ROOM];
static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_part[BATCH], in_part[BATCH];
static long node_count, swarm_count, next_ask;
static int wants_ticket;

static double clock_now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static int hex(const char *text, unsigned char *to, int bytes) {
    for (int at = 0; at < bytes; at++)
        if (sscanf(text + 2 * at, "%2hhx", to + at) != 1) return 0;
    return 1;
}

static void put64(unsigned char *at, uint64_t value) {
    for (int byte = 0; byte < 8; byte++) at[byte] = value >> (56 - 8 * byte);
}

static void seal(unsigned char *at) {
    struct node *node = &nodes[next_ask % node_count];
    unsigned char nonce[12] = {0}, said[ASK - HEAD - TAG] = {2, 0, wants_ticket, 0};
    int size;
    memcpy(said + 4, swarms[next_ask / node_count % swarm_count], 32);
    next_ask++;
    at[0] = 8;
    memcpy(at + 1, node->number, 7);
    put64(at + 8, node->counter);
    put64(nonce + 4, node->counter++);
    EVP_EncryptInit_ex(node->sealer, NULL, NULL, NULL, nonce);
    EVP_EncryptUpdate(node->sealer, NULL, &size, at, HEAD);
    EVP_EncryptUpdate(node->sealer, at + HEAD, &size, said, sizeof said);
    EVP_EncryptFinal_ex(node->sealer, at + HEAD + size, &size);
    EVP_CIPHER_CTX_ctrl(node->sealer, EVP_CTRL_GCM_GET_TAG, TAG, at + ASK - TAG);
}

/* The bytes of a body, or -1. A seal's number begins with its place, the line it has in KEYS. */
static int open_answer(unsigned char *at, int size) {
    long place = (long)at[1] << 16 | at[2] << 8 | at[3];
    unsigned char nonce[12] = {0};
    int length, rest;
    if (size < HEAD + TAG || at[0] != 9 || place >= node_count) return -1;
    struct node *node = &nodes[place];
    memcpy(nonce + 4, at + 8, 8);
    EVP_DecryptInit_ex(node->opener, NULL, NULL, NULL, nonce);
    EVP_DecryptUpdate(node->opener, NULL, &length, at, HEAD);
    EVP_DecryptUpdate(node->opener, body, &length, at + HEAD, size - HEAD - TAG);
    EVP_CIPHER_CTX_ctrl(node->opener, EVP_CTRL_GCM_SET_TAG, TAG, at + size - TAG);
    return EVP_DecryptFinal_ex(node->opener, body + length, &rest) == 1 ? length : -1;
}

static EVP_CIPHER_CTX *cipher(const unsigned char *key, int seals) {
    EVP_CIPHER_CTX *made = EVP_CIPHER_CTX_new();
    EVP_CipherInit_ex(made, EVP_aes_128_gcm(), NULL, key, NULL, seals);
    return made;
}

int main(int count, char **words) {
    char line[256], number[32], ask[64], answer[64];
    if (count != 9) return 2;
    FILE *file = fopen(words[4], "r");
    while (file && node_count < MOST && fscanf(file, "%31s %63s %63s", number, ask, answer) == 3) {
        struct node *node = &nodes[node_count++];
        if (!hex(number, node->number, 7) || !hex(ask, node->ask, 16) || !hex(answer, node->answer, 16)) return 2;
        node->counter = atoll(words[8]);
        node->sealer = cipher(node->ask, 1);
        node->opener = cipher(node->answer, 0);
    }
    file = fopen(words[5], "r");
    while (file && swarm_count < MOST && fscanf(file, "%255s", line) == 1)
        if (!hex(line, swarms[swarm_count++], 32)) return 2;
    if (!node_count || !swarm_count) return 2;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    long in_flight = atol(words[2]), under_way = 0, answered = 0, wrong = 0, bytes = 0;
    double end = clock_now() + atof(words[3]);
    wants_ticket = atoi(words[6]);
    int sources = atoi(words[7]), sock = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct pollfd ready = {.fd = sock, .events = POLLIN};
    for (int at = 0; at < BATCH; at++) {
        out_part[at] = (struct iovec){asks[at], ASK};
        in_part[at] = (struct iovec){answers[at], ROOM};
        out[at].msg_hdr = (struct msghdr){&to, sizeof to, &out_part[at], 1, NULL, 0, 0};
        in[at].msg_hdr = (struct msghdr){.msg_iov = &in_part[at], .msg_iovlen = 1};
    }
    while (clock_now() < end) {
        while (under_way < in_flight) {
            long free = in_flight - under_way, some = free < BATCH ? free : BATCH;
            for (long at = 0; at < some; at++) seal(asks[at]);
            int sent = sendmmsg(sock, out, some, 0);
            if (sent <= 0) break;
            under_way += sent;
        }
        if (poll(&ready, 1, 500) != 1) {          /* a whole window was lost */
            under_way = 0;
            continue;
        }
        int got = recvmmsg(sock, in, BATCH, MSG_DONTWAIT, NULL);
        for (int at = 0; at < got; at++) {
            int length = open_answer(answers[at], in[at].msg_len);
            if (length > 36 && body[0] == 2 && body[2] == sources) answered++, bytes += in[at].msg_len;
            else wrong++;
        }
        if (got > 0) under_way = under_way > got ? under_way - got : 0;
    }
    printf("%ld %ld %.1f\n", answered, wrong, answered ? (double)bytes / answered : 0.0);
    return 0;
}
