// Command xc-sim plays a Xen host on a machine without Xen, and the guests in its domains.
//
//	usage: xc-sim serve [--socket S] [options]
//	       xc-sim create [--host H] [options]
//	       xc-sim list [--host H] [--json]
//	       xc-sim pause|unpause|suspend|resume|shutdown|destroy [--host H] DOMAIN...
//	       xc-sim check [--host H] [--witness FILE] [--any-cpu] [--json] DOMAIN
//	       xc-sim dump [--host H] [--json] DOMAIN
//
// DOMAIN is a domain's number, name or UUID. --host is sim:SOCKET; the default is $XENFERRY_HOST, else the simulated host
// in the runtime folder.
//
// serve plays a host until it is told to stop by SIGINT or SIGTERM. It says "ready" on standard error once it answers.
//
//	--socket S           where it listens (xenferry/sim.sock in the runtime folder)
//	--memory SIZE        machine memory, as 512M or 8G (4G); it takes up as much as is in use
//	--release R          the Xen release to play, 4.14 or later (4.17)
//	--dirty-log MODE     kernel, software, or auto (default): the kernel's where it has one
//	--seed N             of the order in which frames are handed out (random)
//	--populate           touch all memory at once, so that no first use pays for it
//	--scrub              fill each frame that is handed out, as a debug build of Xen does
//	--ready-fd N         write a line to descriptor N and close it once it answers
//
// create makes a domain with a guest in it, prints its number, and lets it run.
//
//	--kind K             pv64 (default), pv32, hvm or pvh
//	--memory SIZE        RAM (512M)
//	--vcpus N            vCPUs (2)
//	--online N           how many of them are up (all)
//	--p2m P              pv64, pv32: linear (default) or tree
//	--workload W[:RATE]  idle (default), uniform, zipf, sweep, page-table or balloon, and how many pages to write in a
//	                     second; without a rate it is as many as it can
//	--nested             hvm, pvh: it may run virtual machines of its own, so that it cannot be saved
//	--fill F             the first contents of pages, as shares of all: zero=0.3,text=0.2; what is left is random octets
//	--seed N             of contents and layout (random)
//	--name NAME, --uuid U
//	--paused             do not let it run
//	--domain FILE        write what it takes to make the domain, as JSON, for xc-restore --domain
//	--witness FILE       write digests of the guest's memory to FILE each time it suspends
//
// suspend asks the guest; of a domain that was restored and never ran, only that it can be saved again. resume lets a
// suspended guest run on where it was. shutdown stops a domain without asking it; --reason is poweroff (default), reboot,
// suspend or crash.
//
// check makes the guest prove that its memory and state are what they should be: no page lost, stale, torn or foreign,
// page tables, P2M, start_info, shared_info, vCPUs and parameters as it had them. It stands still meanwhile. With
// --witness it must have all that was there when FILE was written. --any-cpu does not ask for the CPU policy that it had,
// which a version 2 stream does not carry.
//
// dump shows what a domain is made of.
//
// --version prints the version, -h this text.
//
// Exit status: 0 done, and check passed; 1 failed; 2 wrong usage.
package main
