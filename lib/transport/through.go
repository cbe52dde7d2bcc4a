package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// The descriptors of a command that Through runs, beside standard input and output, which are the new link's other end.
const (
	FilterSocket = 3 // the link that it was
	FilterStatus = 4 // where the command writes FilterReady once it is, or what went wrong
)

// FilterReady is what a command says that is ready to pass octets on.
const FilterReady = "ready"

// Through has a command pass on what goes over a link, such as one that encrypts: the link's descriptor becomes the
// command's alone, and the link that comes back leads to it. It waits until the command is ready, at most as long as ctx lasts.
func (l *Link) Through(ctx context.Context, words ...string) (*Link, error) {
	defer func() { _ = l.Close() }()
	if len(words) == 0 {
		return nil, errors.New("no command encrypts this link")
	}
	status, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = status.Close() }()
	c := exec.Command(words[0], words[1:]...)
	if words[0] == os.Args[0] { // this program, wherever it is by now
		c.Path, c.Err = "/proc/self/exe", nil
	}
	c.ExtraFiles = []*os.File{l.In, theirs}
	k, err := start(c)
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, k.Abort)
	said, err := io.ReadAll(status)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err == nil && string(said) == FilterReady {
		return k, nil
	}
	if err == nil {
		err = errors.New(string(said))
	}
	if len(said) == 0 {
		err = fmt.Errorf("it ended at once: %w", err)
	}
	k.Abort()
	_ = k.Close()
	return nil, err
}
