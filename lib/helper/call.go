package helper

import (
	"fmt"
	"strconv"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// The first words by which libxl calls its helper.
const (
	SaveWord    = "--save-domain"
	RestoreWord = "--restore-domain"
)

// StreamType is the kind of stream that libxl asks for.
type StreamType uint64

// The stream types.
const (
	Plain StreamType = 0
	Remus StreamType = 1
	COLO  StreamType = 2
)

// Bits of the flags of a save (XCFLAGS_*).
const (
	flagLive         = 1 << 0
	flagDebug        = 1 << 1
	flagCheckpointed = 1 << 5 // 4.6 only
)

// Call is what a command line of libxl says.
type Call struct {
	Restore   bool
	Release   string // the generation that has command lines of this shape, such as "4.14 or later"
	Numbering Numbering
	Version   uint32 // of the stream that the caller's peers read

	Stream     int // descriptor
	Domain     guest.DomID
	StreamType StreamType
	Live       bool
	Debug      bool
	Callbacks  uint64 // bit n: libxl answers to message number n

	StorePort, ConsolePort     uint32 // restoring: event channel ports of the new domain
	StoreDomain, ConsoleDomain guest.DomID
}

// Has reports whether libxl answers to a message that wants a reply. Sending one that it does not answer to crashes it.
func (c *Call) Has(k Kind) bool {
	n := c.Numbering.number(k)
	return n != 0 && (k == Complete || c.Callbacks>>n&1 != 0)
}

// The releases whose progress says how many rounds there may be.
const (
	release46 = "4.6"
	release47 = "4.7 to 4.9"
)

// CountsRounds reports whether the caller's people know "Frames iteration 2 of 5", which is "Frames iteration 2" from 4.10 on.
func (c *Call) CountsRounds() bool { return c.Release == release46 || c.Release == release47 }

// shape is a form of command line: for save or restore, of so many words behind the first.
type shape struct {
	restore bool
	words   int
	match   func(w []uint64) bool
	release string
	// Where the values are; -1 for none.
	domain, flags, callbacks, streamType, ports int
	numbering                                   Numbering
	version                                     uint32
}

const legacy = 1 // the version of streams that nobody writes any more

func always([]uint64) bool { return true }

// shapes in the order in which they are tried. A save's last word is a set of callbacks, 8 or more, or a stream type, 2 or
// less; a restore's callbacks are 256 or more from 4.7 on. Source: Xen,
// tools/libs/light/libxl_save_callout.c and libxl_save_helper.c of each release.
var shapes = []shape{
	{false, 6, always, "4.14 or later", 2, 3, 4, 5, -1, Numbering414, xcstream.Version3},
	{false, 7, func(w []uint64) bool { return w[6] >= 8 }, release46, 1, 4, 6, -1, -1, Numbering46, xcstream.Version2},
	{false, 7, always, "4.10 to 4.13", 2, 3, 5, 6, -1, Numbering47, xcstream.Version2},
	{false, 9, func(w []uint64) bool { return w[8] >= 8 }, "4.5", 1, 4, 8, -1, -1, Numbering46, legacy},
	{false, 9, always, release47, 2, 5, 7, 8, -1, Numbering47, xcstream.Version2},
	{false, 10, always, "4.2 to 4.4", 1, 4, 9, -1, -1, Numbering46, legacy},
	{true, 9, always, "4.14 or later", 2, -1, 7, 8, 3, Numbering414, xcstream.Version3},
	{true, 12, func(w []uint64) bool { return w[10] >= 256 }, release47, 2, -1, 10, 11, 3, Numbering47, xcstream.Version2},
	{true, 12, always, "4.4", 1, -1, 10, -1, 2, Numbering46, legacy},
	{true, 11, func(w []uint64) bool { return w[9] >= 256 }, "4.10 to 4.13", 2, -1, 9, 10, 3, Numbering47, xcstream.Version2},
	{true, 11, func(w []uint64) bool { return w[9] == 32 }, release46, 1, -1, 9, 10, 2, Numbering46, xcstream.Version2},
	{true, 11, always, "4.2, 4.3 or 4.5", 1, -1, 9, -1, 2, Numbering46, legacy},
}

// IsCall reports whether a command line, without the program, is libxl's to its helper.
func IsCall(args []string) bool {
	return len(args) > 0 && (args[0] == SaveWord || args[0] == RestoreWord)
}

// ParseCall reads a command line, without the program. Errors say what it looks like and why it is refused.
func ParseCall(args []string) (*Call, error) {
	if !IsCall(args) {
		return nil, fmt.Errorf("the first word is neither %s nor %s", SaveWord, RestoreWord)
	}
	restore := args[0] == RestoreWord
	w := make([]uint64, len(args)-1)
	for i, s := range args[1:] {
		n, err := strconv.ParseUint(s, 10, 64)
		if signed, e := strconv.ParseInt(s, 10, 32); err != nil && e == nil {
			n, err = uint64(signed), nil // a descriptor of -1
		}
		if err != nil {
			return nil, fmt.Errorf("word %d, %q, is not a number", i+2, s)
		}
		w[i] = n
	}
	for i := range shapes {
		s := &shapes[i]
		if s.restore == restore && s.words == len(w) && s.match(w) {
			return s.call(w)
		}
	}
	return nil, fmt.Errorf("%s with %d words: no release of Xen calls its helper so", args[0], len(w))
}

// call makes a Call of words that have the shape.
func (s *shape) call(w []uint64) (*Call, error) {
	if s.version == legacy {
		return nil, refuseLegacy("Xen "+s.release, s.restore)
	}
	c := &Call{
		Restore: s.restore, Release: s.release, Numbering: s.numbering, Version: s.version, Stream: int(int32(w[0])),
		Domain: guest.DomID(w[s.domain]), Callbacks: w[s.callbacks],
	}
	if w[s.domain] >= uint64(guest.FirstReservedDomID) {
		return nil, fmt.Errorf("domain %d does not exist", w[s.domain])
	}
	if s.streamType >= 0 {
		c.StreamType = StreamType(w[s.streamType])
	}
	if s.flags >= 0 {
		c.Live, c.Debug = w[s.flags]&flagLive != 0, w[s.flags]&flagDebug != 0
		if s.streamType < 0 && w[s.flags]&flagCheckpointed != 0 {
			c.StreamType = Remus
		}
	}
	if s.ports >= 0 {
		p := w[s.ports:]
		c.StorePort, c.StoreDomain = uint32(p[0]), guest.DomID(p[1])
		c.ConsolePort, c.ConsoleDomain = uint32(p[2]), guest.DomID(p[3])
	}
	return c, c.check()
}

// check finds the numbering that the callbacks speak of, and refuses what makes no sense: libxl drops messages that it
// does not know, and a helper that waits for an answer then waits for ever.
func (c *Call) check() error {
	// SUSE's patch moves the numbers up by one: a save then has a bit that is a restore's message upstream.
	if suse := c.Numbering.SUSE(); !c.Restore && c.Callbacks>>suse.number(SwitchQEMULogDirty)&1 != 0 ||
		c.Restore && c.Callbacks>>suse.number(RestoreResults)&1 != 0 {
		c.Numbering = suse
	}
	if c.StreamType > COLO {
		return fmt.Errorf("stream type %d does not exist", c.StreamType)
	}
	if !c.Restore && !c.Has(Suspend) {
		return fmt.Errorf("callbacks %#x: a caller that cannot suspend the guest is none of Xen %s", c.Callbacks, c.Release)
	}
	return nil
}
