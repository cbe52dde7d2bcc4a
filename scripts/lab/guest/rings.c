/* Time, the console and the xenstore client. */
#include "guest.h"

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;
	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

uint64_t system_time(void)
{
	volatile struct vcpu_time_info *t = &platform.shared->vcpu_info[0].time;
	uint32_t version, mul;
	uint64_t delta, now;
	do {
		version = t->version;
		mb();
		delta = rdtsc() - t->tsc_timestamp;
		delta = t->tsc_shift < 0 ? delta >> -t->tsc_shift : delta << t->tsc_shift;
		mul = t->tsc_to_system_mul;
		now = t->system_time + (delta >> 32) * mul + ((delta & 0xffffffff) * mul >> 32);
		mb();
	} while (version & 1 || version != t->version);
	return now;
}

uint64_t wall_time(void)
{
	volatile struct shared_info *s = platform.shared;
	uint32_t version;
	uint64_t start;
	do {
		version = s->wc_version;
		mb();
		start = (uint64_t)s->wc_sec * 1000000000 + s->wc_nsec;
		mb();
	} while (version & 1 || version != s->wc_version);
	return start + system_time();
}

/* wait_event gives the CPU away until xenstored speaks or a time has come. */
void wait_event(uint64_t until)
{
	uint32_t port = platform.store_port;
	struct sched_poll p = {&port, 1, until};
	unsigned long bits = 8 * sizeof(long);
	hypercall(SCHED_OP, SCHEDOP_poll, (unsigned long)&p, 0, 0);
	__sync_fetch_and_and(&platform.shared->evtchn_pending[port / bits], ~(1ul << port % bits));
}

/* wait_until gives the CPU away until a time has come. */
void wait_until(uint64_t until)
{
	struct sched_poll p = {NULL, 0, until};
	hypercall(SCHED_OP, SCHEDOP_poll, (unsigned long)&p, 0, 0);
}

void shutdown(unsigned int reason)
{
	for (;;)
		hypercall(SCHED_OP, SCHEDOP_shutdown, (unsigned long)&reason, 0, 0);
}

void crash(const char *why)
{
	if (platform.console_port) {
		print("CRASH ");
		print(why);
		print("\n");
	}
	shutdown(SHUTDOWN_crash);
}

static void notify(uint32_t port) { hypercall(EVENT_CHANNEL_OP, EVTCHNOP_send, (unsigned long)&port, 0, 0); }

/* print waits a while for a full ring to be read; what then has no place is lost. */
void print(const char *text)
{
	volatile struct console_ring *c = platform.console;
	uint32_t prod = c->out_prod;
	int patience = 1000;
	for (; *text; text++) {
		while (prod - c->out_cons >= sizeof c->out && patience-- > 0) {
			notify(platform.console_port);
			hypercall(SCHED_OP, SCHEDOP_yield, 0, 0, 0);
		}
		if (prod - c->out_cons >= sizeof c->out)
			break;
		c->out[prod++ % sizeof c->out] = *text;
		mb();
		c->out_prod = prod;
	}
	notify(platform.console_port);
}

void print_number(uint64_t n)
{
	static const uint64_t tens[] = {1000000000000000ull, 100000000000000ull, 10000000000000ull, 1000000000000ull,
		100000000000ull, 10000000000ull, 1000000000ull, 100000000ull, 10000000ull, 1000000ull, 100000ull, 10000ull,
		1000ull, 100ull, 10ull, 1ull}; /* no division: 32-bit code would need a library for it */
	char text[17], *p = text;
	unsigned int i;
	for (i = 0; i < sizeof tens / sizeof *tens; i++) {
		char digit = '0';
		while (n >= tens[i])
			n -= tens[i], digit++;
		if (digit != '0' || p > text || tens[i] == 1)
			*p++ = digit;
	}
	*p = 0;
	print(text);
}

/* ring_write and ring_read wait for room and for octets. */
static void ring_write(const void *data, uint32_t len)
{
	volatile struct xenstore_ring *s = platform.store;
	const char *from = data;
	while (len) {
		if (s->req_prod - s->req_cons == sizeof s->req) {
			wait_event(system_time() + 10000000);
			continue;
		}
		s->req[s->req_prod % sizeof s->req] = *from++;
		mb();
		s->req_prod++;
		len--;
	}
}

static void ring_read(void *data, uint32_t len)
{
	volatile struct xenstore_ring *s = platform.store;
	char *to = data;
	while (len) {
		if (s->rsp_prod == s->rsp_cons) {
			notify(platform.store_port);
			wait_event(system_time() + 10000000);
			continue;
		}
		mb();
		*to++ = s->rsp[s->rsp_cons % sizeof s->rsp];
		mb();
		s->rsp_cons++;
		len--;
	}
	notify(platform.store_port);
}

static int fired;

/* receive takes a message whose payload is at most size octets long; the rest of a longer one is thrown away. */
static void receive(struct xenstore_header *h, char *payload, uint32_t size)
{
	char c;
	uint32_t i;
	ring_read(h, sizeof *h);
	for (i = 0; i < h->len; i++) {
		ring_read(&c, 1);
		if (i < size)
			payload[i] = c;
	}
	fired |= h->type == XS_WATCH_EVENT;
}

/* request sends up to two strings, the first with its end, and returns the reply's length, or -1. */
static int request(uint32_t type, const char *path, const char *rest, uint32_t rest_len, char *reply, uint32_t size)
{
	static uint32_t id;
	uint32_t path_len = length(path) + 1;
	struct xenstore_header h = {type, ++id, 0, path_len + rest_len}, r;
	ring_write(&h, sizeof h);
	ring_write(path, path_len);
	ring_write(rest, rest_len);
	notify(platform.store_port);
	do
		receive(&r, reply, size);
	while (r.type == XS_WATCH_EVENT || r.req_id != id);
	return r.type == XS_ERROR ? -1 : (int)r.len;
}

void store_watch(const char *path) { request(XS_WATCH, path, "w", 2, NULL, 0); }
void store_write(const char *path, const char *value) { request(XS_WRITE, path, value, length(value), NULL, 0); }

int store_read(const char *path, char *value, unsigned int size)
{
	int len = request(XS_READ, path, NULL, 0, value, size - 1);
	value[len < 0 ? 0 : len < (int)size - 1 ? len : (int)size - 1] = 0;
	return len;
}

int store_fired(void)
{
	volatile struct xenstore_ring *s = platform.store;
	struct xenstore_header h;
	int was;
	while (s->rsp_prod != s->rsp_cons)
		receive(&h, NULL, 0);
	was = fired;
	fired = 0;
	return was;
}

void store_restart(void)
{
	volatile struct xenstore_ring *s = platform.store;
	s->req_prod = s->req_cons;
	s->rsp_cons = s->rsp_prod;
	fired = 0;
}
