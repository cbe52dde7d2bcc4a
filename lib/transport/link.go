package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// Link is a way to another process and back. Its files are blocking descriptors which a child may inherit: from then on
// nothing of this process stands in the data's path. Where the way is a socket, both are the same file.
type Link struct {
	In, Out *os.File
	child   *exec.Cmd
	exited  chan struct{} // closed when child has
}

// Patience is how long Close waits for the command of an exec or ssh link to end by itself.
const Patience = 2 * time.Second

// Options are of a link that is made.
type Options struct {
	Remote  string        // SSH: the command that is run there
	Silence time.Duration // SSH: how long the other side may be silent; 0 is what the user's ssh has
	Filter  []string      // TLS: the command that encrypts; see Through
}

// Dial makes a link to a. It takes as long as ctx lasts.
func Dial(ctx context.Context, a Address, opt Options) (*Link, error) {
	var l *Link
	var err error
	switch a.Scheme {
	case Exec:
		c := exec.Command("sh", "-c", a.Command)
		// ssh may be in it, and could not ask its user for something in the background of a terminal. From there ^C reaches all.
		c.SysProcAttr = &unix.SysProcAttr{Setpgid: !hasTerminal()}
		l, err = start(c)
	case SSH:
		words := opt.ssh(a.Host)
		l, err = start(exec.Command(words[0], words[1:]...))
	case FD:
		l, err = inherited(a.In, a.Out)
	default:
		l, err = dialSocket(ctx, a)
	}
	if err == nil && a.Scheme == TLS {
		l, err = l.Through(ctx, opt.Filter...)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a.Scheme, err)
	}
	return l, nil
}

// ssh is the command line of ssh.
func (o Options) ssh(host string) []string {
	words := []string{"ssh"}
	if o.Silence > 0 {
		words = append(words, "-o", fmt.Sprintf("ServerAliveInterval=%d", seconds(o.Silence/aliveCount)),
			"-o", fmt.Sprintf("ServerAliveCountMax=%d", aliveCount))
	}
	return append(words, "--", host, o.Remote)
}

func dialSocket(ctx context.Context, a Address) (*Link, error) {
	var d net.Dialer
	switch a.Scheme {
	case TCP, TLS:
		return fromConn(d.DialContext(ctx, "tcp", a.Host))
	case Unix:
		return fromConn(d.DialContext(ctx, "unix", a.Path))
	case VSock:
		c, err := vsock.DialContext(ctx, a.CID, a.Port, nil)
		if err != nil {
			return nil, err
		}
		return fromConn(c, nil)
	}
	l, err := fromConn(d.DialContext(ctx, "unix", a.Path))
	if err != nil {
		return nil, err
	}
	if err := l.through(ctx, a.Port); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// through asks the virtual machine monitor behind a unix socket for a port of its guest: CONNECT PORT, answered by OK and
// a number. The answer is read octet by octet, as what follows it is the guest's.
func (l *Link) through(ctx context.Context, port uint32) error {
	if _, err := fmt.Fprintf(l.Out, "CONNECT %d\n", port); err != nil {
		return err
	}
	r, err := NewReader(ctx, int(l.In.Fd()))
	if err != nil {
		return err
	}
	var line []byte
	for b := [1]byte{}; b[0] != '\n'; line = append(line, b[0]) {
		if len(line) > 64 {
			return fmt.Errorf("CONNECT %d was answered by %q", port, line)
		}
		if _, err := r.Read(b[:]); err != nil {
			return fmt.Errorf("CONNECT %d: no answer: %w", port, err)
		}
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("CONNECT %d was answered by %q", port, line)
	}
	return nil
}

// fromConn takes the descriptor of a connection, which goes.
func fromConn(c net.Conn, err error) (*Link, error) {
	if err != nil {
		return nil, err
	}
	fd, err := blocking(c)
	if err = errors.Join(err, c.Close()); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	f := os.NewFile(uintptr(fd), c.RemoteAddr().String())
	return &Link{In: f, Out: f}, nil
}

// blocking duplicates a connection's descriptor and makes it blocking; -1 if there is none. Not every connection has a
// method File: a vsock's has not.
func blocking(c net.Conn) (fd int, err error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	control := raw.Control(func(conn uintptr) {
		if fd, err = unix.FcntlInt(conn, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false)
		}
	})
	return fd, errors.Join(control, err)
}

// inherited takes descriptors that this process was given.
func inherited(in, out int) (*Link, error) {
	l := new(Link)
	for _, end := range []struct {
		fd   int
		file **os.File
	}{{in, &l.In}, {out, &l.Out}} {
		if err := Check(end.fd); err != nil {
			return nil, err
		}
		if end.fd == in && l.In != nil {
			*end.file = l.In
			continue
		}
		*end.file = os.NewFile(uintptr(end.fd), fmt.Sprintf("descriptor %d", end.fd))
	}
	return l, nil
}

// hasTerminal reports whether a terminal controls this process.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		_ = f.Close()
	}
	return err == nil
}

// start starts a command whose standard input and output are the link. Its standard error is this process's.
func start(c *exec.Cmd) (*Link, error) {
	l := &Link{child: c, exited: make(chan struct{})}
	theirIn, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), out.Close())
	}
	l.In, l.Out = in, out
	l.child.Stdin, l.child.Stdout, l.child.Stderr = theirIn, theirOut, os.Stderr
	err = l.child.Start()
	_, _ = theirIn.Close(), theirOut.Close()
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	go func() {
		_ = l.child.Wait()
		close(l.exited)
	}()
	return l, nil
}

// kill ends the command, and with a process group of its own whatever it has started.
func (l *Link) kill() {
	select {
	case <-l.exited: // its number may be another's
		return
	default:
	}
	if l.child.SysProcAttr != nil && l.child.SysProcAttr.Setpgid {
		_ = unix.Kill(-l.child.Process.Pid, unix.SIGKILL)
		return
	}
	_ = l.child.Process.Kill()
}

// Abort breaks the link, so that whoever reads or writes it, in this process or a child, fails at once; but not where a pipe's
// other end is also that of a process that it does not reach: a Reader, and a Writer of NewWriterUntil, end with their context.
func (l *Link) Abort() {
	if l.child != nil {
		l.kill()
		return
	}
	for _, f := range []*os.File{l.In, l.Out} {
		_ = unix.Shutdown(int(f.Fd()), unix.SHUT_RDWR) // only sockets can
	}
}

// Close closes the link and waits for its command, if it has one, at most Patience; one that stays is killed. The error is
// that of the command.
func (l *Link) Close() error {
	_ = l.In.Close()
	if l.Out != l.In {
		_ = l.Out.Close()
	}
	if l.child == nil {
		return nil
	}
	select {
	case <-l.exited:
	case <-time.After(Patience):
		l.kill()
		<-l.exited
	}
	if s := l.child.ProcessState; !s.Success() {
		return fmt.Errorf("%s: %v", strings.Join(l.child.Args, " "), s)
	}
	return nil
}

// Listener waits for links.
type Listener struct {
	net.Listener
	what string
}

// Listen waits for links at a. A unix socket is its owner's alone; one at the same path that nobody serves is replaced.
func Listen(a Address) (*Listener, error) {
	l := &Listener{}
	var err error
	switch a.Scheme {
	case TCP, TLS: // over TLS, Through is for who accepts
		l.Listener, err = net.Listen("tcp", a.Host)
	case Unix:
		l.Listener, err = listenUnix(a.Path)
	case VSock:
		l.Listener, err = vsock.ListenContextID(a.CID, a.Port, nil)
	case VSockUnix:
		// Where the monitor connects to when its guest connects to the port.
		l.Listener, err = listenUnix(fmt.Sprintf("%s_%d", a.Path, a.Port))
	default:
		err = errors.New("cannot be listened to")
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a.Scheme, err)
	}
	l.what = string(a.Scheme)
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
		c, err := net.Dial("unix", path)
		if err == nil {
			return nil, errors.Join(fmt.Errorf("%s: somebody answers there already", path), c.Close())
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(path)
		}
	}
	mask := unix.Umask(0o177) // from the start, not by a chmod that comes too late
	defer unix.Umask(mask)
	return net.Listen("unix", path)
}

// Accept waits for a link until ctx ends, and with it the Listener.
func (l *Listener) Accept(ctx context.Context) (*Link, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	k, err := fromConn(l.Listener.Accept())
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = k.Close()
		}
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("accept on %s: %w", l.what, err)
	}
	return k, nil
}
