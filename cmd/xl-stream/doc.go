// Command xl-stream is for what is around a domain's image in an xl save file or migration.
//
//	usage: xl-stream wrap [--config F | --libxl] [--emulator F] [--xenstore F] <in >out
//	       xl-stream unwrap [--config-out F] [--emulator-out F] [--xenstore-out F] [<in] [>out]
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
// Exit status: 0 done; 1 failed; 2 wrong usage; 3 the input is no valid stream, and the message says where and why.
package main
