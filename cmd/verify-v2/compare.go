package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/transport"
	"xenferry/lib/verify"
)

// errDiffer is the message when images differ; the differences themselves are on standard output.
var errDiffer = errors.New("the images differ")

// runCompare compares the two images that the command line names.
func runCompare(ctx context.Context, env *cli.Env, o *options) error {
	var images [2]io.ReaderAt
	for i, name := range o.words {
		image, done, err := openImage(ctx, name)
		if err != nil {
			return err
		}
		defer done()
		images[i] = image
	}
	c, err := verify.Compare(images[0], images[1], verify.Options{Layer: o.layer, Pedantic: o.pedantic, AllowTrailing: o.trailing})
	if err != nil {
		return err
	}
	out := &output{w: env.Stdout}
	switch {
	case o.quiet:
	case o.json:
		out.json(c)
	default:
		out.err = c.WriteText(env.Stdout)
	}
	switch {
	case out.err != nil:
		return fmt.Errorf("write the differences: %w", out.err)
	case c.Invalid() != nil:
		return cli.WithStatus(cli.ExitInvalid, c.Invalid())
	case !c.Equal:
		return cli.WithStatus(cli.ExitInvalid, errDiffer)
	}
	return nil
}

// openImage opens a descriptor or file as an image, from where it stands. What cannot be read at any place, such as a pipe,
// is first copied into a temporary file without a name. done closes what was opened here.
func openImage(ctx context.Context, name string) (image io.ReaderAt, done func(), err error) {
	in, err := openInput(name)
	if err != nil {
		return nil, nil, err
	}
	if transport.IsRegular(in.fd) {
		start, err := unix.Seek(in.fd, 0, io.SeekCurrent)
		if err != nil {
			in.close()
			return nil, nil, fmt.Errorf("offset of %s: %w", name, err)
		}
		return io.NewSectionReader(in, start, 1<<62), in.close, nil
	}
	defer in.close()
	spool, err := spoolFile(ctx, in.fd)
	if err != nil {
		return nil, nil, fmt.Errorf("copy %s to a temporary file: %w", name, err)
	}
	return spool, func() { _ = spool.Close() }, nil
}

// spoolFile copies all of fd into a file that is gone when it is closed.
func spoolFile(ctx context.Context, fd int) (*os.File, error) {
	src, err := transport.NewReader(ctx, fd)
	if errors.Is(err, transport.ErrTerminal) {
		return nil, cli.WithStatus(cli.ExitUsage, err)
	} else if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "verify-v2-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(file.Name())
	if err == nil {
		// Without its methods the file takes the large buffer, not one of its own.
		_, err = io.CopyBuffer(struct{ io.Writer }{file}, src, make([]byte, transport.PipeSize))
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
