/*
 * The workload: it writes to pages of its memory all the time, keeps for each how often, and proves at every beat that all
 * of them hold what they must:
 *
 *	BEAT n writes=W suspended=S resumed=R away_ns=T proof=OK
 *
 * S counts the suspends, R those that it came back from as a new domain and not, cancelled, where it was; T is how long the last
 * one took.
 * A page's contents are a function of its PFN and of how often it was written, so that a page which was lost, kept from an
 * earlier time or put in another's place does not pass; the sum of the counts must be the number of writes, so that the
 * counts do not either.
 *
 * Words of the command line: rate=N pages written each tick (8), tick=N ms (10), beat=N ms (250), p2m=tree (PV).
 */
#include "guest.h"

struct platform platform;

static uint32_t counts[MAX_PAGES];
static uint64_t writes, beats, suspended, resumed, away;

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

static void write_page(unsigned long pfn)
{
	counts[pfn]++;
	writes++;
	fill(pfn);
}

/* next draws a page: most writes go to a sixteenth of the memory, as those of real programs do. */
static unsigned long next(void)
{
	static uint32_t state = 1;
	uint32_t span = platform.end - platform.first;
	state = state * 1664525 + 1013904223;
	if (state >> 28)
		span /= 16;
	return platform.first + (uint32_t)((uint64_t)(state << 4) * span >> 32);
}

/* prove says whether all of memory is as it should be, and names the first pages that are not. */
static int prove(void)
{
	unsigned long pfn;
	uint64_t sum = 0;
	unsigned int bad = 0;
	for (pfn = platform.first; pfn < platform.end; pfn++) {
		uint32_t was = counts[pfn], back;
		sum += was;
		if (holds(pfn, was))
			continue;
		if (bad++ > 4)
			continue;
		print("BAD pfn=");
		print_number(pfn);
		print(" count=");
		print_number(was);
		for (back = 1; back < 64 && back <= was && !holds(pfn, was - back); back++)
			;
		print(back < 64 && back <= was ? " stale by=" : " foreign or torn=");
		print_number(back);
		print("\n");
	}
	if (sum != writes) {
		print("BAD counts: sum=");
		print_number(sum);
		print("\n");
		bad++;
	}
	return bad == 0;
}

static void beat(void)
{
	int ok = prove();
	print("BEAT ");
	print_number(++beats);
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

static void suspend(void)
{
	uint64_t left = wall_time();
	int cancelled;

	store_write("control/shutdown", "");
	suspended++;
	cancelled = platform_suspend();
	away = wall_time() - left;
	if (cancelled)
		return;
	resumed++;
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

void begin(unsigned long info)
{
	uint32_t rate, tick, pause, i;
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
	for (due = 0;;) {
		for (i = 0; i < rate; i++)
			write_page(next());
		if (system_time() >= due) {
			beat();
			due = system_time() + pause * 1000000ull;
		}
		wait_event(system_time() + tick * 1000000ull);
		if (store_fired()) {
			uint64_t was = suspended;
			obey();
			if (suspended != was)
				due = 0; /* the first words after it are a proof */
		}
	}
}
