/*
 * What this guest uses of Xen's guest ABI, for both widths: an unsigned long is what Xen calls one there.
 * Names and numbers are those of Xen's public headers.
 */
#ifndef XEN_H
#define XEN_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ul
#define DOMID_SELF 0x7ff0

typedef uint64_t pte_t; /* page table entries have 8 octets in PAE and in 64-bit mode */
#define PTE_PRESENT 0x001
#define PTE_WRITE 0x002
#define PTE_USER 0x004
#define PTE_ACCESSED 0x020
#define PTE_DIRTY 0x040
#define PTE_FRAME 0x000ffffffffff000ull

enum hypercall {
	MMU_UPDATE = 1,
	MEMORY_OP = 12,
	UPDATE_VA_MAPPING = 14,
	VCPU_OP = 24,
	SCHED_OP = 29,
	EVENT_CHANNEL_OP = 32,
	HVM_OP = 34,
};

/* SCHED_OP */
enum { SCHEDOP_yield = 0, SCHEDOP_shutdown = 2, SCHEDOP_poll = 3 };
enum { SHUTDOWN_poweroff = 0, SHUTDOWN_reboot = 1, SHUTDOWN_suspend = 2, SHUTDOWN_crash = 3 };
struct sched_poll {
	uint32_t *ports;
	unsigned int nr_ports;
	uint64_t timeout; /* system time, ns */
};

/* VCPU_OP: a vCPU's number, and for initialise a context of the kind of domain */
enum { VCPUOP_initialise = 0, VCPUOP_up = 1, VCPUOP_is_up = 3 };
#if __SIZEOF_LONG__ == 8
struct vcpu_guest_context { /* PV */
	char fpu[512];
	unsigned long flags;
	struct {
		unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, vector;
		unsigned long rip, cs, rflags, rsp, ss, es, ds, fs, gs;
	} regs;
	char traps[256 * 16];
	unsigned long ldt_base, ldt_ents, gdt_frames[16], gdt_ents;
	unsigned long kernel_ss, kernel_sp, ctrlreg[8], debugreg[8];
	unsigned long callbacks[3], vm_assist, fs_base, gs_base_kernel, gs_base_user;
};
_Static_assert(sizeof(struct vcpu_guest_context) == 5168, "vcpu_guest_context");
#define VGCF_in_kernel 4
#define FLAT_KERNEL_CS 0xe033
#define FLAT_KERNEL_SS 0xe02b

struct vcpu_hvm_context { /* PVH */
	uint32_t mode, pad; /* mode 1: 64 bits */
	uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, rip, rflags, cr0, cr3, cr4, efer, rest;
};
_Static_assert(sizeof(struct vcpu_hvm_context) == 128, "vcpu_hvm_context");
#endif

/* EVENT_CHANNEL_OP */
enum { EVTCHNOP_send = 4 };

/* MEMORY_OP */
enum { XENMEM_add_to_physmap = 7, XENMAPSPACE_shared_info = 0 };
struct xen_add_to_physmap {
	uint16_t domid, size;
	unsigned int space;
	unsigned long idx, gpfn;
};

/* HVM_OP */
enum { HVMOP_set_param = 0, HVMOP_get_param = 1 };
enum {
	HVM_PARAM_CALLBACK_IRQ = 0,
	HVM_PARAM_STORE_PFN = 1,
	HVM_PARAM_STORE_EVTCHN = 2,
	HVM_PARAM_CONSOLE_PFN = 17,
	HVM_PARAM_CONSOLE_EVTCHN = 18,
};
struct xen_hvm_param {
	uint16_t domid, pad;
	uint32_t index;
	uint64_t value;
};

/* MMU_UPDATE */
struct mmu_update {
	uint64_t ptr, val; /* machine address of an entry, its new value */
};
#define UVMF_INVLPG 2

struct vcpu_time_info {
	uint32_t version, pad;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad1[2];
};

struct vcpu_info {
	uint8_t evtchn_upcall_pending, evtchn_upcall_mask;
	unsigned long evtchn_pending_sel;
	unsigned long cr2, pad[sizeof(long) == 8 ? 1 : 5];
	struct vcpu_time_info time;
};
_Static_assert(sizeof(struct vcpu_info) == 64, "vcpu_info");

struct shared_info {
	struct vcpu_info vcpu_info[32];
	unsigned long evtchn_pending[8 * sizeof(long)], evtchn_mask[8 * sizeof(long)];
	uint32_t wc_version, wc_sec, wc_nsec;
#if __SIZEOF_LONG__ == 8
	uint32_t wc_sec_hi;
#endif
	unsigned long max_pfn, pfn_to_mfn_frame_list_list, nmi_reason;
	unsigned long p2m_cr3, p2m_vaddr, p2m_generation;
};
_Static_assert(offsetof(struct shared_info, max_pfn) == (sizeof(long) == 8 ? 3088 : 2316), "shared_info.arch");

struct start_info {
	char magic[32];
	unsigned long nr_pages, shared_info;
	uint32_t flags;
	unsigned long store_mfn;
	uint32_t store_evtchn;
	unsigned long console_mfn;
	uint32_t console_evtchn;
	unsigned long pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
	char cmd_line[1024];
	unsigned long first_p2m_pfn, nr_p2m_frames;
};
_Static_assert(sizeof(struct start_info) == (sizeof(long) == 8 ? 1168 : 1112), "start_info");

struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};
#define HVM_START_MAGIC 0x336ec578
struct hvm_memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved; /* type 1 is RAM */
};

struct console_ring {
	char in[1024], out[2048];
	uint32_t in_cons, in_prod, out_cons, out_prod;
};

struct xenstore_ring {
	char req[1024], rsp[1024];
	uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
};
enum { XS_READ = 2, XS_WATCH = 4, XS_WRITE = 11, XS_WATCH_EVENT = 15, XS_ERROR = 16 };
struct xenstore_header {
	uint32_t type, req_id, tx_id, len;
};

#define barrier() __asm__ volatile("" ::: "memory")
#define mb() __sync_synchronize()

extern char hypercall_page[];

/*
 * hypercall enters Xen through the hypercall page, 32 octets for each number. The page's code may change every
 * argument register. A suspend returns here on another host, with the result that the toolstack put into the register.
 */
static inline long hypercall(enum hypercall nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	char *entry = hypercall_page + 32 * nr;
	long result;
#if __SIZEOF_LONG__ == 8
	register unsigned long r10 __asm__("r10") = d;
	__asm__ volatile("call *%[entry]"
		: "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10)
		: [entry] "0"(entry)
		: "rcx", "r8", "r9", "r11", "memory", "cc");
#else
	__asm__ volatile("call *%[entry]"
		: "=a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d)
		: [entry] "0"(entry)
		: "edi", "memory", "cc");
#endif
	return result;
}

#endif
