package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Client is a simulated host as its users see it: it implements host.Host. Its methods may be called concurrently;
// each request that overlaps others takes a connection of its own.
type Client struct {
	path    string
	session uint64
	welcome welcome
	anchor  *wire // keeps the session while other connections come and go

	memFD int
	size  uint64       // of machine memory, octets
	views [2][]byte    // machine memory by guest.Prot, mapped when first needed
	m2p   guest.M2P    // likewise
	m2pFD int          //
	maps  sync.RWMutex // views, m2p and the descriptors; held for reading while a view is used

	mu     sync.Mutex
	idle   []*wire
	closed bool
}

var errClosed = errors.New("the simulated host is closed")

// Dial connects to the server at the socket path.
func Dial(ctx context.Context, path string) (*Client, error) {
	c := &Client{path: path, memFD: -1, m2pFD: -1}
	w, err := c.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("simulated host %s: %w", path, err)
	}
	c.anchor = w
	return c, nil
}

// connect opens a connection of the session, or of a new one.
func (c *Client) connect(ctx context.Context) (_ *wire, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	w := &wire{UnixConn: conn.(*net.UnixConn)}
	defer func() {
		if err != nil {
			w.Close()
			err = errors.Join(context.Cause(ctx), err)
		}
	}()
	defer w.until(ctx)()
	if err := w.send(header{op: opHello, a: protocolVersion, b: c.session}, nil); err != nil {
		return nil, err
	}
	var b [headerLen]byte
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, oobn, _, _, err := w.ReadMsgUnix(b[:], oob)
	if err != nil {
		return nil, fmt.Errorf("no greeting: %w", err)
	}
	if _, err := io.ReadFull(w, b[n:]); err != nil {
		return nil, fmt.Errorf("no greeting: %w", err)
	}
	h, body, err := w.receiveBody(b[:])
	if err == nil {
		err = answerErr(h, body)
	}
	if err != nil || c.session != 0 {
		return w, err
	}
	return w, c.begin(h, body, oob[:oobn])
}

// begin takes what comes with a new session.
func (c *Client) begin(h header, body, oob []byte) error {
	if err := json.Unmarshal(body, &c.welcome); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return fmt.Errorf("greeting: no descriptors (%d messages, %w)", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 2 {
		return fmt.Errorf("greeting: %d descriptors, want 2 (%w)", len(fds), err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	c.session, c.memFD, c.m2pFD, c.size = h.b, fds[0], fds[1], c.welcome.Frames*guest.PageSize
	return nil
}

// Path is the server's socket.
func (c *Client) Path() string { return c.path }

// QMPSocket is where the emulator of an HVM domain answers, for a host that serves at hostSocket.
func QMPSocket(hostSocket string, id guest.DomID) string {
	return fmt.Sprintf("%s.qmp-%d", hostSocket, id)
}

// QMPSocket is where the emulator of an HVM domain of this host answers.
func (c *Client) QMPSocket(id guest.DomID) string { return QMPSocket(c.path, id) }

// until makes everything on w fail once ctx ends, until the function it returns is called; that tells whether w is
// still good.
func (w *wire) until(ctx context.Context) func() bool {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
}

// withdrawTime is how long a server may take to stop what it does for a request.
const withdrawTime = time.Minute

// withdrawn is until for a request that must not go on unseen: the server learns that it is withdrawn, and ends the
// connection once nothing of it is under way.
func (w *wire) withdrawn(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() {
		_ = w.SetReadDeadline(time.Now().Add(withdrawTime))
		_ = w.CloseWrite()
	})
}

// call makes one request and hands the answer's body, good until it returns, to take, which may be nil.
func (c *Client) call(ctx context.Context, h header, body []byte, take func(h header, body []byte) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("simulated host %s: %w", c.path, context.Cause(ctx))
	}
	w, err := c.take(ctx)
	if err != nil {
		return fmt.Errorf("simulated host %s: %w", c.path, err)
	}
	stop := func() bool { return true } // as of a hypercall: what was asked for is done, whoever is interrupted
	switch h.op {
	case opSuspend:
		stop = w.withdrawn(ctx)
	case opCall:
		stop = w.until(ctx)
	}
	a, reply, err := w.exchange(h, body)
	if good := stop(); err != nil || !good {
		w.Close()
		if err == nil { // answered at the last moment
			return c.finish(a, reply, take)
		}
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			err = fmt.Errorf("its server is gone: %w", err)
		}
		return fmt.Errorf("simulated host %s: %w", c.path, err)
	}
	defer c.give(w)
	return c.finish(a, reply, take)
}

func (w *wire) exchange(h header, body []byte) (header, []byte, error) {
	if err := w.send(h, body); err != nil {
		return header{}, nil, err
	}
	return w.receive()
}

func (c *Client) finish(h header, body []byte, take func(h header, body []byte) error) error {
	if err := answerErr(h, body); err != nil || take == nil {
		return err
	}
	return take(h, body)
}

// answerErr is the refusal in an answer, or nil.
func answerErr(h header, body []byte) error {
	switch h.op {
	case answerOK:
		return nil
	case answerRefused:
		var e wireError
		if err := json.Unmarshal(body, &e); err != nil {
			return fmt.Errorf("unreadable refusal: %w", err)
		}
		return e.err()
	}
	return fmt.Errorf("answer of unknown kind %d", h.op)
}

// take is an idle connection or a new one.
func (c *Client) take(ctx context.Context) (*wire, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errClosed
	}
	if n := len(c.idle); n > 0 {
		w := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return w, nil
	}
	c.mu.Unlock()
	return c.connect(ctx)
}

func (c *Client) give(w *wire) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		w.Close()
		return
	}
	c.idle = append(c.idle, w)
}

// Close lets go of the host. Mappings must be closed before; domains stay as they are.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, w := range append(idle, c.anchor) {
		w.Close()
	}

	c.maps.Lock()
	defer c.maps.Unlock()
	for _, b := range append(c.views[:], octets(c.m2p[:cap(c.m2p)])) {
		if b != nil {
			_ = unix.Munmap(b)
		}
	}
	c.views, c.m2p = [2][]byte{}, nil
	unix.Close(c.memFD)
	unix.Close(c.m2pFD)
	return nil
}

// memory is machine memory for prot.
func (c *Client) memory(prot guest.Prot) ([]byte, error) {
	if prot > guest.ReadWrite {
		return nil, fmt.Errorf("there is no protection %d", prot)
	}
	c.maps.RLock()
	b := c.views[prot]
	c.maps.RUnlock()
	if b != nil {
		return b, nil
	}
	c.maps.Lock()
	defer c.maps.Unlock()
	if c.views[prot] == nil {
		flags := unix.PROT_READ
		if prot == guest.ReadWrite {
			flags |= unix.PROT_WRITE
		}
		b, err := unix.Mmap(c.memFD, 0, int(c.size), flags, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err != nil {
			return nil, fmt.Errorf("simulated host: map %d octets of machine memory: %w", c.size, err)
		}
		c.views[prot] = b
	}
	return c.views[prot], nil
}
