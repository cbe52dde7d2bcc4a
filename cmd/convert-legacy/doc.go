// Command convert-legacy converts an image of Xen 4.5 or older into a migration stream of today.
//
//	usage: convert-legacy -i FD|FILE -o FD|FILE [-w 32|64] [-g pv|hvm] [-f libxc|libxl] [-x] [options]
//
// It is a filter: it keeps no more in memory than a batch's page numbers, takes not an octet behind the image, and does
// not wait for the input's end.
//
//	-i, --in FD|FILE         the image: the number of a descriptor, or a file
//	-o, --out FD|FILE        the stream
//	-w, --width 32|64        word size of the toolstack that saved the image (default: found out)
//	-g, --guest-type pv|hvm  type of the guest (default: found out)
//	-f, --format FORMAT      libxc: a bare libxc stream, with an HVM guest's QEMU record behind it as it was; libxl: a libxl
//	                         stream (default: libxl if xl's header is in front and -x was not given, else libxc)
//	-x, --xl                 there must be an xl header in front; without this one is taken if it is there
//	    --skip-qemu          libxc format: do not read the QEMU record
//	    --stream-version V   version of the libxc stream: 3 (default), or 2 for Xen 4.6 to 4.13
//	    --last-checkpoint    of a Remus image, the last checkpoint that is whole (default: the first); reads to the input's
//	                         end, unless the image says that there is no other checkpoint
//	    --salvage            of a damaged image, convert what is whole, and say what is missing
//	    --report FILE        write what each part became, or why it was dropped, as JSON
//	-v, --verbose            a line on standard output for each part but page batches
//	    --syslog             messages go to the system log, those of errors to standard error too
//	    --version            print the version of this command
//
// A long option may be shortened as long as it is unambiguous. Other words are ignored.
//
// A file named by --out has that name once it is complete, and what was there before stays until then, even if it is the image.
// After a failure what was converted has .partial behind the name; an empty one is removed. With --salvage it has the name: the
// END of a layer is in it only if all of that layer is, so that nothing restores a guest with parts missing. --salvage reads
// a batch whole before it writes it. --last-checkpoint keeps what may yet be of no use in temporary files without a name.
//
// An image is not converted that holds transcendent memory or Remus's compressed pages, which are differences to what
// the sender had sent.
//
// Exit status: 0 converted; 1 failed, which of a damaged image the message says where and why, or no -i or no -o; 2 wrong
// usage, or an image that cannot be converted. With --salvage, 1 if anything is missing.
//
// Called as convert-legacy-stream, the name of Xen's script, it demands -w and -g as that does.
package main
