// Command xc-save writes a domain to a descriptor as a libxc migration stream, while it runs if asked.
//
//	usage: xc-save [--host H] [--live] [options] DOMAIN
//	       xc-save [--host H] --check|--resume|--destroy DOMAIN
//
// DOMAIN is a domain's number, name or UUID. The stream goes to standard output or to --fd; it may be a pipe, a socket or
// a file, and not a terminal. Messages, and on a terminal the progress, go to standard error.
//
//	--host H             xen, or sim:SOCKET; the default is Xen in a control domain, else $XENFERRY_HOST,
//	                     else the simulated host in the runtime folder
//	--live               copy while the guest runs, and suspend it for the last pages only
//	--max-iterations N   live: rounds at most while the guest runs (5)
//	--min-dirty N        live: suspend once fewer pages are dirty (50)
//	--fd N               the stream's descriptor (1)
//	--ack FD             hand over: FD leads back from xc-restore --ack; the domain is destroyed here once it runs there
//	--leave STATE        suspended (default), running or destroyed: what becomes of the domain here when the image is
//	                     complete; destroyed needs --ack, which makes it the default, or a regular file
//	--stream-version V   3 (default), or 2 for Xen 4.13 and older
//	--strict-stream      nothing of our own in the stream: xc-restore then must be told what domain to make
//	--domain-out FILE    write what it takes to make the domain, as JSON, for xc-restore --domain
//	--debug-verify       send all pages again at the end, for the target to compare (VERIFY)
//	--stats FILE|fd:N    statistics, a JSON object a line; not where the stream goes
//	--suspend-timeout D  how long the guest may take to suspend (60s)
//	--check              say whether the domain could be saved, and is running or suspended; nothing is changed
//	--resume             let a domain run on that was left suspended, and its emulator; one that is paused stays so. Also ends
//	                     the log of dirty pages that a save which was killed has left of a PV or PVH domain
//	--destroy            destroy a domain that was left suspended
//
// Before the image is complete every failure, signal or full disk leaves the guest running as before. From the instant
// before END is written xc-save does not let it run again by itself, as the other end may: the domain stays suspended,
// and whoever knows the other end's exit status decides by --resume or --destroy. With --ack that instant is the one
// before GO, and from there on xc-save waits for the target's word, whatever signal comes. A second process watches: it
// lets the guest run on if xc-save is killed too early.
//
// An HVM domain's emulator (QEMU) writes to its memory, too: it logs what it writes while the guest is copied live, and is
// stopped once the guest is suspended, until that runs on. One that cannot be told so is refused. Its own state is not in the
// stream: xl-stream save writes that, too.
//
// One process at a time works on a domain: it holds a lock, /run/xenferry/domain-ID.lock or, beside a simulated host's
// socket, SOCKET.lock-ID, and so does its guardian. Others are refused, and told which process has it.
//
// Called by libxl, as --save-domain or --restore-domain with numbers, xc-save is its libxl-save-helper: name it in
// $LIBXL_SAVE_HELPER. Of the above only the lock applies then; libxl alone owns the domain. But $XENFERRY_MAX_ITERATIONS,
// $XENFERRY_MIN_DIRTY and $XENFERRY_STATS are as --max-iterations, --min-dirty and --stats, also through xl and xl migrate.
//
// --version prints the version, -h this text.
//
// Exit status: 0 saved; 1 not saved, or the hand-over did not end: the last line says in which state the domain is left;
// 2 wrong usage.
package main
