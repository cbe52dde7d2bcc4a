// Package sim is a simulated Xen host: a server that plays the hypervisor on a unix socket, and the client that
// commands use in place of a real one. What a hypervisor does is in package machine; here are the lives of domains
// and the protocol. It knows neither streams nor guest types.
package sim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// The protocol. A client sends a request and waits for its answer; it may open any number of connections for requests
// at the same time, which form one session. Both are a header and a body:
//
//	 0  op      u16  request: what is asked; answer: 0, or 1 when refused
//	 2  domain  u16
//	 4  length  u32  of the body that follows, octets
//	 8  a       u64  two arguments or results
//	16  b       u64
//
// All is little-endian, as are frame numbers in bodies, a u64 each. Bodies of control operations are JSON; a refusal's
// is a wireError. With the answer to the first hello of a session come two descriptors: machine memory, and the
// machine-to-guest table, both to be mapped as a whole. A connection that a client gives up is closed: that is how
// a request is cancelled. When its last connection closes, a session's writable mappings are unmapped, as a kernel
// does for a process that dies. Nothing else is undone.
const (
	headerLen       = 24
	maxBody         = 128 << 20
	protocolVersion = 1
)

type op uint16

const (
	opHello   op = iota + 1 // a: version, b: session or 0 -> b: session, welcome
	opInfo                  // -> guest.Info
	opDomains               // -> []guest.Info
	opCreate                // guest.Spec -> a: number
	opDestroy
	opPause
	opUnpause
	opShutdown // a: reason
	opSuspend
	opResume
	opMaxGFN      // -> a
	opPageTypes   // GFNs -> an octet each
	opMap         // a: prot, GFNs -> a: hold, MFNs, then []frameRefusal if any is InvalidMFN
	opUnmap       // a: hold
	opPopulate    // PFNs -> what they became
	opDepopulate  // GFNs
	opSetLogDirty // a: 0 or 1
	opDirty       // a: frames, b: dirtyClean|dirtyFinal -> a: count, bitmap
	opAddressSize // -> a
	opSetAddressSize
	opPin        // MFN and level, each a u64, per table
	opVCPUOnline // a: vCPU -> a: 0 or 1
	opVCPUContext
	opSetVCPUContext
	opVCPUExtended
	opSetVCPUExtended
	opVCPUXSave
	opSetVCPUXSave
	opVCPUMSRs // []guest.MSR
	opSetVCPUMSRs
	opHVMContext
	opSetHVMContext
	opHVMParam    // a: index -> a: value
	opSetHVMParam // a: index, b: value
	opTSC
	opSetTSC
	opCPUPolicy
	opSetCPUPolicy
	opSeedGrants // a: console, b: store
	opGrants     // -> a, b
	opCall       // callRequest -> whatever the Software answers
	opRename     // the new name
)

const (
	answerOK      op = 0
	answerRefused op = 1

	dirtyClean = 1
	dirtyFinal = 2
)

// welcome tells a new session what host this is.
type welcome struct {
	Release   guest.Release `json:"release"`
	Frames    uint64        `json:"frames"`
	CompatM2P guest.MFN     `json:"compat_m2p"`
	KernelLog bool          `json:"kernel_log"`
}

type callRequest struct {
	Op      string          `json:"op"`
	Request json.RawMessage `json:"request"`
}

// frameRefusal says why one frame of opMap is not mapped.
type frameRefusal struct {
	Index int        `json:"index"`
	Errno unix.Errno `json:"errno"`
	Why   string     `json:"why"`
}

// wireError is an error on its way: a machine.Error whole, of any other the text.
type wireError struct {
	Machine *machine.Error `json:"machine,omitempty"`
	Text    string         `json:"text,omitempty"`
}

func toWire(err error) wireError {
	var e *machine.Error
	if errors.As(err, &e) && e.Error() == err.Error() {
		return wireError{Machine: e}
	}
	return wireError{Text: err.Error()}
}

func (e wireError) err() error {
	if e.Machine != nil {
		return e.Machine
	}
	return errors.New(e.Text)
}

type header struct {
	op     op
	domain guest.DomID
	a, b   uint64
}

// wire is one end of a connection, for one goroutine at a time. Buffers are reused from message to message.
type wire struct {
	*net.UnixConn
	in, out []byte
}

// send writes h and body as one message.
func (w *wire) send(h header, body []byte) error {
	if len(body) > maxBody {
		return fmt.Errorf("a message of %d octets is longer than %d", len(body), maxBody)
	}
	w.out = appendHeader(w.out[:0], h, len(body))
	w.out = append(w.out, body...)
	_, err := w.Write(w.out)
	return err
}

func appendHeader(b []byte, h header, length int) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(h.op))
	b = binary.LittleEndian.AppendUint16(b, uint16(h.domain))
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	b = binary.LittleEndian.AppendUint64(b, h.a)
	return binary.LittleEndian.AppendUint64(b, h.b)
}

// receive reads one message. The body is good until the next receive.
func (w *wire) receive() (h header, body []byte, err error) {
	var b [headerLen]byte
	if _, err := io.ReadFull(w, b[:]); err != nil {
		return h, nil, err
	}
	return w.receiveBody(b[:])
}

// receiveBody reads what follows the header in b.
func (w *wire) receiveBody(b []byte) (h header, body []byte, err error) {
	h = header{
		op:     op(binary.LittleEndian.Uint16(b)),
		domain: guest.DomID(binary.LittleEndian.Uint16(b[2:])),
		a:      binary.LittleEndian.Uint64(b[8:]),
		b:      binary.LittleEndian.Uint64(b[16:]),
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if n > maxBody {
		return h, nil, fmt.Errorf("a message of %d octets is longer than %d", n, maxBody)
	}
	if cap(w.in) < n {
		// Aligned for 64-bit words, as frame numbers are read in place.
		w.in = octets(make([]uint64, (n+7)/8))
	}
	body = w.in[:n]
	_, err = io.ReadFull(w, body)
	return h, body, err
}
