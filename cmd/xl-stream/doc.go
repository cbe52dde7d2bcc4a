// Command xl-stream is for what is around a domain's image in an xl save file or migration.
//
//	usage: xl-stream send [--host H] [--config F] [--remote COMMAND] [--not-live] [options] DOMAIN DEST
//	       xl-stream receive [--host H] [--config F] [--paused] [--listen ADDR [--once]]
//	       xl-stream recover [--host H] [--peer COMMAND | --peer-says running|refused]
//	       xl-stream save [--host H] [--live] [--config F] [--leave STATE] [--suspend-timeout D] DOMAIN [FILE]
//	       xl-stream restore [--host H] [--config F] [--paused] [--into COMMAND] [FILE]
//	       xl-stream wrap [--config F | --libxl] [--emulator F] [--xenstore F] <in >out
//	       xl-stream unwrap [--config-out F] [--emulator-out F] [--xenstore-out F] [<in] [>out]
//
// send migrates a domain live, and receive is the other end; octet for octet they speak as xl migrate and xl migrate-receive
// do, so that either may have xl for a peer.
//
// DEST is one of
//
//	ssh:[USER@]HOST         runs there, by the user's ssh, what --remote says: xl-stream receive, or xl migrate-receive
//	exec:COMMAND            a shell command that is or leads to a receiver
//	tcp:HOST:PORT           unix:PATH           vsock:CID:PORT
//	vsock-unix:PATH:PORT    a virtual machine behind the unix socket of Firecracker or Cloud Hypervisor (CONNECT PORT)
//	fd:N or fd:IN,OUT       descriptors that this process was given
//
// and ADDR a tcp, unix, vsock or vsock-unix of these, or vsock:PORT. Neither encrypts nor asks who is there: on a network that
// is not yours alone, use ssh. Without --listen the link is standard input and output. With it receive takes any
// number of domains, each by a process of its own, until it is interrupted; --once, one domain, and its exit status tells.
//
//	--peer COMMAND         send: if the link is lost too late, ask the target at once, as recover does
//	--not-live             send: suspend the guest first
//	--debug-verify         send: send all pages again at the end, for the target to compare
//	--suspend-timeout D    send: how long the guest may take to suspend (60s)
//	--connect-timeout D    send: how long it may take to connect (30s)
//	--paused, -p           receive: leave the domain paused
//
// Until the source has said GO, whatever fails leaves the domain running there, under its name, and nothing on the target.
// From GO on the source has it suspended as NAME--migratedaway, and destroys it when the target has reported that it runs there.
// If the target reports that it does not, and has given it back, the domain runs on at the source. If the link is lost in
// between, the source cannot know, which is a gap in xl's protocol: it says so, with exit status 1, and leaves the domain
// suspended.
//
// Both sides keep a journal of each hand-over, a file per domain in --journal DIR ($XENFERRY_JOURNAL, else
// /var/lib/xenferry for root, ~/.local/state/xenferry for others), on the disk before what it speaks of happens. recover
// reads those that senders on this host left, whatever killed them, and ends each with the domain running in one place:
//
//	--peer COMMAND         how to ask a target of ours about a domain that was given away, such as 'ssh HOST xl-stream recover';
//	                       it first finishes what its receiver left: the domain runs there, or nothing of it is left
//	--peer-says ANSWER     you have looked at the target, which is stock xl or gone for good: running or refused
//
// Without an answer such a domain stays suspended, with exit status 1. A target's journal stays, as it may be asked later.
//
// save writes a domain as xl save does: xl's header, the libxl stream, in it the guest, by xc-save as a helper on the same
// descriptor, and the state of its emulator. FILE is written beside its name and takes it when all of it is on the disk; what
// was there before stays until then. Without FILE the image goes to standard output.
//
//	--host H             as for xc-save
//	--live               copy while the guest runs, and suspend it for the last pages only
//	--config F           the domain's configuration; without it libxl's own of it, from when the domain was made, or, where
//	                     libxl has none, one of name, UUID, type, vCPUs and memory
//	--leave STATE        suspended, running or destroyed: what becomes of the domain here; destroyed, as xl save has it,
//	                     is for a FILE and the default there, else it is suspended
//	--suspend-timeout D  how long the guest may take to suspend (60s)
//
// Until the file has its name, or without FILE until END is written, every failure leaves the domain running as before, also
// if a process is killed: a second one watches. If that happens at the very instant of the name the domain may stay suspended,
// for xc-save --resume or --destroy.
//
// restore makes a domain of what xl save, xl migrate or save wrote, and lets it run. On a real host the domain is made
// by xl, with its devices, and its memory by our xc-restore as xl's helper, unless --config is given; then, and on a
// simulated host, xl-stream makes it, and reads not an octet past END.
//
//	--config F           the configuration, as JSON, in place of the one in the stream
//	--paused             leave the domain paused
//	--into COMMAND       what makes the domain: gets the stream as standard input, and $LIBXL_SAVE_HELPER;
//	                     on a real host 'xl restore /dev/fd/0' by default (not tried yet)
//
// wrap puts the layers on: standard input is a libxc stream, as xc-save writes it; standard output is what xl save would
// have written, for xl restore. The guest's octets are not copied but spliced where a pipe allows it.
//
//	--config F     the domain's configuration: JSON of libxl (as unwrap --config-out has it), or an xl.cfg;
//	               without it there is none in the file, and xl restore must be given one
//	--libxl        a libxl stream alone, without xl's header
//	--emulator F   the emulator's state, a regular file
//	--xenstore F   the emulator's xenstore keys and values, a NUL behind each
//
// The emulator's files are opened when the libxc stream has ended, so they may come to be while it passes; an empty one is
// none. --config is read before.
//
// unwrap takes the layers off: standard input is an xl save file, or what xl migrate sends, or a libxl stream, or a libxc
// stream alone; its first octets tell. The libxc stream goes to standard output as it is, through its END, for
// xc-restore. The records behind it are read through the END of the outermost layer, and not an octet more.
//
//	--config-out F     write the domain's configuration (JSON of libxl, or an xl.cfg) to F
//	--emulator-out F   write the emulator's state to F
//	--xenstore-out F   write the emulator's xenstore keys and values to F, each with a NUL behind it
//
// A file is empty if the stream has no such thing. It takes its name when everything is read: after a failure there is
// none, and one that was there before is as it was. F may be a pipe or /dev/fd/N; that is written to as the octets come.
//
// Streams with checkpoints (Remus, COLO) and those of Xen 4.5 and older are refused; see convert-legacy for the latter.
//
// Exit status: 0 done; 1 failed; 2 wrong usage; 3 the input is no valid stream, and the message says where and why (restore
// looks only at the layers around the guest: what is wrong within is 1).
package main
