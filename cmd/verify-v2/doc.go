// Command verify-v2 checks a migration stream strictly and says what is in it.
//
//	usage: verify-v2 [-v] [-q] [-f FORMAT] [-i FD|FILE | FILE] [--json] [--pedantic] [--allow-trailing] [--syslog]
//	       verify-v2 --compare [-q] [--json] A B
//
// The stream is what xc-save, libxl or xl write: a libxc stream, a libxl stream around one, or an xl save file or
// migration around that. The layers around the libxc stream may be of either order of octets, though stock restore, and
// ours, take little-endian ones alone; the libxc stream is little-endian.
//
//	-i, --in FD|FILE      the stream: the number of a descriptor, or a file (default 0)
//	-f, --format FORMAT   its outermost layer: libxc, libxl or xl (default: its first octets tell)
//	-v, --verbose         list the records as they come (on standard error with --json)
//	-q, --quiet           print nothing; only the exit status tells
//	    --syslog          messages go to the system log
//	    --json            the report, or the differences, as JSON
//	    --pedantic        refuse what stock restore tolerates and no stock saver writes
//	    --allow-trailing  stop at the stream's end and leave what follows unread
//	    --compare         compare the domains in the images A and B: final memory and every state record
//
// The members of the JSON are listed in docs/verify-v2.md.
//
// A long option may be shortened as long as it is unambiguous.
//
// --compare exempts only what restoring must change: nr_pages, flags, shared_info and event ports in start_info;
// event masks, pending bits, frame_list_list and wall clock in SHARED_INFO; VGCF_online; the TSC's nsec and
// incarnation; the tsc in HVM CPU records; contents of HVM's store, console, ioreq and bufioreq pages. Machine frame
// numbers are compared by the PFNs that they stand for.
//
// --version prints the version, -h this text.
//
// Exit status: 0 valid, or no differences; 3 invalid, or differences; 2 wrong usage; 1 the input cannot be read.
//
// Called as verify-stream-v2 it keeps the contract of Xen's script of that name: the format is libxc if -f does not
// say otherwise, words besides options are ignored, nothing is read behind the stream's end, nothing is printed for a
// valid stream without -v, and the exit status is 0 valid, 1 invalid or not readable, 2 wrong usage or interrupted.
package main
