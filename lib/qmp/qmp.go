// Package qmp speaks to QEMU over its monitor socket (QEMU Machine Protocol): one command at a time, JSON in and out, with a
// descriptor beside the command where one is handed over. Source: QEMU, docs/interop/qmp-spec.
package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection whose capabilities are negotiated. It is for one goroutine.
type Conn struct {
	socket *net.UnixConn
	in     *json.Decoder
}

// Error is QEMU's refusal of a command.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Desc + " (" + e.Class + ")" }

// message is whatever QEMU sends: its greeting, an event, or the answer to a command.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event    string          `json:"event"`
	Return   json.RawMessage `json:"return"`
	Error    *Error          `json:"error"`
}

type command struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
}

// Dial connects to the monitor at path. QEMU serves one client at a time: while another is connected, Dial waits.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	s, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	c := &Conn{socket: s.(*net.UnixConn), in: json.NewDecoder(s)}
	if err := c.begin(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("QMP %s: %w", path, err)
	}
	return c, nil
}

func (c *Conn) begin(ctx context.Context) error {
	defer c.bind(ctx)()
	m, err := c.receive(ctx)
	if err == nil && m.Greeting == nil {
		err = errors.New("it does not begin with QMP's greeting")
	}
	if err != nil {
		return err
	}
	return c.Call(ctx, "qmp_capabilities", nil, nil)
}

// Close ends the connection.
func (c *Conn) Close() error { return c.socket.Close() }

// bind makes reads and writes end with ctx, until the function it returns is called.
func (c *Conn) bind(ctx context.Context) (release func()) {
	stop := context.AfterFunc(ctx, func() { _ = c.socket.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// receive reads a message that is no event.
func (c *Conn) receive(ctx context.Context) (m message, err error) {
	for {
		m = message{}
		if err = c.in.Decode(&m); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return m, err
		}
		if m.Event == "" {
			return m, nil
		}
	}
}

// Call executes a command. args is what it takes, as JSON has it, nil for nothing; what it returns goes to result unless
// that is nil. An *Error is QEMU's; after any other error the connection is of no more use.
func (c *Conn) Call(ctx context.Context, name string, args, result any) error {
	return c.call(ctx, name, args, result, nil)
}

// AddFD gives QEMU a descriptor, and returns the name by which commands can open it as a file.
func (c *Conn) AddFD(ctx context.Context, f *os.File) (name string, err error) {
	var set struct {
		ID int64 `json:"fdset-id"`
	}
	if err := c.call(ctx, "add-fd", nil, &set, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/fdset/%d", set.ID), nil
}

func (c *Conn) call(ctx context.Context, name string, args, result any, f *os.File) error {
	fail := func(err error) error { return fmt.Errorf("QMP %s: %w", name, err) }
	defer c.bind(ctx)()
	b, err := json.Marshal(command{name, args})
	if err != nil {
		return fail(err)
	}
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	if _, _, err := c.socket.WriteMsgUnix(append(b, '\n'), rights, nil); err != nil {
		return fail(err)
	}
	m, err := c.receive(ctx)
	switch {
	case err != nil:
		return fail(err)
	case m.Error != nil:
		return fail(m.Error)
	case m.Return == nil:
		return fail(errors.New("the answer is neither a return nor an error"))
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fail(err)
	}
	return nil
}
