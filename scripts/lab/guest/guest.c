/*
 * The workload: every vCPU writes to pages of its own all the time, keeps for each how often, and proves at every beat that all
 * of them hold what they must:
 *
 *	BEAT n vcpus=C writes=W suspended=S resumed=R away_ns=T proof=OK
 *
 * S counts the suspends, R those that it came back from as a new domain and not, cancelled, where it was; T is how long the last
 * one took.
 * A page's contents are a function of its PFN and of how often it was written, so that a page which was lost, kept from an
 * earlier time or put in another's place does not pass; the sum of the counts must be the number of writes, so that the
 * counts do not either.
 *
 * Words of the command line: rate=N pages written each tick, by all vCPUs together (8), tick=N ms (10), beat=N ms (250), p2m=tree (PV),
 * drivers=no (PVH: none that a toolstack could ask for a suspend).
 */
#include "guest.h"

struct platform platform;

static uint32_t counts[MAX_PAGES];
static uint64_t beats, suspended, resumed, away;
static uint32_t rate, tick; /* pages that each vCPU writes, and how often, in ms */

/* A bad page: its contents are those of an earlier count, or of none that was looked for. */
struct bad {
	unsigned long pfn;
	uint32_t count, back;
};

/* A worker is a vCPU: page i of its own is that with i * vcpus + its number pages behind the first. */
static struct worker {
	uint64_t writes;
	uint32_t state;
	struct bad bad[4]; /* what its last proof found, and how many in all */
	unsigned int bads;

	/* The page that is being written, 0 for none, and what it makes of the counts: a vCPU that begins anew does it once more. */
	volatile unsigned long filling;
	uint32_t filling_count;
	uint64_t filling_writes;

	volatile uint32_t asked, proved; /* the first vCPU asks for proofs */
	volatile int reads_clock;
} workers[MAX_VCPUS];
static unsigned int vcpus = 1;
static volatile int suspending; /* the clock is not to be read by other vCPUs than the first */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* seed is where the contents of a page begin. Word i is seed + i * step: any two of a page differ, and so do any two pages. */
static uint64_t seed(unsigned long pfn, uint32_t count) { return mix((uint64_t)pfn << 32 | count); }
#define STEP 0x9e3779b97f4a7c15ull

static void fill(unsigned long pfn)
{
	uint64_t *page = page_at(pfn), word = seed(pfn, counts[pfn]);
	unsigned int i;
	for (i = 0; i < PAGE_SIZE / 8; i++, word += STEP)
		page[i] = word;
}

static int holds(unsigned long pfn, uint32_t count)
{
	const volatile uint64_t *page = page_at(pfn);
	uint64_t word = seed(pfn, count);
	unsigned int i;
	for (i = 0; i < PAGE_SIZE / 8; i++, word += STEP)
		if (page[i] != word)
			return 0;
	return 1;
}

static unsigned long own(unsigned int n, unsigned long i) { return platform.first + i * vcpus + n; }

/* finish writes the page that a worker is at. */
static void finish(struct worker *w)
{
	unsigned long pfn = w->filling;
	counts[pfn] = w->filling_count;
	w->writes = w->filling_writes;
	fill(pfn);
	mb();
	w->filling = 0;
}

/* write_some writes as many pages as a tick takes. Most writes go to a sixteenth of the memory, as those of real programs do. */
static void write_some(unsigned int n)
{
	struct worker *w = &workers[n];
	uint32_t i, all = (platform.end - platform.first) / vcpus;
	for (i = 0; i < rate; i++) {
		uint32_t span = all;
		unsigned long pfn;
		w->state = w->state * 1664525 + 1013904223;
		if (w->state >> 28)
			span /= 16;
		pfn = own(n, (uint32_t)((uint64_t)(w->state << 4) * span >> 32));
		w->filling_count = counts[pfn] + 1;
		w->filling_writes = w->writes + 1;
		mb();
		w->filling = pfn;
		mb();
		finish(w);
	}
}

/* prove looks whether all of a vCPU's memory is as it should be. */
static void prove(unsigned int n)
{
	struct worker *w = &workers[n];
	unsigned long i, pfn;
	uint64_t sum = 0;
	w->bads = 0;
	for (i = 0; (pfn = own(n, i)) < platform.end; i++) {
		uint32_t was = counts[pfn], back;
		sum += was;
		if (holds(pfn, was))
			continue;
		for (back = 1; back < 64 && back <= was && !holds(pfn, was - back); back++)
			;
		if (w->bads < sizeof w->bad / sizeof *w->bad)
			w->bad[w->bads] = (struct bad){pfn, was, back < 64 && back <= was ? back : 0};
		w->bads++;
	}
	if (sum != w->writes) {
		w->bad[0] = (struct bad){0, sum, 0};
		w->bads++;
	}
}

/* sleep waits for a time, or for xenstored on the first vCPU. */
static void sleep(uint32_t ms) { wait_event(system_time() + ms * 1000000ull); }

/* run_vcpu is what other vCPUs do. While the first suspends they go on writing, until Xen stops them. */
void run_vcpu(unsigned long n)
{
	struct worker *w = &workers[n];
	if (w->filling)
		finish(w);
	for (;;) {
		write_some(n);
		if (w->asked != w->proved) {
			prove(n);
			mb();
			w->proved = w->asked;
		}
		w->reads_clock = 1;
		mb();
		if (!suspending) {
			uint64_t until = system_time() + tick * 1000000ull;
			w->reads_clock = 0;
			wait_until(until);
			continue;
		}
		w->reads_clock = 0;
		hypercall(SCHED_OP, SCHEDOP_yield, 0, 0, 0);
	}
}

/* quiet keeps the other vCPUs from reading the clock, or lets them again. */
static void quiet(int on)
{
	unsigned int n;
	suspending = on;
	mb();
	for (n = 1; n < vcpus; n++)
		while (on && workers[n].reads_clock)
			hypercall(SCHED_OP, SCHEDOP_yield, 0, 0, 0);
}

static void complain(const struct worker *w)
{
	unsigned int i;
	for (i = 0; i < w->bads && i < sizeof w->bad / sizeof *w->bad; i++) {
		print("BAD pfn=");
		print_number(w->bad[i].pfn);
		print(" count=");
		print_number(w->bad[i].count);
		print(w->bad[i].back ? " stale by=" : " foreign, torn, or the sum of counts");
		if (w->bad[i].back)
			print_number(w->bad[i].back);
		print("\n");
	}
}

/* beat has every vCPU prove its memory: one that does not run any more keeps the guest from beating. */
static void beat(void)
{
	unsigned int n, ok = 1;
	uint64_t writes = 0;
	for (n = 1; n < vcpus; n++)
		workers[n].asked++;
	prove(0);
	for (n = 0; n < vcpus; n++) {
		struct worker *w = &workers[n];
		while (w->asked != w->proved)
			sleep(1);
		writes += w->writes;
		ok &= w->bads == 0;
		complain(w);
	}
	print("BEAT ");
	print_number(++beats);
	print(" vcpus=");
	print_number(vcpus);
	print(" writes=");
	print_number(writes);
	print(" suspended=");
	print_number(suspended);
	print(" resumed=");
	print_number(resumed);
	print(" away_ns=");
	print_number(away);
	print(ok ? " proof=OK\n" : " proof=BAD\n");
}

static char stacks[MAX_VCPUS][STACK_SIZE] __attribute__((aligned(16)));

static void start_vcpu(unsigned int n) { platform_start_vcpu(n, stacks[n] + STACK_SIZE); }

/*
 * restart_vcpus starts those that are down: before 4.15 the toolstack resets all but the first when it lets a PV guest run on where
 * it was suspended, but not as cancelled.
 */
static void restart_vcpus(void)
{
	unsigned int n;
	for (n = 1; n < vcpus; n++)
		if (!hypercall(VCPU_OP, VCPUOP_is_up, n, 0, 0)) {
			workers[n].reads_clock = 0;
			start_vcpu(n);
		}
}

static void suspend(void)
{
	uint64_t left = wall_time();
	int cancelled;

	store_write("control/shutdown", "");
	suspended++;
	quiet(1);
	cancelled = platform_suspend();
	quiet(0);
	away = wall_time() - left;
	if (cancelled)
		return;
	resumed++;
	restart_vcpus();
	store_restart();
	store_watch("control/shutdown");
}

/* obey does what the toolstack asks for in xenstore; an empty node says that it is being done. */
static void obey(void)
{
	char word[16];
	if (store_read("control/shutdown", word, sizeof word) <= 0)
		return;
	if (begins_with(word, "suspend")) {
		suspend();
		return;
	}
	store_write("control/shutdown", "");
	shutdown(begins_with(word, "reboot") ? SHUTDOWN_reboot : SHUTDOWN_poweroff);
}

/* option finds a word NAME=NUMBER of the command line. */
static uint32_t option(const char *name, uint32_t value)
{
	const char *w = platform.cmdline;
	for (; *w; w++)
		if ((w == platform.cmdline || w[-1] == ' ') && begins_with(w, name))
			for (value = 0, w += length(name); *w >= '0' && *w <= '9'; w++)
				value = value * 10 + (*w - '0');
	return value;
}

/* start_vcpus starts all vCPUs that there are. */
static void start_vcpus(void)
{
	unsigned int n;
	while (vcpus < MAX_VCPUS && hypercall(VCPU_OP, VCPUOP_is_up, vcpus, 0, 0) >= 0)
		vcpus++;
	rate = (rate + vcpus - 1) / vcpus;
	for (n = 0; n < vcpus; n++)
		workers[n].state = n + 1;
	for (n = 1; n < vcpus; n++)
		start_vcpu(n);
}

void begin(unsigned long info)
{
	uint32_t pause;
	uint64_t due;
	unsigned long pfn;

	platform_start(info);
	rate = option("rate=", 8);
	tick = option("tick=", 10);
	pause = option("beat=", 250);
	for (pfn = platform.first; pfn < platform.end; pfn++)
		fill(pfn);
	print("GUEST-UP pages=");
	print_number(platform.end - platform.first);
	print("\n");
	store_restart();
	store_watch("control/shutdown");
	start_vcpus();
	for (due = 0;;) {
		write_some(0);
		if (system_time() >= due) {
			beat();
			due = system_time() + pause * 1000000ull;
		}
		sleep(tick);
		if (store_fired()) {
			uint64_t was = suspended;
			obey();
			if (suspended != was)
				due = 0; /* the first words after it are a proof */
		}
	}
}
