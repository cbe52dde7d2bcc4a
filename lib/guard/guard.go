// Package guard is the guardian: a process beside xc-save or xc-restore that undoes what its worker left if the worker
// is killed. It holds a pipe from the worker, stderr and a host of its own, never the stream. The worker tells it of each
// change before it happens; when the pipe ends, the last word decides. If the guardian is killed, the worker is told
// and rolls back by itself.
package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Word is the argument that makes a command a guardian: argv[1], before the host's name.
const Word = "--guardian"

// name is the guardian's, in comm and argv[0], so that a kill by the worker's name spares it.
const name = "xenferry-guard"

// State is what there is to undo or to finish if the worker dies now. The zero State is nothing.
type State struct {
	Domain guest.DomID `json:"domain,omitempty"`
	UUID   uuid.UUID   `json:"uuid"`

	// A saver's: the log of dirty pages may be on; the domain may be suspended, or about to be, and shall run on.
	StopLog bool `json:"stop_log,omitempty"`
	Resume  bool `json:"resume,omitempty"`
	// Emulator says that the saver handles the domain's emulator by itself, so that both are the emulator's matter, too. With
	// libxl above, that does.
	Emulator bool `json:"emulator,omitempty"`

	// A restorer's: a domain is being made, with the UUID and beside those that Existing lists, and Domain unless it is
	// 0 (not known yet); it shall be destroyed.
	Destroy  bool          `json:"destroy,omitempty"`
	Existing []guest.DomID `json:"existing,omitempty"`
	// Group is a process group that makes the domain, and is over before anything is destroyed; 0 for none.
	Group int `json:"group,omitempty"`
	// Spare says that who makes the domain lets it run, too: one that has run stays.
	Spare bool `json:"spare,omitempty"`
	// The domain is complete and this side's: it shall run.
	Unpause bool `json:"unpause,omitempty"`
	// File is emptied after a Destroy: the worker's --domid-file.
	File string `json:"file,omitempty"`

	// Journal is the worker's record of a hand-over, which is read first and outweighs the rest: see lib/migrate.
	Journal string `json:"journal,omitempty"`
}

// Guard is the worker's end.
type Guard struct {
	cmd  *exec.Cmd
	pipe *os.File
	lost chan struct{}
}

// Start starts the guardian of this command for a host, and waits until it is ready. Those of locks that are not nil stay
// open in it, so that an flock on one tells when both processes are gone.
func Start(hostSpec string, locks ...*os.File) (*Guard, error) {
	ours, theirs, err := pipes()
	if err != nil {
		return nil, fmt.Errorf("start guardian: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", Word, hostSpec)
	cmd.Args[0] = name
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs.lifeline, theirs.alive}
	for _, l := range locks {
		if l != nil {
			cmd.ExtraFiles = append(cmd.ExtraFiles, l)
		}
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // a terminal's ^C is the worker's alone
	err = cmd.Start()
	_ = theirs.lifeline.Close()
	_ = theirs.alive.Close()
	if err != nil {
		return nil, fmt.Errorf("start guardian: %w", err)
	}
	g := &Guard{cmd: cmd, pipe: ours.lifeline, lost: make(chan struct{})}
	if _, err := io.ReadFull(ours.alive, make([]byte, 1)); err != nil {
		_ = cmd.Wait()
		return nil, fmt.Errorf("the guardian did not start: %w", err)
	}
	go func() {
		_, _ = ours.alive.Read(make([]byte, 1)) // ends with the guardian
		close(g.lost)
	}()
	return g, nil
}

type ends struct{ lifeline, alive *os.File }

func pipes() (ours, theirs ends, err error) {
	if theirs.lifeline, ours.lifeline, err = os.Pipe(); err != nil {
		return ours, theirs, err
	}
	ours.alive, theirs.alive, err = os.Pipe()
	return ours, theirs, err
}

// Lost is closed when the guardian is gone, which before Close means that it was killed.
func (g *Guard) Lost() <-chan struct{} { return g.lost }

// Tell says what there is to undo from now on.
func (g *Guard) Tell(s State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := g.pipe.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("tell the guardian: %w", err)
	}
	return nil
}

// Close ends the guardian. A worker that returns has nothing left to undo; one that panics has not undone anything, so the
// guardian does what the last word asks for, before the panic goes on. Hence it is deferred with what recover says:
//
//	defer func() { g.Close(recover()) }()
func (g *Guard) Close(panicked any) {
	if panicked == nil {
		_ = g.Tell(State{})
	}
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
	if panicked != nil {
		panic(panicked)
	}
}

// follow reads the worker's words until it is gone, and returns the last.
func follow(r io.Reader) State {
	var last State
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var s State
		if json.Unmarshal(lines.Bytes(), &s) == nil {
			last = s
		}
	}
	return last
}

// Watch is the guardian itself: it says that it is ready, waits for the worker's end and then has undo do what the
// last word asks for. Its descriptors are those that Start gives.
func Watch(ctx context.Context, undo func(context.Context, State) error) error {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
	lifeline, alive := os.NewFile(3, "lifeline"), os.NewFile(4, "alive")
	if _, err := alive.Write([]byte{1}); err != nil {
		return err
	}
	return undo(ctx, follow(lifeline))
}

// ErrLost is the cause of a Bind context's end.
var ErrLost = errors.New("the guardian was killed")

// Bind returns a context that also ends with the guardian.
func (g *Guard) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-g.lost:
			cancel(ErrLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// IsGuardian reports whether a command line is one that Start made.
func IsGuardian(args []string) bool { return len(args) == 3 && args[1] == Word }
