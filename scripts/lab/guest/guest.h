/* The parts of the guest: a platform (pv.c or pvh.c) under rings.c under guest.c. */
#ifndef GUEST_H
#define GUEST_H

#include "xen.h"

/* Most memory the guest takes, in pages: what there is beyond is left alone. */
#define MAX_PAGES 16384

/* Most vCPUs that work: there may be more, which stay down. */
#define MAX_VCPUS 4
#define STACK_SIZE 16384

/*
 * The platform fills this at start and, after a suspend, what of it changed. Memory is mapped where its PFN says:
 * page p at p << PAGE_SHIFT.
 */
struct platform {
	struct shared_info *shared;
	struct console_ring *console;
	struct xenstore_ring *store;
	uint32_t console_port, store_port;
	unsigned long first, end; /* PFNs of the memory that nobody else uses */
	char cmdline[256];
};
extern struct platform platform;

/* platform_start is the platform's part of the start, with what the entry point was given. */
void platform_start(unsigned long info);

/* platform_suspend stops until the toolstack lets the guest go on: true, here and as before; false, as a new domain. */
int platform_suspend(void);

/*
 * platform_start_vcpu starts vCPU n in run_vcpu(n), on the stack below stack_end. Other vCPUs than the first touch neither
 * shared_info nor rings while the first suspends; Xen stops them where they are.
 */
void platform_start_vcpu(unsigned int n, char *stack_end);
void run_vcpu(unsigned long n) __attribute__((noreturn));

uint64_t system_time(void); /* ns since the host's start */
uint64_t wall_time(void);   /* ns since 1970, by the host's clock */
void wait_event(uint64_t until); /* that, or xenstored */
void wait_until(uint64_t until);
void shutdown(unsigned int reason) __attribute__((noreturn));
void crash(const char *why) __attribute__((noreturn));

void print(const char *text);
void print_number(uint64_t n);

/* The xenstore client. store_read gives the value's length, or -1. Requests wait for their reply. */
void store_watch(const char *path);
int store_read(const char *path, char *value, unsigned int size);
void store_write(const char *path, const char *value);
int store_fired(void);  /* did the watch fire since the last call? */
void store_restart(void); /* forget what a xenstored of the past may have left in the ring */

/* begin is where the entry points go on, with what they were given. */
void begin(unsigned long info) __attribute__((noreturn));

static inline void *page_at(unsigned long pfn) { return (void *)(pfn << PAGE_SHIFT); }

static inline unsigned int length(const char *text)
{
	unsigned int n = 0;
	while (text[n])
		n++;
	return n;
}

static inline int begins_with(const char *text, const char *with)
{
	while (*with && *text == *with)
		text++, with++;
	return !*with;
}

static inline void copy_text(char *to, const char *from, unsigned int size)
{
	unsigned int i;
	for (i = 0; i + 1 < size && from[i]; i++)
		to[i] = from[i];
	to[i] = 0;
}

#endif
