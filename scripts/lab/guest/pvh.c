/* The PVH platform: memory is mapped by start-pvh.S, the rings are named by HVM parameters. */
#include "guest.h"

#define SHARED_INFO 0xfe700000ul /* where no memory is */
#define CALLBACK_VECTOR (2ull << 56 | 0x40)

static uint64_t param(uint32_t index)
{
	struct xen_hvm_param p = {DOMID_SELF, 0, index, 0};
	if (hypercall(HVM_OP, HVMOP_get_param, (unsigned long)&p, 0, 0))
		crash("HVMOP_get_param");
	return p.value;
}

/* deaf is whether the guest does as one without PV drivers: nobody can ask it for a suspend. */
static int deaf(void)
{
	const char *w;
	for (w = platform.cmdline; *w; w++)
		if (begins_with(w, "drivers=no"))
			return 1;
	return 0;
}

static void attach(void)
{
	struct xen_add_to_physmap a = {DOMID_SELF, 0, XENMAPSPACE_shared_info, 0, SHARED_INFO >> PAGE_SHIFT};
	/* Interrupts are never enabled. The vector tells the toolstack that a suspend is to be asked for, and how to cancel one. */
	struct xen_hvm_param callback = {DOMID_SELF, 0, HVM_PARAM_CALLBACK_IRQ, CALLBACK_VECTOR};
	struct shared_info *s = (struct shared_info *)SHARED_INFO;
	unsigned int i;

	if (hypercall(MEMORY_OP, XENMEM_add_to_physmap, (unsigned long)&a, 0, 0))
		crash("XENMEM_add_to_physmap");
	for (i = 0; i < sizeof(s->evtchn_mask) / sizeof(long); i++)
		s->evtchn_mask[i] = ~0ul;
	if (!deaf() && hypercall(HVM_OP, HVMOP_set_param, (unsigned long)&callback, 0, 0))
		crash("HVMOP_set_param");
	platform.shared = s;
	platform.store = page_at(param(HVM_PARAM_STORE_PFN));
	platform.console = page_at(param(HVM_PARAM_CONSOLE_PFN));
	platform.store_port = param(HVM_PARAM_STORE_EVTCHN);
	platform.console_port = param(HVM_PARAM_CONSOLE_EVTCHN);
}

/* hypercalls has Xen write its code into the hypercall page. */
static void hypercalls(void)
{
	uint32_t leaf, eax, ebx, ecx, edx;
	uint64_t page = (unsigned long)hypercall_page;
	for (leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
		__asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "0"(leaf), "2"(0));
		if (ebx == 0x566e6558 && ecx == 0x65584d4d && edx == 0x4d4d566e) /* XenVMMXenVMM */
			break;
	}
	__asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "0"(leaf + 2), "2"(0));
	__asm__ volatile("wrmsr" : : "c"(ebx), "a"((uint32_t)page), "d"((uint32_t)(page >> 32)) : "memory");
}

void platform_start(unsigned long info)
{
	extern char image_end[];
	const struct hvm_start_info *h = (const struct hvm_start_info *)info;
	const struct hvm_memmap_entry *map = (const struct hvm_memmap_entry *)(unsigned long)h->memmap_paddr;
	unsigned long first = ((unsigned long)image_end + PAGE_SIZE - 1) >> PAGE_SHIFT;
	uint32_t i;

	if (h->cmdline_paddr)
		copy_text(platform.cmdline, (const char *)(unsigned long)h->cmdline_paddr, sizeof platform.cmdline);
	hypercalls();
	attach();
	if (h->magic != HVM_START_MAGIC || h->version < 1)
		crash("no hvm_start_info of version 1");
	for (i = 0; i < h->memmap_entries; i++) {
		unsigned long from = map[i].addr >> PAGE_SHIFT, to = (map[i].addr + map[i].size) >> PAGE_SHIFT;
		if (map[i].type == 1 && from <= first && first < to)
			platform.first = first, platform.end = to < MAX_PAGES ? to : MAX_PAGES;
	}
}

void platform_start_vcpu(unsigned int n, char *stack_end)
{
	extern char pml4[];
	struct vcpu_hvm_context c = {
		.mode = 1, .rip = (unsigned long)run_vcpu, .rdi = n, .rsp = (unsigned long)stack_end - 8, .rflags = 2,
		.cr0 = 0x80000011, /* PG, ET, PE */
		.cr3 = (unsigned long)pml4, .cr4 = 0x20 /* PAE */, .efer = 0x500 /* LMA, LME */,
	};
	if (hypercall(VCPU_OP, VCPUOP_initialise, n, (unsigned long)&c, 0) || hypercall(VCPU_OP, VCPUOP_up, n, 0, 0))
		crash("a vCPU does not start");
}

int platform_suspend(void)
{
	unsigned int reason = SHUTDOWN_suspend;
	long cancelled = hypercall(SCHED_OP, SCHEDOP_shutdown, (unsigned long)&reason, 0, 0);
	attach();
	return cancelled != 0;
}
