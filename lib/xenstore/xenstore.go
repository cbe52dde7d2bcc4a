// Package xenstore is a client of xenstored, the registry in which domains and their toolstack leave each other notes:
// over the daemon's socket, or through the kernel's /dev/xen/xenbus (xen/include/public/io/xs_wire.h, docs/misc/xenstore.txt).
package xenstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"xenferry/lib/guest"
)

// Where xenstored may be reached, in order of preference.
var (
	sockets = []string{"/run/xenstored/socket", "/var/run/xenstored/socket"}
	devices = []string{"/dev/xen/xenbus", "/proc/xen/xenbus"}
)

// ErrNone says that no xenstored was found.
var ErrNone = errors.New("no xenstored: neither its socket nor /dev/xen/xenbus can be opened")

// ErrClosed is the error of what is under way on a connection that ends.
var ErrClosed = errors.New("the connection to xenstored is closed")

// Conn is a connection. Its methods may be called concurrently. Paths are absolute, or of the caller's own domain.
type Conn struct {
	Tx // without a transaction

	rwc  io.ReadWriteCloser
	send sync.Mutex // held for the writing of one message

	mu      sync.Mutex
	err     error // why the connection ended
	next    uint32
	waiting map[uint32]chan message
	watches map[string]*Watch // by token
}

// Tx is a transaction: what it reads and writes happens at once or not at all.
type Tx struct {
	c  *Conn
	id uint32
}

// Dial connects to the xenstored of this machine.
func Dial(ctx context.Context) (*Conn, error) {
	var tried []error
	for _, path := range sockets {
		var d net.Dialer
		s, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return New(s), nil
		}
		tried = append(tried, err)
	}
	for _, path := range devices {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			return New(f), nil
		}
		tried = append(tried, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNone, errors.Join(tried...))
}

// New speaks to the xenstored at the other end of rwc, which is the connection's from now on.
func New(rwc io.ReadWriteCloser) *Conn {
	c := &Conn{rwc: rwc, waiting: map[uint32]chan message{}, watches: map[string]*Watch{}}
	c.Tx = Tx{c: c}
	go c.receive()
	return c
}

// Close ends the connection, and with it its watches and transactions.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	return c.rwc.Close()
}

// Err is why the connection has ended, nil while it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// end fails everything that is under way.
func (c *Conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for _, ch := range c.waiting {
		close(ch)
	}
	c.waiting = nil
}

// receive hands out what comes: answers to who asked, events to their watch.
func (c *Conn) receive() {
	for {
		m, err := readMessage(c.rwc)
		if err != nil {
			c.end(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
		if m.op == opWatchEvent {
			c.fire(m.body)
			continue
		}
		c.mu.Lock()
		ch := c.waiting[m.request]
		delete(c.waiting, m.request)
		c.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
}

// ask sends a request made of parts, each of which already ends as the operation wants it, and returns the answer's
// body. An answer that comes after ctx has ended is dropped.
func (c *Conn) ask(ctx context.Context, o op, tx uint32, parts ...string) (string, error) {
	subject := ""
	if len(parts) > 0 {
		subject = strings.TrimRight(parts[0], "\x00")
	}
	fail := func(err error) error { return fmt.Errorf("xenstore %v %s: %w", o, subject, err) }
	body := strings.Join(parts, "")
	if len(body) > maxBody {
		return "", fail(fmt.Errorf("%d octets are more than the %d of a message", len(body), maxBody))
	}
	ch := make(chan message, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return "", fail(c.err)
	}
	c.next++
	id := c.next
	c.waiting[id] = ch
	c.mu.Unlock()
	c.send.Lock()
	_, err := c.rwc.Write(message{op: o, request: id, tx: tx, body: body}.append(nil))
	c.send.Unlock()
	if err != nil {
		c.end(fmt.Errorf("%w: %w", ErrClosed, err))
		return "", fail(err)
	}
	select {
	case m, ok := <-ch:
		switch {
		case !ok:
			return "", fail(c.err)
		case m.op == opError:
			return "", fail(errnoOf(m.body))
		case m.op != o:
			return "", fail(fmt.Errorf("the answer is a %v", m.op))
		}
		return m.body, nil
	case <-ctx.Done():
		return "", fail(context.Cause(ctx))
	}
}

// z ends a string as most operations want it.
func z(s string) string { return s + "\x00" }

// Read is a node's value. A node that is not there matches fs.ErrNotExist.
func (t *Tx) Read(ctx context.Context, path string) (string, error) {
	return t.c.ask(ctx, opRead, t.id, z(path))
}

// Write sets a node's value. It and the nodes above are made if they are not there.
func (t *Tx) Write(ctx context.Context, path, value string) error {
	_, err := t.c.ask(ctx, opWrite, t.id, z(path), value)
	return err
}

// Mkdir makes a node, unless it is there.
func (t *Tx) Mkdir(ctx context.Context, path string) error {
	_, err := t.c.ask(ctx, opMkdir, t.id, z(path))
	return err
}

// Remove removes a node and all below it. One that is not there is no error if there is a node above it.
func (t *Tx) Remove(ctx context.Context, path string) error {
	_, err := t.c.ask(ctx, opRemove, t.id, z(path))
	return err
}

// Directory is the names of the nodes right below path.
func (t *Tx) Directory(ctx context.Context, path string) ([]string, error) {
	s, err := t.c.ask(ctx, opDirectory, t.id, z(path))
	return split(s), err
}

// Perms is a node's permissions: first its owner, with what others may do, then exceptions; a letter (n none, r read, w
// write, b both) and a domain's number each.
func (t *Tx) Perms(ctx context.Context, path string) ([]string, error) {
	s, err := t.c.ask(ctx, opGetPerms, t.id, z(path))
	return split(s), err
}

// SetPerms sets them.
func (t *Tx) SetPerms(ctx context.Context, path string, perms []string) error {
	parts := []string{z(path)}
	for _, p := range perms {
		parts = append(parts, z(p))
	}
	_, err := t.c.ask(ctx, opSetPerms, t.id, parts...)
	return err
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\x00"), "\x00")
}

// Transaction runs f until what it did could be committed without another's getting in between. An error of f's ends
// it, and nothing of it has happened.
func (c *Conn) Transaction(ctx context.Context, f func(tx *Tx) error) error {
	for {
		s, err := c.ask(ctx, opTransactionStart, 0, z(""))
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(strings.TrimSuffix(s, "\x00"), 10, 32)
		if err != nil {
			return fmt.Errorf("xenstore %v: %w", opTransactionStart, err)
		}
		tx := &Tx{c, uint32(id)}
		if err := f(tx); err != nil {
			_, e := c.ask(context.WithoutCancel(ctx), opTransactionEnd, tx.id, z("F"))
			return errors.Join(err, e)
		}
		if _, err = c.ask(ctx, opTransactionEnd, tx.id, z("T")); !errors.Is(err, errAgain) {
			return err
		}
	}
}

// Introduce tells xenstored of a domain: the frame of its ring and the event channel of its end.
func (c *Conn) Introduce(ctx context.Context, id guest.DomID, ring guest.GFN, port uint32) error {
	_, err := c.ask(ctx, opIntroduce, 0, number(id), z(strconv.FormatUint(uint64(ring), 10)), z(strconv.FormatUint(uint64(port), 10)))
	return err
}

// Release has xenstored forget a domain, whose nodes stay.
func (c *Conn) Release(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opRelease, 0, number(id))
	return err
}

// Resume tells xenstored that a domain that had shut down runs again.
func (c *Conn) Resume(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opResume, 0, number(id))
	return err
}

// Introduced reports whether xenstored knows a domain.
func (c *Conn) Introduced(ctx context.Context, id guest.DomID) (bool, error) {
	s, err := c.ask(ctx, opIsIntroduced, 0, number(id))
	return strings.TrimSuffix(s, "\x00") == "T", err
}

// DomainPath is where a domain's nodes are.
func (c *Conn) DomainPath(ctx context.Context, id guest.DomID) (string, error) {
	s, err := c.ask(ctx, opGetDomainPath, 0, number(id))
	return strings.TrimSuffix(s, "\x00"), err
}

func number(id guest.DomID) string { return z(strconv.Itoa(int(id))) }

// Watch tells of changes at and below a path, and once at its beginning.
type Watch struct {
	c           *Conn
	path, token string
	events      chan string
}

// Watch begins to watch a path, which may also be @introduceDomain or @releaseDomain.
func (c *Conn) Watch(ctx context.Context, path string) (*Watch, error) {
	c.mu.Lock()
	c.next++
	w := &Watch{c: c, path: path, token: "w" + strconv.FormatUint(uint64(c.next), 10), events: make(chan string, 1)}
	c.watches[w.token] = w
	c.mu.Unlock()
	if _, err := c.ask(ctx, opWatch, 0, z(path), z(w.token)); err != nil {
		c.mu.Lock()
		delete(c.watches, w.token)
		c.mu.Unlock()
		return nil, err
	}
	return w, nil
}

// Events receives the path that changed. Events that nobody has received yet become one.
func (w *Watch) Events() <-chan string { return w.events }

// Close ends the watch, whatever becomes of the caller's context.
func (w *Watch) Close() {
	w.c.mu.Lock()
	delete(w.c.watches, w.token)
	w.c.mu.Unlock()
	_, _ = w.c.ask(context.Background(), opUnwatch, 0, z(w.path), z(w.token)) // it fails only with the connection
}

// fire passes an event on.
func (c *Conn) fire(body string) {
	f := split(body)
	if len(f) < 2 {
		return
	}
	c.mu.Lock()
	w := c.watches[f[1]]
	c.mu.Unlock()
	if w == nil {
		return
	}
	select {
	case w.events <- f[0]:
	default:
	}
}
