// Command xc-restore makes a domain from a libxc migration stream, and lets it run.
//
//	usage: xc-restore [--host H] [options]
//
// The stream comes from standard input or --fd: a pipe, a socket or a file, of which not an octet is read past END (with
// --ack, past GO). It may be of stock Xen 4.6 or newer. Messages go to standard error.
//
//	--host H           xen, or sim:SOCKET; the default is Xen in a control domain, else $XENFERRY_HOST,
//	                   else the simulated host in the runtime folder
//	--fd N             the stream's descriptor (0)
//	--ack FD           hand over: FD leads back to xc-save --ack; the domain runs only after its GO
//	--paused           leave the domain paused. Else it is an error if another domain of its UUID runs on the host
//	--domid-file F     write the domain's number to F once the domain is this side's; F stays empty otherwise. F is
//	                   locked (flock) until nothing more will change, even if xc-restore is killed
//
// A libxc stream does not say what domain to make. xc-save puts that into an optional record, which other savers do not
// know; without it one of these is needed:
//
//	--domid N [--store-evtchn PORT] [--console-evtchn PORT]
//	                   load into domain N, which is new, paused and somebody else's; the ports are its event channels.
//	                   The frames of its rings, for xenstored and the console, are told in a message
//	--domain FILE      make a domain as FILE says: the JSON of xc-save --domain-out or xc-sim create --domain
//	--kind K --vcpus N --memory SIZE [--uuid U] [--name NAME]
//	                   make one of kind pv64, pv32, hvm or pvh; SIZE as 512M or 4G is the limit of its memory
//
// A failure destroys what xc-restore made. A second process watches: it destroys the half-built domain if xc-restore is
// killed, or lets it run if the domain was this side's already.
//
// Called by libxl, as --restore-domain or --save-domain with numbers, xc-restore is its libxl-save-helper.
//
// --version prints the version, -h this text.
//
// Exit status: 0 the domain is complete, and runs unless --paused; 1 it is not there; 2 wrong usage; 3 it is not there,
// as the stream is invalid.
package main
