/* The PV entry, at the place that the ELF notes name, with start_info in (r/e)si, in a flat address space. */
#include "notes.h"

	NOTE_STRING(6, "xenferry-guest")	/* GUEST_OS */
	NOTE_STRING(5, "xen-3.0")		/* XEN_VERSION */
	NOTE_STRING(8, "generic")		/* LOADER */
	NOTE_STRING(9, "yes")			/* PAE_MODE */
	NOTE_LONG(1, start)			/* ENTRY */
	NOTE_LONG(2, hypercall_page)		/* HYPERCALL_PAGE */
	NOTE_LONG(3, 0)				/* VIRT_BASE: a page is mapped where its PFN says */
	NOTE_LONG(4, 0)				/* PADDR_OFFSET */
	NOTE_LONG(14, 1)			/* SUSPEND_CANCEL */

	.text
	.globl start, hypercall_page
start:
	cld
#ifdef __x86_64__
	lea stack_end(%rip), %rsp
	mov %rsi, %rdi
	xor %ebp, %ebp
	push %rbp
#else
	mov $stack_end - 12, %esp
	push %esi
	xor %ebp, %ebp
#endif
	call begin

	.balign 4096
hypercall_page:
	.skip 4096

	.bss
	.balign 16
	.skip 16384
stack_end:
	.section .note.GNU-stack, "", @progbits
