/*
 * The PVH entry: 32-bit, flat, without paging, hvm_start_info in ebx. It maps the first 4 GiB where they are, by
 * 2 MiB pages, and goes on in 64-bit mode.
 */
#include "notes.h"

	NOTE_STRING(6, "xenferry-guest")	/* GUEST_OS */
	NOTE_STRING(5, "xen-3.0")		/* XEN_VERSION */
	NOTE_STRING(8, "generic")		/* LOADER */
	NOTE_WORD(18, start)			/* PHYS32_ENTRY */

	.text
	.code32
	.globl start, hypercall_page
start:
	cld
	mov $stack_end, %esp
	movl $pdpt + 3, pml4
	movl $directories, %eax		/* each entry of the PDPT is one of four page directories */
	mov $pdpt, %edi
1:	lea 3(%eax), %edx
	mov %edx, (%edi)
	add $8, %edi
	add $4096, %eax
	cmp $directories + 4 * 4096, %eax
	jne 1b
	mov $directories, %edi
	mov $0x83, %eax			/* present, writable, 2 MiB */
2:	mov %eax, (%edi)
	add $8, %edi
	add $0x200000, %eax
	jnc 2b

	mov $0x20, %eax			/* CR4.PAE */
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx		/* EFER.LME */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax		/* CR0.PG */
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $long_mode
	.code64
long_mode:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %ebx, %edi
	xor %ebp, %ebp
	push %rbp
	call begin

	.balign 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
	.balign 4096
hypercall_page:
	.skip 4096

	.globl pml4
	.bss
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
directories:
	.skip 4 * 4096
	.skip 16384
stack_end:
	.section .note.GNU-stack, "", @progbits
