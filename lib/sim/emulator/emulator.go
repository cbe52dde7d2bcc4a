// Package emulator plays the device models of a simulated host: for each HVM domain a process of QEMU as a toolstack sees
// it, which is a monitor socket and a state that changes while the emulator runs. It refuses what QEMU's own state would
// not survive, so that who saves or loads it in the wrong moment is found out.
package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
)

// Launcher returns what sim.Options.Devices is for a host that serves at hostSocket.
func Launcher(hostSocket string) func(id guest.DomID, spec guest.Spec) (io.Closer, error) {
	return func(id guest.DomID, spec guest.Spec) (io.Closer, error) {
		if spec.Kind != guest.HVM {
			return nil, nil
		}
		return Start(sim.QMPSocket(hostSocket, id), spec)
	}
}

// Emulator is one device model.
type Emulator struct {
	listener *net.UnixListener
	sessions sync.WaitGroup

	mu      sync.Mutex
	conns   map[*net.UnixConn]struct{}
	running bool
	logging bool
	devices devices
}

// Start starts the emulator of a domain at a socket. It runs at once.
func Start(path string, spec guest.Spec) (*Emulator, error) {
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	e := &Emulator{listener: l, conns: map[*net.UnixConn]struct{}{}, running: true, devices: newDevices(spec)}
	e.sessions.Go(e.accept)
	return e, nil
}

// Close ends the emulator.
func (e *Emulator) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	for c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	e.sessions.Wait()
	return err
}

func (e *Emulator) accept() {
	for {
		c, err := e.listener.AcceptUnix()
		if err != nil {
			return
		}
		e.mu.Lock()
		e.conns[c] = struct{}{}
		e.mu.Unlock()
		e.sessions.Go(func() {
			serve(e, c)
			e.mu.Lock()
			delete(e.conns, c)
			e.mu.Unlock()
		})
	}
}

// devices is the state of an emulator: every command that reaches a running one moves it a step on, along a chain of
// hashes that begins with the domain's UUID, so that a state which was garbled, mixed up or gone on with twice is none.
type devices struct {
	uuid  [16]byte
	steps uint64
	chain [sha256.Size]byte
}

const (
	stateMagic = "QEVM-sim"
	ramSize    = 64 << 10 // of the video BIOS, so to say: ballast that comes from the chain
	stateSize  = len(stateMagic) + 16 + 8 + sha256.Size + ramSize
)

func newDevices(spec guest.Spec) devices {
	return devices{uuid: spec.UUID, chain: sha256.Sum256(spec.UUID[:])}
}

// step moves the devices on.
func (d *devices) step() {
	d.chain = sha256.Sum256(d.chain[:])
	d.steps++
}

// save is the state as octets.
func (d *devices) save() []byte {
	b := append([]byte(stateMagic), d.uuid[:]...)
	b = binary.BigEndian.AppendUint64(b, d.steps)
	b = append(b, d.chain[:]...)
	return append(b, bytes.Repeat(d.chain[:], ramSize/sha256.Size)...)
}

// load sets d, which is new, from octets: those of the same domain, and of no other point of the chain than they say.
func (d *devices) load(b []byte) error {
	if len(b) != stateSize || string(b[:len(stateMagic)]) != stateMagic {
		return fmt.Errorf("%d octets are no state of this emulator", len(b))
	}
	steps := binary.BigEndian.Uint64(b[len(stateMagic)+16:])
	if !bytes.Equal(b[len(stateMagic):][:16], d.uuid[:]) {
		return errors.New("it is the state of another domain")
	}
	next := devices{uuid: d.uuid, chain: sha256.Sum256(d.uuid[:])}
	for range min(steps, 1<<20) {
		next.step()
	}
	if next.steps != steps || !bytes.Equal(next.save(), b) {
		return errors.New("it is garbled")
	}
	*d = next
	return nil
}
