// Package dropin is xc-save and xc-restore in the place of libxl-save-helper: libxl starts the command, owns the domain
// and the stream around ours, and is asked and told by messages.
package dropin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/helper"
	"xenferry/lib/host"
	"xenferry/lib/record"
	"xenferry/lib/restore"
	"xenferry/lib/transport"
	"xenferry/lib/xen"
)

// Exit statuses that libxl sees. A failed operation ends with a message and status 0.
const (
	exitRefused = 255 // what the command line asks for cannot be: no message was sent
	exitGone    = 254 // the toolstack is gone
)

// cleanUpTime bounds what is asked of libxl once an operation has failed.
const cleanUpTime = 20 * time.Second

// operation is one save or restore for libxl.
type operation struct {
	call *helper.Call
	conn *helper.Conn
	host host.Host
	log  zerolog.Logger
	info guest.Info
	tune tuning // of a save
	ours bool   // the caller is xl-stream, no toolstack

	rings restore.Result // zero unless a restore succeeded
}

// Called reports whether a command line, without the program, is a toolstack's, for Run.
func Called(args []string) bool { return helper.IsCall(args) || helper.RefuseXend(args) != nil }

// Run does what libxl's command line asks for. The error has the exit status.
func Run(ctx context.Context, env *cli.Env) error {
	if err := helper.RefuseXend(env.Args); err != nil {
		return err // by status 1, as the programs failed that xend called; 127 would be one that it could not start
	}
	call, err := helper.ParseCall(env.Args)
	if err != nil {
		return cli.WithStatus(exitRefused, err)
	}
	if !isPipe(0) || !isPipe(1) {
		return cli.Usagef("%s is for libxl, which speaks through pipes on descriptors 0 and 1", env.Args[0])
	}
	tune, tuneErr := tuned(call)
	cli.CloseOnExec()
	conn := helper.NewConn(call, os.Stdin, os.Stdout)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		<-conn.Gone()
		cancel(helper.ErrGone)
	}()
	o := &operation{call: call, conn: conn, log: logTo(conn), tune: tune}
	if err = tuneErr; err == nil {
		err = o.survive(ctx)
	}
	result, errno := int32(0), int32(0)
	if err != nil {
		var at *record.Error
		if errors.As(err, &at) {
			err = fmt.Errorf("libxc stream: %w", err) // its offsets count from its own header, libxl's from elsewhere
		}
		o.log.Error().Msg(err.Error())
		result, errno = -1, errnoOf(err)
	}
	if call.Restore {
		// Without these libxl reports that they are missing instead of what failed. If it is gone, Complete says so.
		_ = conn.RestoreResults(o.rings.Store, o.rings.Console)
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer stop()
	if conn.Complete(last, result, errno) != nil {
		switch {
		case err == nil:
			err = helper.ErrGone
		case !errors.Is(err, helper.ErrGone):
			err = fmt.Errorf("%w; %w", err, helper.ErrGone) // one line
		}
		return cli.WithStatus(exitGone, err)
	}
	return nil
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && (st.Mode&unix.S_IFMT == unix.S_IFIFO || st.Mode&unix.S_IFMT == unix.S_IFSOCK)
}

// errnoOf is the number that libxl logs for an error. A stream that is invalid and a release of Xen that is not known have
// ones of their own, as EIO sends people to their disks.
func errnoOf(err error) int32 {
	var errno unix.Errno
	var signal *cli.Interrupted
	switch {
	case errors.As(err, &errno):
		return int32(errno)
	case errors.As(err, &signal):
		return int32(unix.EINTR)
	case record.IsInvalid(err):
		return int32(unix.EBADMSG)
	case errors.Is(err, xen.ErrUnknown):
		return int32(unix.EOPNOTSUPP)
	}
	return int32(unix.EIO)
}

// survive is run, of which a panic is a failure as any other: libxl is told, after what is deferred has cleaned up.
func (o *operation) survive(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "panic: %v\n\n%s", p, debug.Stack())
			err = fmt.Errorf("a fault of this program (panic): %v", p)
		}
	}()
	return o.run(ctx)
}

// run opens the host and does the save or the restore.
func (o *operation) run(ctx context.Context) (err error) {
	o.log.Debug().Msgf("called as by Xen %s: restore=%v, domain %d, stream on descriptor %d", o.call.Release, o.call.Restore, o.call.Domain, o.call.Stream)
	if o.call.StreamType == helper.COLO {
		return fmt.Errorf("COLO is not supported: %w", unix.EOPNOTSUPP)
	}
	spec := os.Getenv(host.HelperEnv) // empty where the caller is a toolstack
	o.ours = spec != ""
	if o.host, err = host.Open(ctx, spec, o.log); err != nil {
		return err
	}
	defer func() { _ = o.host.Close() }()
	lock := &host.Lock{} // a domain that libxl has just made is nobody else's
	if !o.call.Restore {
		if lock, err = host.LockDomain(ctx, o.host, o.call.Domain, o.log); err != nil {
			return err
		}
		defer lock.Release()
		if _, err := lock.Claim(); err != nil {
			return err
		}
	}
	if o.info, err = o.host.Info(ctx, o.call.Domain); err != nil {
		return err
	}
	if o.call.Restore {
		in, err := transport.NewReader(ctx, o.call.Stream)
		if err != nil {
			return err
		}
		return o.restore(ctx, in)
	}
	out, err := transport.NewWriter(o.call.Stream)
	if err != nil {
		return err
	}
	if !o.call.Live {
		return o.save(ctx, out, nil)
	}
	g, err := guard.Start(spec, lock.File())
	if err != nil {
		return err
	}
	defer func() { g.Close(recover()) }()
	ctx, stop := g.Bind(ctx)
	defer stop()
	return o.save(ctx, out, func(on bool) error {
		return g.Tell(guard.State{Domain: o.info.ID, UUID: o.info.UUID, StopLog: on})
	})
}
