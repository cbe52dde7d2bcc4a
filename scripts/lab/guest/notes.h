/* ELF notes by which Xen's domain builder knows a guest. */
.macro note_begin type
	.pushsection .note.Xen, "a", @note
	.balign 4
	.long 2f - 1f, 4f - 3f, \type
1:	.asciz "Xen"
2:	.balign 4
3:
.endm
.macro note_end
4:	.balign 4
	.popsection
.endm
#define NOTE_STRING(type, value) note_begin type; .asciz value; note_end
#define NOTE_WORD(type, value) note_begin type; .long value; note_end
#ifdef __x86_64__
#define NOTE_LONG(type, value) note_begin type; .quad value; note_end
#else
#define NOTE_LONG(type, value) note_begin type; .long value; note_end
#endif
