// Package emulator is what emulates an HVM domain's devices, as who saves the domain needs it: QEMU behind its monitor's
// socket. It writes to the guest's memory by itself, unseen by Xen's log of dirty pages, and goes on while the guest is
// suspended unless it is stopped.
package emulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/qmp"
	"xenferry/lib/xenstore"
	"xenferry/lib/xlstream"
)

// Emulator is what emulates an HVM domain's devices, and how its part of an image is saved and loaded.
type Emulator interface {
	// Check is why the emulator cannot be spoken to, or nil.
	Check(ctx context.Context) error
	// SetDirtyLog has the emulator report the guest's pages that it writes, or no longer.
	SetDirtyLog(ctx context.Context, on bool) error
	// Stop stops the devices, and Cont lets them go on. Neither minds what they do already.
	Stop(ctx context.Context) error
	Cont(ctx context.Context) error
	// Save writes the state of stopped devices to f, an empty file. leaves says that the guest shall go on elsewhere, so that
	// the emulator lets go of the images of disks, until Cont.
	Save(ctx context.Context, f *os.File, leaves bool) error
	// Load has devices that are stopped and new go on from a state in f, at its beginning.
	Load(ctx context.Context, f *os.File) error
	// CPUs are the numbers of the vCPUs that the emulator has, whether the guest uses them or not. Who loads its state must have
	// the same.
	CPUs(ctx context.Context) ([]int, error)
	// Keys are the emulator's in xenstore that go with its state.
	Keys(ctx context.Context) ([]xlstream.KeyValue, error)
	SetKeys(ctx context.Context, keys []xlstream.KeyValue) error
}

// What an answer may take. libxl gives the log 10 s, and 60 s to the rest.
const (
	logTime   = 10 * time.Second
	stateTime = 60 * time.Second
)

// qemu is QEMU behind its monitor's socket, which is connected to only while something is asked: it serves one client at
// a time, and libxl is one, too.
type qemu struct {
	socket string
	id     guest.DomID
	keys   bool // there is a xenstore with keys of it
}

// deviceHost is a host that starts emulators by itself, and tells where they answer.
type deviceHost interface {
	QMPSocket(id guest.DomID) string
}

// StartedBy reports whether a host starts emulators by itself: elsewhere that is a toolstack's matter.
func StartedBy(h host.Host) bool {
	_, ok := h.(deviceHost)
	return ok
}

// Open is the emulator of an HVM domain; nil for a domain that has none.
func Open(h host.Host, d guest.Info) Emulator {
	if d.Kind != guest.HVM {
		return nil
	}
	if s, ok := h.(deviceHost); ok {
		return &qemu{s.QMPSocket(d.ID), d.ID, false}
	}
	return &qemu{fmt.Sprintf("/var/run/xen/qmp-libxl-%d", d.ID), d.ID, true}
}

// with does something over a connection.
func (q *qemu) with(ctx context.Context, limit time.Duration, f func(ctx context.Context, c *qmp.Conn) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the emulator of domain %d does not answer within %v", q.id, limit))
	defer cancel()
	c, err := qmp.Dial(ctx, q.socket)
	if err != nil {
		return fmt.Errorf("emulator of domain %d: %w", q.id, err)
	}
	defer func() { _ = c.Close() }()
	if err := f(ctx, c); err != nil {
		return fmt.Errorf("emulator of domain %d: %w", q.id, err)
	}
	return nil
}

func (q *qemu) call(ctx context.Context, limit time.Duration, name string, args any) error {
	return q.with(ctx, limit, func(ctx context.Context, c *qmp.Conn) error { return c.Call(ctx, name, args, nil) })
}

func (q *qemu) Check(ctx context.Context) error {
	return q.with(ctx, logTime, func(context.Context, *qmp.Conn) error { return nil })
}

func (q *qemu) SetDirtyLog(ctx context.Context, on bool) error {
	return q.call(ctx, logTime, "xen-set-global-dirty-log", map[string]bool{"enable": on})
}

func (q *qemu) Stop(ctx context.Context) error { return q.call(ctx, stateTime, "stop", nil) }

func (q *qemu) Cont(ctx context.Context) error { return q.call(ctx, stateTime, "cont", nil) }

func (q *qemu) Save(ctx context.Context, f *os.File, leaves bool) error {
	return q.with(ctx, stateTime, func(ctx context.Context, c *qmp.Conn) error {
		name, err := give(ctx, c, f, os.O_WRONLY)
		if err != nil {
			return err
		}
		return c.Call(ctx, "xen-save-devices-state", map[string]any{"filename": name, "live": leaves}, nil)
	})
}

func (q *qemu) Load(ctx context.Context, f *os.File) error {
	return q.with(ctx, stateTime, func(ctx context.Context, c *qmp.Conn) error {
		name, err := give(ctx, c, f, os.O_RDONLY)
		if err != nil {
			return err
		}
		return c.Call(ctx, "xen-load-devices-state", map[string]string{"filename": name}, nil)
	})
}

// give gives QEMU a file to read or to write. It takes one opened for just that, and nothing else with it.
func give(ctx context.Context, c *qmp.Conn, f *os.File, flag int) (name string, err error) {
	only, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flag, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = only.Close() }()
	return c.AddFD(ctx, only)
}

// CPUs asks QEMU as libxl does: the way that does not disturb the vCPUs, which QEMU has from 2.12 on, and else the other, which it
// has until 5.2.
func (q *qemu) CPUs(ctx context.Context) (all []int, err error) {
	var cpus []struct {
		Fast *int `json:"cpu-index"`
		Slow *int `json:"CPU"`
	}
	err = q.with(ctx, logTime, func(ctx context.Context, c *qmp.Conn) error {
		err := c.Call(ctx, "query-cpus-fast", nil, &cpus)
		if refused := new(qmp.Error); errors.As(err, &refused) && refused.Class == "CommandNotFound" {
			err = c.Call(ctx, "query-cpus", nil, &cpus)
		}
		return err
	})
	for _, cpu := range cpus {
		n := cmp.Or(cpu.Fast, cpu.Slow)
		if n == nil || *n < 0 {
			return nil, fmt.Errorf("emulator of domain %d: a vCPU has no number", q.id)
		}
		all = append(all, *n)
	}
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("emulator of domain %d: it has no vCPUs", q.id)
	}
	return all, err
}

// physmap is where QEMU keeps what it has mapped where. One of today keeps nothing there.
func (q *qemu) physmap() string { return fmt.Sprintf("/local/domain/0/device-model/%d", q.id) }

// Keys are those below physmap, of each child start_addr, size and name.
func (q *qemu) Keys(ctx context.Context) (keys []xlstream.KeyValue, err error) {
	if !q.keys {
		return nil, nil
	}
	err = q.store(ctx, func(tx *xenstore.Tx) error {
		keys = nil
		children, err := tx.Directory(ctx, q.physmap()+"/physmap")
		if err != nil {
			return nil // there is none, as is usual
		}
		for _, child := range children {
			for _, name := range []string{"start_addr", "size", "name"} {
				key := "physmap/" + child + "/" + name
				value, err := tx.Read(ctx, q.physmap()+"/"+key)
				if err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				keys = append(keys, xlstream.KeyValue{Key: key, Value: value})
			}
		}
		return nil
	})
	return keys, err
}

func (q *qemu) SetKeys(ctx context.Context, keys []xlstream.KeyValue) error {
	if !q.keys || len(keys) == 0 {
		return nil
	}
	return q.store(ctx, func(tx *xenstore.Tx) error {
		for _, k := range keys {
			if strings.Contains("/"+k.Key+"/", "/../") {
				return fmt.Errorf("key %q", k.Key)
			}
			if err := tx.Write(ctx, q.physmap()+"/"+k.Key, k.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (q *qemu) store(ctx context.Context, f func(tx *xenstore.Tx) error) error {
	c, err := xenstore.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.Transaction(ctx, f); err != nil {
		return fmt.Errorf("xenstore keys of the emulator of domain %d: %w", q.id, err)
	}
	return nil
}
