// Package helper is both ends of the messages between libxl and its libxl-save-helper, for every release since 4.6: how
// a command line tells the release, the frames that the helper writes to its standard output, and the bare numbers that
// come back on its standard input.
//
// A frame is { u16 length of what follows | u16 message number | arguments without padding }, in the order of octets of
// the machine, which is little-endian here. Source: Xen, tools/libs/light/libxl_save_msgs_gen.pl.
package helper

import (
	"encoding/binary"
	"fmt"
	"strings"
)

var le = binary.LittleEndian

// Kind is a message, whatever its number is in a release.
type Kind uint8

// The messages. Those marked R want a reply, of which only one may be outstanding.
const (
	Log                Kind = iota + 1 // u32 level, u32 errno, string context, string text
	Progress                           // string context, string what, u64 done, u64 total
	Suspend                            // R 1: the guest is suspended
	Postcopy                           // R 1: the guest runs again, go on
	Checkpoint                         // R 1: go on, 0 stop; restoring: 2 fail over
	WaitCheckpoint                     // R COLO
	SwitchQEMULogDirty                 // R u32 domain, u32 enable: 0 done
	StaticDataDone                     // R u32 missing: 0 done
	RestoreResults                     // u64 store frame, u64 console frame
	Complete                           // R i32 result, i32 errno: always answered by 0
)

var kindNames = [...]string{
	Log: "log", Progress: "progress", Suspend: "suspend", Postcopy: "postcopy", Checkpoint: "checkpoint", WaitCheckpoint: "wait_checkpoint",
	SwitchQEMULogDirty: "switch_qemu_logdirty", StaticDataDone: "static_data_done", RestoreResults: "restore_results", Complete: "complete",
}

// String is the message's name in libxl.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("message(%d)", uint8(k))
}

// WantsReply reports whether libxl answers.
func (k Kind) WantsReply() bool { return k != Log && k != Progress && k != RestoreResults }

// Numbering is how a release numbers the messages: in the order of a list that grew.
type Numbering struct {
	kinds []Kind
	// shifted is SUSE's: it has precopy_policy as number 3 and all that follow one higher.
	shifted bool
}

// The numberings. Those of 4.5 and older go with the legacy stream, which we do not write.
var (
	Numbering46  = Numbering{kinds: []Kind{Log, Progress, Suspend, Postcopy, Checkpoint, SwitchQEMULogDirty, RestoreResults, Complete}}
	Numbering47  = Numbering{kinds: []Kind{Log, Progress, Suspend, Postcopy, Checkpoint, WaitCheckpoint, SwitchQEMULogDirty, RestoreResults, Complete}}
	Numbering414 = Numbering{kinds: []Kind{
		Log, Progress, Suspend, Postcopy, Checkpoint, WaitCheckpoint, SwitchQEMULogDirty, StaticDataDone, RestoreResults, Complete,
	}}
)

// SUSE is the numbering of the same release with SUSE's patches.
func (n Numbering) SUSE() Numbering { return Numbering{n.kinds, true} }

// number is the message's number, 0 if the release lacks it.
func (n Numbering) number(k Kind) uint16 {
	for i, have := range n.kinds {
		if have == k {
			if n.shifted && i >= 2 {
				i++
			}
			return uint16(i) + 1
		}
	}
	return 0
}

// kind is the inverse of number; 0 for a number that stands for nothing.
func (n Numbering) kind(number uint16) Kind {
	for _, k := range n.kinds {
		if n.number(k) == number {
			return k
		}
	}
	return 0
}

// Level is a message's level in xentoollog.
type Level uint32

// The levels. Another aborts the toolstack.
const (
	LevelDebug    Level = 1
	LevelVerbose  Level = 2
	LevelDetail   Level = 3
	LevelProgress Level = 4
	LevelInfo     Level = 5
	LevelNotice   Level = 6
	LevelWarn     Level = 7
	LevelError    Level = 8
	LevelCritical Level = 9
)

// noErrno is the errno of a log message without one: for any other libxl adds that errno's text.
const noErrno = 0xFFFFFFFF

// maxBody is what the length of a frame can say; maxText leaves room for what goes with a text.
const (
	maxBody = 0xFFFF
	maxText = 32 << 10
)

// frame is a frame under construction.
type frame []byte

func newFrame(number uint16) frame { return le.AppendUint16(frame{0, 0}, number) }

func (f frame) u32(v uint32) frame { return le.AppendUint32(f, v) }
func (f frame) u64(v uint64) frame { return le.AppendUint64(f, v) }

// text adds a string: its length with the NUL at its end, and its octets. NULs within are dropped, what is too long is cut.
func (f frame) text(s string) frame {
	s = strings.ReplaceAll(strings.TrimRight(s, "\n"), "\x00", "")
	if len(s) > maxText {
		s = s[:maxText]
	}
	return append(append(f.u32(uint32(len(s))+1), s...), 0)
}

// done sets the length.
func (f frame) done() []byte {
	le.PutUint16(f, uint16(len(f)-2))
	return f
}
