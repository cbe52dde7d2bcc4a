/*
 * The PV platform, 64-bit and 32-bit. The domain builder maps only what it loaded: the rest of memory gets page tables
 * of our own, filled, made read-only and hooked into the builder's.
 */
#include "guest.h"

/* Levels of page tables, and how the frame of the topmost is kept in cr3. */
#if __SIZEOF_LONG__ == 8
#define TOP 4
static unsigned long cr3_of(unsigned long mfn) { return mfn << PAGE_SHIFT; }
#else
#define TOP 3
static unsigned long cr3_of(unsigned long mfn) { return mfn << PAGE_SHIFT | mfn >> 20; }
#endif

#define PER_PAGE (PAGE_SIZE / sizeof(long))
#define RW (PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED | PTE_DIRTY)
#define RO (PTE_PRESENT | PTE_USER | PTE_ACCESSED)

static struct start_info *start;
static unsigned long *p2m;
static unsigned long top; /* PFN of the topmost page table */
static int tree;          /* tell of the P2M as lists of frames only, not by address, too */

static pte_t tables[MAX_PAGES / 512][512] __attribute__((aligned(PAGE_SIZE)));
static unsigned long frames[PER_PAGE] __attribute__((aligned(PAGE_SIZE)));      /* of the P2M */
static unsigned long frames_list[PER_PAGE] __attribute__((aligned(PAGE_SIZE))); /* of the page above */
static char shared_page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));         /* its address shows shared_info */

static unsigned long pfn_of(const void *p) { return (unsigned long)p >> PAGE_SHIFT; }

static unsigned long mfn_to_pfn(unsigned long mfn)
{
	unsigned long pfn;
	for (pfn = 0; pfn < start->nr_pages; pfn++)
		if (p2m[pfn] == mfn)
			return pfn;
	crash("a frame that the P2M does not have");
}

static void remap(unsigned long va, pte_t pte)
{
#if __SIZEOF_LONG__ == 8
	long r = hypercall(UPDATE_VA_MAPPING, va, pte, UVMF_INVLPG, 0);
#else
	long r = hypercall(UPDATE_VA_MAPPING, va, pte, pte >> 32, UVMF_INVLPG);
#endif
	if (r)
		crash("update_va_mapping");
}

/* entry finds the page table entry of an address at a level, or nothing where a table above is missing. */
static pte_t *entry(unsigned long va, int level)
{
	pte_t *table = page_at(top);
	int l;
	for (l = TOP;; l--) {
		pte_t *e = table + ((uint64_t)va >> (PAGE_SHIFT + 9 * (l - 1)) & 511);
		if (l == level)
			return e;
		if (!(*e & PTE_PRESENT))
			return NULL;
		table = page_at(mfn_to_pfn((*e & PTE_FRAME) >> PAGE_SHIFT));
	}
}

/* map_all maps every page at its place. A page table covers 2 MiB, and all of memory is under one table of level 2. */
static void map_all(unsigned long end)
{
	unsigned long base, i;
	for (base = 0; base < end; base += 512) {
		pte_t *l2 = entry(base << PAGE_SHIFT, 2), *l1 = tables[base / 512];
		if (!l2)
			crash("no table of level 2");
		if (*l2 & PTE_PRESENT) { /* the builder's: fill its gaps */
			l1 = page_at(mfn_to_pfn((*l2 & PTE_FRAME) >> PAGE_SHIFT));
			for (i = 0; i < 512 && base + i < end; i++)
				if (!(l1[i] & PTE_PRESENT))
					remap((base + i) << PAGE_SHIFT, (pte_t)p2m[base + i] << PAGE_SHIFT | RW);
			continue;
		}
		for (i = 0; i < 512 && base + i < end; i++)
			l1[i] = (pte_t)p2m[base + i] << PAGE_SHIFT | RW;
		remap((unsigned long)l1, (pte_t)p2m[pfn_of(l1)] << PAGE_SHIFT | RO);
		struct mmu_update u = {
			((uint64_t)p2m[pfn_of(l2)] << PAGE_SHIFT) + ((unsigned long)l2 & (PAGE_SIZE - 1)),
			(pte_t)p2m[pfn_of(l1)] << PAGE_SHIFT | RW,
		};
		if (hypercall(MMU_UPDATE, (unsigned long)&u, 1, 0, DOMID_SELF))
			crash("mmu_update");
	}
}

/* attach maps shared_info and tells the toolstack there where the P2M is. */
static void attach(void)
{
	struct shared_info *s = (struct shared_info *)shared_page;
	unsigned long i, leaves = (start->nr_pages + PER_PAGE - 1) / PER_PAGE;

	remap((unsigned long)s, (pte_t)start->shared_info | RW);
	for (i = 0; i < sizeof(s->evtchn_mask) / sizeof(long); i++)
		s->evtchn_mask[i] = ~0ul;
	s->max_pfn = start->nr_pages;
	for (i = 0; i < leaves; i++)
		frames[i] = p2m[pfn_of(p2m) + i];
	frames_list[0] = p2m[pfn_of(frames)];
	s->pfn_to_mfn_frame_list_list = p2m[pfn_of(frames_list)];
	s->p2m_vaddr = (unsigned long)p2m;
	mb();
	s->p2m_cr3 = tree ? 0 : cr3_of(p2m[top]); /* not 0: the address is good, which savers prefer */
	platform.shared = s;
	platform.store_port = start->store_evtchn;
	platform.console_port = start->console_evtchn;
}

void platform_start(unsigned long info)
{
	start = (struct start_info *)info;
	p2m = (unsigned long *)start->mfn_list;
	top = start->pt_base >> PAGE_SHIFT;
	copy_text(platform.cmdline, start->cmd_line, sizeof platform.cmdline);
	for (char *w = platform.cmdline; *w; w++)
		tree |= begins_with(w, "p2m=tree");

	platform.store = page_at(mfn_to_pfn(start->store_mfn));
	platform.console = page_at(mfn_to_pfn(start->console_mfn));
	platform.first = top + start->nr_pt_frames + 1; /* the page behind the tables is the builder's stack */
	platform.end = start->nr_pages < MAX_PAGES ? start->nr_pages : MAX_PAGES;
	map_all(platform.end);
	attach();
}

void platform_start_vcpu(unsigned int n, char *stack_end)
{
#if __SIZEOF_LONG__ == 8
	static struct vcpu_guest_context c;
	c.flags = VGCF_in_kernel;
	c.regs.rip = (unsigned long)run_vcpu;
	c.regs.rdi = n;
	c.regs.cs = FLAT_KERNEL_CS;
	c.regs.rflags = 0x202;
	c.regs.rsp = c.kernel_sp = (unsigned long)stack_end - 8;
	c.regs.ss = c.kernel_ss = FLAT_KERNEL_SS;
	c.ctrlreg[3] = cr3_of(p2m[top]);
	if (hypercall(VCPU_OP, VCPUOP_initialise, n, (unsigned long)&c, 0) || hypercall(VCPU_OP, VCPUOP_up, n, 0, 0))
#else
	(void)n, (void)stack_end; /* no hypervisor that would run it is at hand */
#endif
		crash("a vCPU does not start");
}

/*
 * Across a suspend start_info holds PFNs, which only the guest can put there, and nothing maps shared_info: its frame
 * is no page of ours, and an image cannot say what it means.
 */
int platform_suspend(void)
{
	unsigned int reason = SHUTDOWN_suspend;
	unsigned long store = pfn_of(platform.store), console = pfn_of(platform.console);
	long cancelled;

	start->store_mfn = store;
	start->console_mfn = console;
	remap((unsigned long)shared_page, 0);
	cancelled = hypercall(SCHED_OP, SCHEDOP_shutdown, (unsigned long)&reason, p2m[pfn_of(start)], 0);
	if (cancelled) {
		start->store_mfn = p2m[store];
		start->console_mfn = p2m[console];
	} else if (start->store_mfn != p2m[store] || start->console_mfn != p2m[console]) {
		crash("the toolstack moved a ring");
	}
	attach();
	return cancelled != 0;
}
