package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// Options is what a Server is made from.
type Options struct {
	machine.Options
	Software Software       // nil: domains are empty, and suspend as soon as they are asked
	Logger   zerolog.Logger // the zero value is silent
	// Devices starts what emulates the devices of a new domain; it is closed when the domain is destroyed. The result is
	// nil for a domain that has none. A nil Devices starts nothing.
	Devices func(id guest.DomID, spec guest.Spec) (io.Closer, error)
}

// Server plays a host for any number of clients.
type Server struct {
	m        *machine.Machine
	software Software
	log      zerolog.Logger
	start    func(guest.DomID, guest.Spec) (io.Closer, error)

	mu       sync.Mutex
	lives    map[guest.DomID]*life
	sessions map[uint64]*session
	sessionN uint64
	devices  map[guest.DomID]io.Closer
}

// session is one client, with all its connections. Under Server.mu.
type session struct {
	id    uint64
	conns int
	holds map[uint64]struct{} // writable mappings
}

// New makes a server with its machine. Close gives both back.
func New(o Options) (*Server, error) {
	m, err := machine.New(o.Options)
	if err != nil {
		return nil, err
	}
	return &Server{
		m: m, software: o.Software, log: o.Logger, start: o.Devices,
		lives: map[guest.DomID]*life{}, sessions: map[uint64]*session{}, devices: map[guest.DomID]io.Closer{},
	}, nil
}

// Close stops all guests and gives the machine's memory back. Serve must have returned.
func (s *Server) Close() error {
	s.halt()
	s.endDevices()
	return s.m.Close()
}

// Listen makes the socket of a server, for its owner only. A socket at path that nobody serves any more is replaced.
func Listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSocket != 0 {
		c, err := net.DialUnix("unix", nil, addr)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("listen on %s: another server answers there", path)
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(path)
		}
	}
	mask := unix.Umask(0o177) // from the start, not by a chmod that comes too late
	defer unix.Umask(mask)
	return net.ListenUnix("unix", addr)
}

// Serve answers clients on l until ctx ends, and closes l. Only the server's own user and root may connect.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			l.Close()
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			s.log.Warn().Err(err).Msg("cannot accept a client")
			time.Sleep(10 * time.Millisecond)
			continue
		case err != nil:
			l.Close()
			return fmt.Errorf("accept a client: %w", err)
		}
		conns.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if err := s.serve(ctx, &wire{UnixConn: c}); err != nil && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("client dropped")
			}
		})
	}
}

// serve answers one connection until it closes.
func (s *Server) serve(ctx context.Context, w *wire) error {
	if err := checkPeer(w.UnixConn); err != nil {
		return err
	}
	ses, err := s.greet(w)
	if err != nil || ses == nil {
		return err
	}
	defer s.leave(ses)
	for {
		h, body, err := w.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		a := answer{}
		if h.op == opSuspend || h.op == opCall {
			err = s.watched(ctx, w, func(ctx context.Context) error { return s.slow(ctx, h, body, &a) })
		} else {
			err = s.handle(ses, h, body, &a)
		}
		if errors.Is(err, errGone) {
			return nil
		}
		if err != nil {
			a = answer{header: header{op: answerRefused}}
			a.body, _ = json.Marshal(toWire(err))
		}
		if err := w.send(a.header, a.body); err != nil {
			return nil // the client is gone
		}
	}
}

// answer is an answer in the making.
type answer struct {
	header
	body []byte
}

func (a *answer) json(v any, err error) error {
	if err != nil {
		return err
	}
	a.body, err = json.Marshal(v)
	return err
}

func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("who connects: %w", credErr)
	}
	if uid := uint32(os.Geteuid()); cred.Uid != uid && cred.Uid != 0 {
		return fmt.Errorf("user %d may not use the host of user %d", cred.Uid, uid)
	}
	return nil
}

// greet answers the hello that every connection begins with. It returns no session if the client left at once.
func (s *Server) greet(w *wire) (*session, error) {
	h, _, err := w.receive()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if h.op != opHello || h.a != protocolVersion {
		return nil, fmt.Errorf("a client began with operation %d, version %d", h.op, h.a)
	}
	ses, fresh, err := s.join(h.b)
	if err != nil {
		body, _ := json.Marshal(toWire(err))
		return nil, errors.Join(err, w.send(header{op: answerRefused}, body))
	}
	body, err := json.Marshal(welcome{s.m.Release(), s.m.Frames(), s.m.CompatM2P(), s.m.KernelLog()})
	if err != nil {
		return nil, err
	}
	msg := append(appendHeader(nil, header{op: answerOK, b: ses.id}, len(body)), body...)
	var rights []byte
	if fresh {
		rights = unix.UnixRights(int(s.m.Memory().Fd()), int(s.m.M2P().Fd()))
	}
	if _, _, err := w.WriteMsgUnix(msg, rights, nil); err != nil {
		s.leave(ses)
		return nil, nil
	}
	return ses, nil
}

// join adds a connection to session id, or to a new one.
func (s *Server) join(id uint64) (_ *session, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.sessions[id]
	switch {
	case id == 0:
		s.sessionN++
		ses = &session{id: s.sessionN, holds: map[uint64]struct{}{}}
		s.sessions[ses.id] = ses
	case ses == nil:
		return nil, false, fmt.Errorf("there is no session %d", id)
	}
	ses.conns++
	return ses, id == 0, nil
}

// leave takes a connection away. With the last one the client's mappings go.
func (s *Server) leave(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.conns--; ses.conns > 0 {
		return
	}
	delete(s.sessions, ses.id)
	for h := range ses.holds {
		s.m.Unmap(h)
	}
}

// errGone says that a client went away while its request was worked on.
var errGone = errors.New("client gone")

// watched runs f with a context that ends when the client closes the connection, which may not send meanwhile.
func (s *Server) watched(ctx context.Context, w *wire, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan bool, 1)
	go func() {
		var b [1]byte
		_, err := w.Read(b[:])
		left := !errors.Is(err, os.ErrDeadlineExceeded)
		if left {
			cancel()
		}
		gone <- left
	}()
	err := f(ctx)
	_ = w.SetReadDeadline(time.Unix(1, 0))
	if <-gone {
		return errGone
	}
	return errors.Join(err, w.SetReadDeadline(time.Time{}))
}

// slow is the requests that wait for a guest.
func (s *Server) slow(ctx context.Context, h header, body []byte, a *answer) error {
	if h.op == opSuspend {
		return s.Suspend(ctx, h.domain)
	}
	var r callRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("call: %w", err)
	}
	if s.software == nil {
		return fmt.Errorf("%s: %w", r.Op, errNoSoftware)
	}
	v, err := s.software.Call(ctx, s, r.Op, r.Request)
	return a.json(v, err)
}

// handle is all other requests.
func (s *Server) handle(ses *session, h header, body []byte, a *answer) error {
	if f := frameOps[h.op]; f != nil {
		return f(s, ses, h, body, a)
	}
	if f := domainOps[h.op]; f != nil {
		return f(s, h, body, a)
	}
	if f := stateOps[h.op]; f != nil {
		return f(s.m, h, body, a)
	}
	return fmt.Errorf("there is no operation %d", h.op)
}
