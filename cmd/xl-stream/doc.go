// Command xl-stream is for what is around a domain's image in an xl save file or migration.
//
//	usage: xl-stream send [--host H] [--config F] [--remote COMMAND] [--not-live] [options] DOMAIN DEST
//	       xl-stream receive [--host H] [--config F] [--into COMMAND] [--paused] [--listen ADDR [--once | --most N]]
//	       xl-stream recover [--host H] [--peer COMMAND | --peer-says ANSWER] [DOMAIN...] | --list
//	       xl-stream save [--host H] [--live] [--config F] [--leave STATE] [--suspend-timeout D] DOMAIN [FILE]
//	       xl-stream restore [--host H] [--config F] [--paused] [--into COMMAND] [FILE]
//	       xl-stream wrap [--config F | --libxl] [--emulator F] [--xenstore F] <in >out
//	       xl-stream unwrap [--config-out F] [--emulator-out F] [--xenstore-out F] [<in] [>out]
//
// send migrates a domain live, and receive is the other end; they speak as xl migrate and xl migrate-receive do, so that
// either may have xl for a peer, and to each other a little more.
//
// DEST is one of
//
//	ssh:[USER@]HOST         runs there, by the user's ssh, what --remote says: xl-stream receive, or xl migrate-receive
//	exec:COMMAND            a shell command that is or leads to a receiver
//	tcp:HOST:PORT           unix:PATH           vsock:CID:PORT
//	tls:HOST:PORT           TLS 1.3 over tcp; both sides show a certificate
//	vsock-unix:PATH:PORT    a virtual machine behind the unix socket of Firecracker or Cloud Hypervisor (CONNECT PORT)
//	fd:N or fd:IN,OUT       descriptors that this process was given
//
// and ADDR a tcp, tls, unix, vsock or vsock-unix of these, or vsock:PORT. But for ssh and tls none encrypts or asks who is
// there: on a network that is not yours alone, use one of these. Without --listen the link is standard input and output, with
// the options of TLS a socket. With it receive takes any number of domains, each by a process of its own, until it is
// interrupted; --once, one domain, and its exit status tells.
//
//	--peer COMMAND         send: if the link is lost too late, ask or tell the target at once, as recover does
//	--not-live             send: suspend the guest first
//	--max-iterations N     send: rounds at most while the guest runs (5)
//	--min-dirty N          send: suspend once fewer pages are dirty (50)
//	--stats FILE|fd:N      send: statistics, a JSON object a line, as of xc-save, and behind them the downtime until the report
//	--debug-verify         send: send all pages again at the end, for the target to compare
//	--suspend-timeout D    send: how long the guest may take to suspend (60s)
//	--connect-timeout D    send: how long it may take to connect (30s)
//	--link-timeout D       how long the other side may be silent (2m, 0 for ever): before xl's header and in its answers; over tcp,
//	                       in what the kernel hears of it; over unix and vsock, in taking what is sent; over ssh:HOST, as
//	                       ServerAliveInterval. An exec:COMMAND has to look after itself. For more of a stream that has begun
//	                       receive waits while the link lasts, as the guest may take its time to suspend
//	--tls-cert F, --tls-key F, --tls-ca F
//	                       tls: this side's certificate, its key, and the authorities that the other's must be from, all in PEM.
//	                       A process of its own encrypts; whoever has a certificate of theirs may send
//	--tls-name NAME        send: the name or address that the target's certificate must have, if it is not HOST
//	--plain                send: offer nothing, and speak as xl migrate to the octet
//	--paused, -p           receive: leave the domain paused
//	--most N               receive --listen: how many domains at a time (16); who comes then waits to be accepted
//	--config F             send: the domain's configuration, as for save; receive: as JSON, in place of the one that comes
//	--into COMMAND         receive: what makes the domain, see below
//
// send says at the end how long all of it took, in how many rounds, and the downtime as the source knows it: from when the guest
// was asked to suspend until the target's report came, which is a little later than the guest runs there.
//
// A guest runs once on a host. Where another domain of its UUID runs (a source within the same host does not, as it is suspended),
// receive fails, as does restore unless it leaves all to xl. With --paused they do not, and to unpause it is your decision.
//
// What a host cannot make by itself, a domain's disks, interfaces and emulator, is left to a toolstack: COMMAND gets an xl save
// file as standard input, under the name NAME--incoming, and $LIBXL_SAVE_HELPER, which is xc-restore; it makes the domain
// and leaves it paused. The words with the source, the journal, the domain's final name and its unpausing stay this program's.
// On a real host that has xl, COMMAND is 'xl restore -p /proc/self/fd/0' unless --into says otherwise. An empty one ("")
// has this program make the domain: any on a simulated host, on a real one PVH and PV without devices, which xl can list and
// destroy, but has no configuration of, and so cannot save.
//
// Until the source has said GO, whatever fails leaves the domain running there, under its name. From GO on the source has it
// suspended as NAME--migratedaway, and destroys it when the target has reported that it runs there. If the target reports
// that it does not, and has given it back, the domain runs on at the source. If the link is lost in between, the source
// cannot know: it says so, with exit status 1, and leaves the domain suspended.
//
// Xl's protocol has gaps there. A target of xl keeps no record: after a crash or a lost link only somebody who looks at it can
// say whether it runs the domain, and what he sees may change while its xl migrate-receive still lives. It destroys a complete
// copy as soon as the link is lost, also if the source's machine is gone, and the copy was the last. And nothing tells it
// that the source is done. So our sender offers to hold the domain, by a number behind the configuration in xl's header, where xl
// does not look, and our receiver, if it keeps a journal, answers by a READY of its own. Then the copy stays, paused, as
// NAME--incoming, until the source has given or kept it, whoever dies; a source that keeps it waits up to 20 s to
// hear that the copy is gone, else says that it may be there; a receiver that is told to end waits 10 s for the word on its way;
// every question is about that number, not about whatever hand-over of the domain was last; and the source tells when it will not
// ask again. Without the offer, and from a receiver that does not know it, every octet is xl's.
//
// Both sides keep a journal of each hand-over, a file per domain in --journal DIR ($XENFERRY_JOURNAL, else
// /var/lib/xenferry for root, ~/.local/state/xenferry for others), on the disk before what it speaks of happens. A domain is
// sent by one at a time. What no link can settle, as the last word on it may be lost, errs to a domain that does not run: at the
// source suspended, at the target paused, and both complete. recover reads what senders and receivers on this host
// left, whatever killed them, and ends it with the domain running in one place:
//
//	--peer COMMAND         how to ask the other side, if it is ours, such as 'ssh HOST xl-stream recover'; that
//	                       first finishes what it can there
//	--peer-says ANSWER     you have looked at the other side of one domain's hand-over, which is stock xl or gone for good: a
//	                       target has the domain running, or has refused it; a source has given it, or has kept it
//	--list                 print the journals instead, an object of JSON a line
//
// DOMAIN is a name or UUID; without any it is every hand-over that is not over. A suspended domain that somebody has worked on since
// (xc-save, xl-stream, or xl with our helper) is left as it is: its image may run elsewhere. And who knows nothing of a hand-over
// is no answer, as he may be the wrong one to ask.
//
// Without an answer such a domain stays as it is, with exit status 1; so does one that another process is at work on, and a
// journal that cannot be read is said to be so. Once the other side will not ask, a journal goes; else a
// target's stays for 30 days. A guest that ran on the target, and was lost with that machine before its source heard
// of it, is not run from the source's old copy unless you say refused.
//
// On a real host names are changed as xl does, in xenstore, and a domain that libxl made is destroyed by xl destroy, which also
// ends its emulator and removes the backends of its devices and libxl's files.
//
// save writes a domain as xl save does: xl's header, the libxl stream, in it the guest, by xc-save as a helper on the same
// descriptor, and the state of its emulator. FILE gets its name when all of it is on the disk; what was there before stays until
// then, and whatever fails or is killed leaves nothing else. (Where the file system has no files without a name, as NFS, it is
// .FILE.N until then, which kill -9 leaves.) Without FILE the image goes to standard output.
//
//	--host H             as for xc-save
//	--live               copy while the guest runs, and suspend it for the last pages only
//	--max-iterations N, --min-dirty N, --stats FILE|fd:N
//	                     as for send
//	--config F           the domain's configuration; without it libxl's own, as xl list -l has it, and xl save would write it;
//	                     where xl cannot tell, from when the domain was made, with its name, vCPUs and memory of now, and
//	                     without disks and interfaces that are gone; where libxl has none, one of name, UUID, type, vCPUs
//	                     and memory
//	--leave STATE        suspended, running or destroyed: what becomes of the domain here; destroyed, as xl save has it,
//	                     is for a FILE and the default there, else it is suspended
//	--suspend-timeout D  how long the guest may take to suspend (60s)
//
// Until the file has its name, or without FILE until END is written, every failure leaves the domain running as before, also
// if a process is killed: a second one watches. If that happens at the very instant of the name the domain may stay suspended,
// for xc-save --resume or --destroy.
//
// restore makes a domain of what xl save, xl migrate or save wrote, and lets it run. On a real host xl makes it, as for receive;
// else xl-stream does, and reads not an octet past END.
//
//	--config F           the configuration, as JSON, in place of the one in the stream
//	--paused             leave the domain paused
//	--into COMMAND       what makes the domain, and lets it run; 'xl restore /proc/self/fd/0' on a real host that has xl, "" for
//	                     xl-stream itself
//
// Whatever fails or is killed, nothing is left of the domain, unless it has run already: then it is whole, and stays.
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
// --version prints the version, -h this text.
//
// Exit status: 0 done; 1 failed; 2 wrong usage; 3 the input is no valid stream, and the message says where and why (offsets of
// the libxc stream, which xc-restore tells, count from its header).
package main
